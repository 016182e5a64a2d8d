"""The project for ASGI servers."""

import os

from ssepool.django import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_project.settings")
application = get_asgi_application(mount="/sse" if "access" in os.environ.get("SSEPOOL", "") else None)
