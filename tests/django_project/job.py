"""What a worker of a task queue does, in a process without a server: `python -m django_project.job`."""

import asyncio
import os

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_project.settings")
    django.setup()

    from django_project.urls import in_transaction
    from ssepool.django import apublish

    in_transaction("sync", "commit")
    asyncio.run(apublish("sync", "end"))
