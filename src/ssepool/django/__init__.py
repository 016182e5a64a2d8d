"""ssepool in a Django project: streams behind its middleware, sessions and users, and events when it commits.

INSTALLED_APPS += ["ssepool.django"]
SSEPOOL = {"pool": {"size": 10_000}, "hub": {"broker": "redis://localhost"}}

application = ssepool.django.get_asgi_application()                                   # asgi.py
urlpatterns = [path("events/", events(topics=lambda request: [f"users/{request.user.pk}"]))]
publish_on_commit(f"users/{user.pk}", {"text": "hello"})

See docs/django.md.
"""

from __future__ import annotations

from ssepool.django.asgi import get_asgi_application
from ssepool.django.process import get_hub
from ssepool.django.publishing import apublish, publish, publish_on_commit
from ssepool.django.views import EventResponse, events

__all__ = [
    "EventResponse",
    "apublish",
    "events",
    "get_asgi_application",
    "get_hub",
    "publish",
    "publish_on_commit",
]
