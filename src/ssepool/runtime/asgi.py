"""The way in through ASGI: a response that admits its client to the pool and streams to it.

Where the server offers `scope["extensions"]["ssepool.detach"]`, the socket is taken over and the request forgotten;
elsewhere a task for each connection writes through plain `send`. Both are links over the same cursors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ssepool.core.states import Reason
from ssepool.errors import SSEPoolError
from ssepool.runtime import frames
from ssepool.runtime.admission import Application, ClientGone, refusal, word
from ssepool.runtime.link import Link
from ssepool.runtime.streamer import Handover, SocketLink, reason_of
from ssepool.runtime.welcome import connect, welcome

if TYPE_CHECKING:
    from ssepool.core.pool import Pool
    from ssepool.runtime.delivery import Delivery
    from ssepool.runtime.hub import Hub
    from ssepool.runtime.visit import Visit

DETACH = "ssepool.detach"
"""The extension under `scope["extensions"]` by which a server hands its socket over."""

ALONE = "ssepool.alone"
"""The extension by which a server keeps a connection for one response, and reads on to see its client leave."""

ABORT = "ssepool.abort"
"""The extension by which a server drops a connection with all that is still to be written."""


class AsgiLink(Link):
    """A link over ASGI's `receive` and `send`."""

    __slots__ = ("_abort", "_complete", "_receiver", "_send", "_wake", "_writer")

    weight = 1

    def __init__(
        self, pool: Pool, delivery: Delivery, receive: Receive, send: Send, abort: Callable[[], None] | None
    ) -> None:
        super().__init__(pool, delivery)
        self._send = send
        self._abort = abort
        self._complete = False
        self._writer: asyncio.Task[Any] | None = None
        """The task that is inside `send`, where it may have to be cancelled."""
        self._wake: asyncio.Future[None] | None = None
        self._receiver = asyncio.get_running_loop().create_task(self._watch(receive))

    def flush(self) -> None:
        if self.feed is not None:
            self.feed.behind[self] = None
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def hang_up(self) -> None:
        self._receiver.cancel()
        if self._writer is not None:
            self._writer.cancel()
        if self._abort is not None and self.started and not self._complete:
            # A server that only closes waits for the client to take what is buffered, also if it takes nothing.
            self._abort()
        self.flush()

    async def run(self) -> None:
        """Write until the stream ends. The response has been started."""
        while not self.ended:
            item = self.take()
            if item is not None:
                data = bytes(item[0])
                await self._write({"type": "http.response.body", "body": data, "more_body": True})
                if self.slot is not None:
                    self.slot.bytes += len(data)
                if self.replay is not None:  # a page at a time
                    self.delivery.again(self)
                    await self._woken()
            elif self.ending:
                await self._write({"type": "http.response.body", "body": b"", "more_body": False})
                self._complete = True
                self.end(Reason.COMPLETED)
            else:
                await self._woken()

    async def _woken(self) -> None:
        """Return with the next flush."""
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    async def _write(self, message: Message) -> None:
        self._writer = asyncio.current_task()
        self.stall()
        try:
            await self._send(message)
        except OSError as error:
            self._writer = None
            self.end(reason_of(error.errno or 0))
        except asyncio.CancelledError:
            # `hang_up` gets the task out of a `send` that blocks; any other cancellation is the server's.
            if not self.ended or asyncio.current_task().uncancel() > 0:  # type: ignore[union-attr]
                raise
        finally:
            self._writer = None
            self.go_on()

    async def _watch(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        self.end(reason_of(message.get("ssepool.errno", 0)))


class EventStream(Response):
    """The response of a subscription. Made by `Hub.response` and `Hub.stream`; an ASGI application of its own."""

    def __init__(self, hub: Hub, visit: Visit) -> None:
        self.hub = hub
        self.visit = visit
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = list(frames.STREAM_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub, visit = self.hub, self.visit
        try:
            if scope["method"] == "HEAD":
                await _respond(send, 200, self.raw_headers, b"")
            elif visit.has_everything or hub.bans.cover(visit, hub.now()):
                # 204 ends an EventSource for good (WHATWG HTML, 9.2.3).
                await _respond(send, 204, [], b"")
            else:
                await self._admit(scope, receive, send)
        finally:
            if visit.production is not None:
                await visit.production.left(visit.spare)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub, visit = self.hub, self.visit
        hub.check_open()
        try:
            application = Application(hub, visit)
        except SSEPoolError as error:
            await self._turn_away(scope, send, error)
            return
        link: Link | None = None
        runner: asyncio.Task[None] | None = None
        try:
            link = self._open_link(scope, receive, send)
            if application.waits and hub.config.pool.announce_queue:
                await self._start(link, send)
                if isinstance(link, AsgiLink):
                    runner = asyncio.create_task(link.run())
            try:
                await application.slot(link)
            except SSEPoolError as error:
                if link.started:
                    link.part(frames.closed(word(error), retry=hub.delivery.retry()))
                else:
                    await self._turn_away(scope, send, error)
                if runner is not None:
                    await runner
                return
            connection = connect(hub, application.take(), link, visit)
            if not link.started:
                await self._start(link, send)
            if not link.ended:
                await welcome(hub, connection, link, visit)
            if isinstance(link, AsgiLink):
                runner = runner or asyncio.create_task(link.run())
                await runner
        except (ClientGone, OSError):
            return  # OSError: what some servers' `send` raises when the client has gone
        except BaseException:
            if link is not None:
                link.end(Reason.ERROR)
            raise
        finally:
            application.withdraw()
            if runner is not None and not runner.done():
                runner.cancel()
            if isinstance(link, AsgiLink):
                link.end(Reason.CLIENT_CLOSED)

    def _open_link(self, scope: Scope, receive: Receive, send: Send) -> Link:
        hub = self.hub
        extensions = scope.get("extensions", {})
        detach = extensions.get(DETACH)
        if detach is not None and hub.streamer is not None:
            handover: Handover | None = detach()
            if handover is not None:
                return SocketLink(hub.pool, hub.delivery, hub.streamer, handover)
        if ALONE in extensions:
            extensions[ALONE]()
        return AsgiLink(hub.pool, hub.delivery, receive, send, extensions.get(ABORT))

    async def _start(self, link: Link, send: Send) -> None:
        """Send the response's head through the application's middleware, on either path."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        # Some middleware holds the head back until there is a body.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await link.wait_started()

    async def _turn_away(self, scope: Scope, send: Send, error: SSEPoolError) -> None:
        status, headers, body = refusal(self.hub, error)
        if scope.get("http_version", "1.1").startswith("1"):  # HTTP/2 has no such header (RFC 9113, 8.2.2)
            # Else the server holds the connection of a client that is to come back in seconds, and its descriptor.
            headers = [*headers, (b"connection", b"close")]
        await _respond(send, status, headers, body)


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if body and (b"content-type", b"text/event-stream") not in headers:  # a stream has no length, however short
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
