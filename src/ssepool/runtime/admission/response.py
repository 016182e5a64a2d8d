"""The way in through ASGI: a response that admits its client to the pool and streams to it.

Where the server offers `scope["extensions"]["ssepool.detach"]`, the socket is taken over and the request forgotten;
elsewhere a task for each connection writes through plain `send`. Both are links over the same cursors.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ssepool.core.states import Reason
from ssepool.core.visit import Refused, Visit
from ssepool.errors import PoolClosed, RequestError, SSEPoolError
from ssepool.runtime.admission.admission import (
    ClientGone,
    SlotRequest,
    check_grant,
    compile_late,
    farewell,
    is_final,
    last_words,
    no_slot_reply,
    rate_refusal,
    welcome,
)
from ssepool.runtime.admission.fields import fields_of, head_of
from ssepool.runtime.background import Background
from ssepool.runtime.connections import Connection
from ssepool.runtime.engine import GOODBYE_SECONDS, Engine
from ssepool.runtime.handover import ABORT, ALONE, CUT, DETACH, Handover, Reply
from ssepool.runtime.streams.asgi import AsgiLink, pause
from ssepool.runtime.streams.link import Link
from ssepool.runtime.streams.socket import SocketLink

FIRST_EVENT_SECONDS = 0.5
"""How long a generator's first event holds the response's head back. An error that comes before that has a status of
its own; what takes longer, a model's first word above all, is not to keep an `EventSource` from opening."""

FLUSH_TURNS = 2
"""Turns of the event loop in which it writes what the server has kept: one that ends may cut all connections as soon as
the first of the requests that it has cancelled is done (daphne 4)."""

UNFINISHED = {"type": "http.response.pathsend", "path": ""}
"""A message that middleware passes on as the last one, and which no server takes in the middle of a body: that has the
response end with an error."""


class Replaced(Exception):
    """Middleware has put another response in a stream's place."""


class EventStream(Response):
    """The response of a subscription. Made by `Hub.response` and `Hub.stream`; an ASGI application of its own.

    What is added to `headers`, and each cookie that is set, goes with every answer: the stream, "come back later", 204
    and what is refused, for a page of another site could read none of them without its CORS fields.
    """

    def __init__(self, engine: Engine, visit: Visit, headers: Mapping[str, str] | None = None) -> None:
        """`headers` are header fields beside those of a stream. Raises `ValueError` for one that no answer can have, or
        that is the stream's own."""
        self.visit = visit
        """What the client asks for."""
        self._engine = engine
        self._is_partial = False
        self.status_code = 200
        self.background = None
        self.body = b""
        own = fields_of(headers or {})
        names = {name for name, _ in own}
        self.raw_headers = [*[field for field in visit.dialect.headers if field[0] not in names], *own]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit, outlives = self.visit, False
        background = Background(self.background, self._engine.tasks) if self.background is not None else None
        try:
            if scope["method"] == "HEAD":
                await _respond(send, 200, self.raw_headers, b"")
            elif (goodbye := farewell(self._engine, visit)) is not None:
                await self._turn_away(scope, send, goodbye)
            else:
                self._check_open()
                outlives = await self._admit(scope, receive, send, background)
        finally:
            if visit.source is not None:
                await visit.source.left(visit.generator)
        if background is not None and not outlives:
            await background.run()
        if self._is_partial and _is_in_middleware_that_completes():
            await send(UNFINISHED)

    def _check_open(self) -> None:
        try:
            self._engine.check_open()
        except RequestError as error:
            own = head_of(self.raw_headers, [], self.visit.dialect.headers)
            error.headers = {**(error.headers or {}), **{k.decode("latin-1"): v.decode("latin-1") for k, v in own}}
            raise

    async def _admit(self, scope: Scope, receive: Receive, send: Send, background: Background | None) -> bool:
        """Stream to the client, or turn it away. True if the stream goes on without the request, and has been given
        what is to be done in the background. Raises what a generator raised before its first event."""
        try:
            if (refusal := rate_refusal(self._engine, self.visit) or self.visit.refusal) is not None:
                raise refusal
            check_grant(self._engine, self.visit)
            compile_late(self._engine, self.visit)
            request = SlotRequest(self._engine.pool, self.visit, self._engine.now, self._engine.wakes)
        except SSEPoolError as error:
            await self._refuse(scope, send, error)
            return False
        connection = None
        try:
            with request:
                async with _Writing(self._open_link(scope, receive, send)) as writing:
                    connection = await self._stream(request, writing, scope, send)
                    self._is_partial = isinstance(writing.link, AsgiLink) and writing.link.is_partial
                    await self._settled()
        except Refused as refused:
            failure = refused.error
        else:
            if connection is None or not connection.is_open:
                return False
            self.visit.background = None if background is None else background.start
            return True
        raise failure

    async def _settled(self) -> None:
        """Keep the request, and what the application holds for it, for as long as its generator runs."""
        if self.visit.source is not None:
            await self.visit.source.settled(self.visit.generator)

    async def _stream(self, request: SlotRequest, writing: _Writing, scope: Scope, send: Send) -> Connection | None:
        """Stream to the client once it has its slot; return when the stream is over, or is the hub's own. None if there
        was no stream. Raises `Refused`."""
        connection = None
        engine, visit, link = self._engine, self.visit, writing.link
        # Who has no events of the hub's own cannot be told its place, and is better refused with a status.
        if request.waits and engine.config.pool.announce_queue and visit.dialect.own_events:
            await self._start(link, send)
            writing.begin()
        try:
            await request.granted_slot(link)
            check_grant(engine, visit)
        except SSEPoolError as error:
            if link.started:
                link.part(last_words(engine, error, visit.dialect), whole=is_final(error))
            else:
                await self._refuse(scope, send, error)
                _let_go(link)
        else:
            await self._first_event(request, link)
            connection = engine.connections.bind(request.take(), link, visit)
            if not link.started:
                await self._start(link, send)
            if not link.ended:
                await welcome(engine, connection, link, visit)
            writing.begin()
        await writing.done()
        return connection

    async def _first_event(self, request: SlotRequest, link: Link) -> None:
        """Begin with the visit's generator, if it has one; return when there is reason to send the head."""
        source = self.visit.source
        if source is not None and not link.started:
            await source.begin(self.visit.generator, request.gone, FIRST_EVENT_SECONDS)
            if link.ended:
                raise ClientGone

    def _open_link(self, scope: Scope, receive: Receive, send: Send) -> Link:
        engine, dialect = self._engine, self.visit.dialect
        extensions = scope.get("extensions", {})
        ack_timeout = engine.config.pool.ack_timeout
        if DETACH in extensions and engine.streamer is not None:
            handover: Handover | None = extensions[DETACH](ack_timeout)
            if handover is not None:
                keeps = self.visit.source is not None
                return SocketLink(engine.links, engine.streamer, handover, dialect, keeps_request=keeps)
        if ALONE in extensions:
            extensions[ALONE](ack_timeout)
        return AsgiLink(engine.links, receive, send, extensions.get(ABORT), dialect, cut=extensions.get(CUT))

    async def _start(self, link: Link, send: Send) -> None:
        """Send the response's head through the application's middleware, on either path."""
        if isinstance(link, SocketLink):
            link.own_body()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send(pause())  # some middleware holds the head back until there is a body
        if not await link.wait_started():
            raise Replaced

    async def _refuse(self, scope: Scope, send: Send, error: SSEPoolError) -> None:
        """Answer a client that gets no slot."""
        reply = no_slot_reply(self._engine, error, self.visit.dialect)
        # Who was cut off by the end of this process may be back before it listens no more, and is to come once again.
        await self._turn_away(scope, send, reply, always_cut=isinstance(error, PoolClosed))

    async def _turn_away(self, scope: Scope, send: Send, reply: Reply, *, always_cut: bool = False) -> None:
        status, headers, body = reply
        headers = head_of(self.raw_headers, headers, self.visit.dialect.headers) if status != 200 else self.raw_headers
        # A stream that says when to come back ends as all do whose clients are to, where the server offers that.
        # Another would log a line for each, and at a full pool there may be many.
        cut = scope.get("extensions", {}).get(CUT) if status == 200 else None
        is_partial = always_cut and status == 200 and cut is None
        # An answer without a body ends by itself. HTTP/2 has no such header (RFC 9113, 8.2.2).
        if body and cut is None and scope.get("http_version", "1.1").startswith("1"):
            # Else the server holds the connection of a client that is to come back in seconds, and its descriptor.
            headers = [*headers, (b"connection", b"close")]
        await _respond(send, status, headers, body, is_cut=cut is not None or is_partial)
        self._is_partial = is_partial
        if cut is not None:
            await send(pause())
            cut()


