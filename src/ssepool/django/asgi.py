"""The project as an ASGI application that can send streams, and knows the hub's life."""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import response_for_exception
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from starlette.routing import Mount, Router
from starlette.types import Message, Receive, Scope, Send

from ssepool.django.process import Process, process
from ssepool.django.views import CARRIED, EventResponse

STATUS_OF_STREAMS = 200
"""The status of a response that is a stream. Middleware may set another one, and then its answer is sent as it is."""

ABOUT_THE_BODY = (b"content-length", b"content-encoding", b"content-type")
"""Fields that tell of a response's body, in which Django has no say here."""


def get_asgi_application(mount: str | None = None) -> Application:
    """The project's ASGI application, in the place of Django's own function of this name.

    With `mount`, a path such as `/sse`, the hub's own endpoints are there as well (`Hub.app`: `/sse/events`, the
    browser client), outside of Django's middleware: what they let pass is said by `SSEPOOL`. Raises `ConfigError`.
    """
    django.setup(set_prefix=False)
    return Application(process(), mount)


class Application:
    """The ASGI application: lifespan for the hub, `mount` for its endpoints, and all else for Django."""

    def __init__(self, process: Process, mount: str | None) -> None:
        """Made by `get_asgi_application`."""
        self._process = process
        routes = [] if mount is None else [Mount(mount, process.hub.app)]
        self._router = Router(routes, redirect_slashes=False, default=Handler(), lifespan=process.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._process.open()
        await self._router(scope, receive, send)


class Handler(ASGIHandler):
    """Django's handler, but that a stream begins when Django is done with its request.

    So a stream holds neither the thread in which Django has run the request's sync parts nor its database connection,
    and waiting for a slot does not either.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        exchange = Exchange(receive, send)
        await super().__call__({**scope, CARRIED: True}, exchange.receive, exchange)
        if exchange.response is not None:
            try:
                await exchange.response.stream(scope, exchange.receive, exchange.send_merged)
            except Exception as error:
                if exchange.is_answered:
                    raise
                # As for a view that raises: 403 for `PermissionDenied`, the project's own pages, its signals.
                answer = await sync_to_async(response_for_exception, thread_sensitive=False)(
                    exchange.response.request, error
                )
                await super().send_response(answer, exchange.send_merged)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """See Django. A stream keeps its request, for what its generator raises before there is an answer."""
        response: HttpResponseBase = await super().get_response_async(request)
        if isinstance(response, EventResponse):
            response.request = request
        return response

    async def send_response(self, response: Any, send: Any) -> None:
        """Send a response, or keep it if it is a stream."""
        if isinstance(response, EventResponse) and response.status_code == STATUS_OF_STREAMS:
            send.response = response
            await super().send_response(response, send.note)
            # A connection that Django keeps (CONN_MAX_AGE) would outlive its thread until garbage is collected.
            await sync_to_async(connections.close_all)()
        else:
            await super().send_response(response, send)


class Exchange:
    """A request's `receive` and `send`, and the stream that is to be its response."""

    def __init__(self, receive: Receive, send: Send) -> None:
        """Those of the server."""
        self._receive = receive
        self._send = send
        self._last: Message | None = None
        self.response: EventResponse | None = None
        """What is sent when Django is done."""
        self.is_answered = False
        """Whether the stream's head has been sent, or that of another answer in its place."""
        self._headers: list[tuple[bytes, bytes]] = []
        """The head that the response has from Django and its middleware."""

    async def receive(self) -> Message:
        """ASGI's `receive`. That the client has left is said again to the stream if Django was told it."""
        if self._last is None:
            message = await self._receive()
            if message["type"] != "http.disconnect":
                return message
            self._last = message
        return self._last

    async def __call__(self, message: Message) -> None:
        """ASGI's `send`."""
        await self._send(message)

    async def note(self, message: Message) -> None:
        """Take what Django would send of the stream."""
        if message["type"] == "http.response.start":
            self._headers = [(name.lower(), value) for name, value in message["headers"]]

    async def send_merged(self, message: Message) -> None:
        """The stream's `send`: its own fields, and those that middleware has added."""
        if message["type"] == "http.response.start":
            self.is_answered = True
            own: list[tuple[bytes, bytes]] = list(message["headers"])
            known = {name.lower() for name, _ in own} | {*ABOUT_THE_BODY}
            message = {**message, "headers": [*own, *(field for field in self._headers if field[0] not in known)]}
        await self._send(message)
