"""Make the database, with the users Ann and Ben: `python -m django_project.prepare`."""

import os

import django
from django.core.management import call_command

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_project.settings")
    django.setup()
    call_command("migrate", verbosity=0)

    from django.contrib.auth.models import User

    for name, password in ("ann", "red"), ("ben", "blue"):
        User.objects.create_user(name, password=password)