class _Writing:
    """A request's link, and the task that writes for it where that takes one. The request keeps a link that goes
    through `send`: it ends with it. A detached link goes on by itself, unless the request fails."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._writer: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Have the task write, if there is to be one and there is none yet."""
        if isinstance(self.link, AsgiLink) and self._writer is None:
            self._writer = asyncio.create_task(self.link.run())

    async def done(self) -> None:
        """Return when the task has written everything."""
        if self._writer is not None:
            await self._writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # OSError: what some servers' `send` raises when the client has gone.
        has_left = isinstance(error, (ClientGone, OSError))
        if isinstance(error, (Refused, Replaced)) and isinstance(self.link, SocketLink):
            return isinstance(error, Replaced)  # the application answers through it
        if isinstance(error, asyncio.CancelledError) and isinstance(self.link, AsgiLink) and self.link.is_last:
            await self._last_turns(self.link)
        if error is not None:
            self.link.end(Reason.CLIENT_CLOSED if has_left else Reason.ERROR)
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
        if isinstance(self.link, AsgiLink):
            self.link.end(Reason.CLIENT_CLOSED)
        return has_left

    async def _last_turns(self, link: AsgiLink) -> None:
        """The server has cancelled the request. If it is about to end, so that the hub is, say goodbye first."""
        if link.is_told_of_the_end:
            link.close(Reason.SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await (link.run() if self._writer is None or self._writer.done() else self._writer)
        for _ in range(FLUSH_TURNS):
            await asyncio.sleep(0)


def _is_in_middleware_that_completes() -> bool:
    """Whether this runs within Starlette's `BaseHTTPMiddleware`, which completes a response that is left as it is, and
    one that raises, too. It runs what it wraps in a task, whose name is that of the function."""
    task = asyncio.current_task()
    return task is not None and "BaseHTTPMiddleware.__call__" in task.get_name()


def _let_go(link: Link) -> None:
    """End a link whose socket had been taken over, and has got another answer than a stream."""
    if link.started and not link.is_leaving:
        link.conclude(whole=False)


async def _respond(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes, *, is_cut: bool = False
) -> None:
    if body and (b"content-type", b"text/event-stream") not in headers:  # a stream has no length, however short
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, **({"more_body": True} if is_cut else {})})
