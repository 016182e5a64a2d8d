"""A Django project in one file, with the hub beside it: views publish, sync and async ones. Run:

uvicorn examples.django_app:app --http ssepool.uvicorn:Protocol
curl -N localhost:8000/sse/events?topic=articles
curl localhost:8000/articles -d title=News
"""

import os

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from ssepool import Hub

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(16).hex(), ALLOWED_HOSTS=["localhost", "127.0.0.1"])
hub = Hub()


def create(request: HttpRequest) -> JsonResponse:  # the ORM is at hand here; streams never come through Django
    id = async_to_sync(hub.publish)("articles", {"title": request.POST["title"]}, type="created")
    return JsonResponse({"id": id}, status=201)


async def count(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"readers": sum("articles" in reader.topics for reader in hub.connections)})


urlpatterns = [path("articles", create), path("articles/readers", count)]

app = Starlette(routes=[Mount("/sse", hub.dev_app), Mount("/", get_asgi_application())], lifespan=hub.lifespan)
