"""The views."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable

import msgspec
from asgiref.sync import sync_to_async
from django import VERSION
from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models.signals import post_save
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache

from ssepool import InvalidTopic, PoolClosed
from ssepool.django import EventResponse, apublish, events, get_hub, publish, publish_on_commit

disconnected: list[str] = []


@get_hub().on_disconnect
def note(connection: object, reason: str) -> None:
    disconnected.append(reason)


def enter(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["user"], password=request.POST["password"])
    if user is None:
        return HttpResponse(status=401)
    login(request, user)
    return JsonResponse({"id": user.pk})


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse(status=204)


def own(request: HttpRequest) -> list[str] | None:
    return [f"users/{request.user.pk}"] if request.user.is_authenticated else None


async def of_room(request: HttpRequest, room: str) -> str | HttpResponse | None:
    if room == "elsewhere":
        return HttpResponseRedirect("/login")
    if room == "locked":
        raise PermissionDenied
    return None if room == "nobodys" else f"rooms/{room}"


def of_user(request: HttpRequest, **captured: object) -> Iterable[str]:
    return (topic for topic in [f"users/{request.user.pk}", "news"])


async def count(request: HttpRequest) -> HttpResponse:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)
            await asyncio.sleep(0)

    stream = get_hub().stream(request, numbers())
    stream.set_cookie("colour", "blue", path="/count", httponly=True, samesite="strict")
    stream.set_cookie("size", "9")
    return EventResponse(stream)


async def fail(request: HttpRequest, how: str) -> HttpResponse:
    async def numbers() -> AsyncIterator[str]:
        if how == "denied":
            raise PermissionDenied
        if how == "missing":
            raise Http404
        yield how

    return EventResponse(get_hub().stream(request, numbers()))


def count_in_sync_code(request: HttpRequest) -> HttpResponse:
    async def numbers() -> AsyncIterator[str]:
        yield "one"

    return EventResponse(get_hub().stream(request, numbers()))


def in_transaction(topic: str, end: str) -> None:
    with transaction.atomic():
        publish_on_commit(topic, "outer 1")
        try:
            with transaction.atomic():
                publish_on_commit(topic, "inner")
                raise LookupError
        except LookupError:
            pass
        publish_on_commit(topic, "outer 2", type="note")
        Group.objects.create(name=f"{topic} {Group.objects.count()}")  # whose signal publishes
        for number in range(20):
            publish_on_commit(topic, f"many {number}")
        publish(topic, "at once")
        if end == "rollback":
            transaction.set_rollback(True)


def on_group(sender: type, instance: Group, **more: object) -> None:
    publish_on_commit(instance.name.split()[0], "signal")


post_save.connect(on_group, sender=Group)


def sync_transaction(request: HttpRequest, end: str) -> HttpResponse:
    in_transaction("sync", end)
    return HttpResponse(status=204)


async def async_transaction(request: HttpRequest, end: str) -> HttpResponse:
    await sync_to_async(in_transaction)("async", end)
    return HttpResponse(status=204)


async def async_outside(request: HttpRequest) -> HttpResponse:
    for number in range(20):
        publish_on_commit("outside", number)
    try:
        publish("outside", "never")
    except Exception as error:
        await apublish("outside/errors", type(error).__name__)
    return HttpResponse(status=204)


def say(request: HttpRequest, topic: str) -> HttpResponse:
    publish_on_commit(topic, mark_safe(request.body.decode()))
    return JsonResponse({"id": publish(topic, {"user": request.user.pk})})


def wrong(request: HttpRequest) -> HttpResponse:
    try:
        with transaction.atomic():
            User.objects.create_user("never")
            publish_on_commit("not ok\n", "data")
    except InvalidTopic:
        return HttpResponse(status=400)
    return HttpResponse(status=204)


def fails(request: HttpRequest, kind: str) -> HttpResponse:
    if kind == "closed":
        raise PoolClosed("the hub is closed")
    return JsonResponse({"id": publish("a/../b" if kind == "topic" else "a", "x" * 2_000_000)})


async def fails_in_async_code(request: HttpRequest, kind: str) -> HttpResponse:
    if kind == "closed":
        raise PoolClosed("the hub is closed")
    return JsonResponse({"id": await apublish("a/../b" if kind == "topic" else "a", "x" * 2_000_000)})


@never_cache
def state(request: HttpRequest) -> HttpResponse:
    stats = msgspec.to_builtins(get_hub().stats())
    return JsonResponse({**stats, "threads": threading.active_count(), "disconnected": disconnected})


urlpatterns = [
    path("fails/sync/<kind>", fails),
    path("fails/async/<kind>", fails_in_async_code),
    path("login", enter),
    path("logout", leave),
    path("events/", events(own)),
    path("news/", events("news")),
    path("rooms/<path:room>/", events(of_room)),
    path("mine/", login_required(events(of_user)) if VERSION >= (5, 1) else events(own)),
    path("kinds/", events(["sync", "async", "outside", "outside/errors"])),
    path("count/", count),
    path("fail/<how>", fail),
    path("count/sync/", count_in_sync_code),
    path("transaction/sync/<end>", sync_transaction),
    path("transaction/async/<end>", async_transaction),
    path("outside", async_outside),
    path("say/<path:topic>", say),
    path("wrong", wrong),
    path("pool", state),
]
