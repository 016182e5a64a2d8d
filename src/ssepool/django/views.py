"""Streams as Django's views and responses."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.http.response import HttpResponseBase

from ssepool.core.topics import Subscription
from ssepool.django.process import get_hub
from ssepool.errors import InvalidTopic
from ssepool.runtime.admission.response import EventStream

CARRIED = "ssepool.django"
"""What a request's scope has if it came through our application, which is what can send an `EventResponse`."""

NOT_CARRIED = """\
This server cannot stream events: the request did not come through ssepool.django.get_asgi_application().

Serve the project with ASGI, and write in its asgi.py: application = ssepool.django.get_asgi_application()
`manage.py runserver` does so with "daphne" in front of INSTALLED_APPS, and ASGI_APPLICATION set.
Under WSGI streams take `ssepool serve --authorize-url` beside the project.
"""
"""The answer to a request for a stream that cannot have one here."""

Topics = str | Iterable[str]
"""One topic, or several."""


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


class EventResponse(StreamingHttpResponse):
    """A stream of `get_hub().response(...)` or `get_hub().stream(...)` as the response of a view, sync or async.

    Middleware sees its head. The body comes when Django is done with the request, its database connection and its
    thread, and does not pass middleware: on a socket that was handed over, where the server gives that away.
    """

    def __init__(self, stream: EventStream) -> None:
        """Nothing is admitted yet: that the pool is full turns out when Django has sent the head here."""
        super().__init__(_nothing())
        self.stream = stream
        """What answers the request instead of Django."""
        self.request: HttpRequest | None = None
        """What it answers; set once Django has the response."""
        for name, value in stream.raw_headers:
            if name == b"set-cookie":
                self.cookies.load(value.decode("latin-1"))  # there may be several, of which a field would keep the last
            else:
                self[name.decode("latin-1")] = value.decode("latin-1")
        self["Content-Encoding"] = "identity"  # middleware that compresses leaves what has one alone


def events(
    topics: Topics | Callable[..., Any], *, patterns: Iterable[str] = (), private: bool = True
) -> Callable[..., Awaitable[HttpResponseBase]]:
    """A view that streams topics to whoever it is: `path("events/", events(topics=...))`.

    `topics` are a list, or a function, sync or async, of the request and what the URL captured. It returns topics, or
    None for who may not have any (401 for who is not logged in, else 403), or raises `PermissionDenied` or `Http404`,
    or returns a response of its own, such as a redirect. The user is `request.user`, by its primary key. `patterns`
    are streamed as well, to everybody, and `private` says whether private events are. Raises `InvalidTopic` for names
    that are not allowed.
    """
    fixed = tuple(patterns)
    if not callable(topics):
        topics = _names(topics)
        Subscription.of(topics, fixed, private)

    async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        wanted = await _call(topics, request, *args, **kwargs) if callable(topics) else topics
        if isinstance(wanted, HttpResponseBase):
            return wanted
        user = await sync_to_async(_user_of)(request)
        if wanted is None:
            if user is None:
                return HttpResponse(status=HTTPStatus.UNAUTHORIZED)
            raise PermissionDenied
        if not getattr(request, "scope", {}).get(CARRIED):
            return HttpResponse(NOT_CARRIED, status=HTTPStatus.NOT_IMPLEMENTED, content_type="text/plain")
        try:
            stream = get_hub().response(request, topics=_names(wanted), patterns=fixed, user=user, private=private)
        except InvalidTopic as error:  # of what the URL captured, most likely
            return HttpResponse(str(error), status=HTTPStatus.BAD_REQUEST, content_type="text/plain")
        return EventResponse(stream)

    return view


async def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if iscoroutinefunction(function):
        return await function(*args, **kwargs)
    answer = await sync_to_async(function)(*args, **kwargs)
    return await answer if inspect.isawaitable(answer) else answer


def _names(topics: Topics) -> tuple[str, ...]:
    return (topics,) if isinstance(topics, str) else tuple(topics)


def _user_of(request: HttpRequest) -> str | None:
    user = getattr(request, "user", None)
    return str(user.pk) if user is not None and user.is_authenticated else None
