"""The project as an application for ASGI servers."""

import os

from ssepool.django import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_asgi_application()
