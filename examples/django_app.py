"""A Django project in one file, and the hub beside it, which goes by the project's own sessions. Run:

uvicorn examples.django_app:app --http ssepool.uvicorn:Protocol
curl -c jar localhost:8000/login -d user=ann -d password=red
curl -b jar -N localhost:8000/sse/events?topic=users/ann
curl -b jar localhost:8000/notes -d text=Hello
"""

import os
from importlib import import_module

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from ssepool import Asking, Grant, Hub

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.urandom(16).hex(),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",  # or any other: `aget` may wait
)
sessions = import_module(settings.SESSION_ENGINE)
passwords = {"ann": "red", "ben": "blue"}  # stands for Django's users


async def who(asking: Asking) -> Grant | None:
    user = await sessions.SessionStore(asking.cookies.get(settings.SESSION_COOKIE_NAME)).aget("user")
    return Grant(subject=user, subscribe=[f"users/{user}"]) if user else None


def login(request: HttpRequest) -> HttpResponse:
    user = request.POST.get("user", "")
    if passwords.get(user) != request.POST.get("password", ""):
        return HttpResponse(status=401)
    request.session["user"] = user
    return HttpResponse(status=204)


def note(request: HttpRequest) -> HttpResponse:  # the ORM is at hand here; streams never come through Django
    if not (user := request.session.get("user")):
        return HttpResponse(status=401)
    id = async_to_sync(hub.publish)(f"users/{user}", {"text": request.POST["text"]}, type="note")
    return JsonResponse({"id": id}, status=201)


hub = Hub(authorize=who)
urlpatterns = [path("login", login), path("notes", note)]
app = Starlette(routes=[Mount("/sse", hub.app), Mount("/", get_asgi_application())], lifespan=hub.lifespan)
