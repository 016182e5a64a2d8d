"""The HTTP protocol class for uvicorn that lets streams go: `uvicorn app:app --http ssepool.uvicorn:Protocol`.

It is uvicorn's own httptools protocol, with these additions: ASGI extensions that hand a request's socket over, keep
a connection for one response, and drop or cut it; a deadline and a bound for a request's head; a bound for
connections that are no streams; the address that the last trusted proxy has seen; the reason for which a connection
was lost; and answers without a task, where they can be given at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ssepool.config import KiB
from ssepool.core.callers import Place, Stage
from ssepool.runtime import wire
from ssepool.runtime.entrance import Entrance, entrance_of
from ssepool.runtime.handover import ABORT, ALONE, AVAILABLE, CUT, DETACH, Reply, Sink, is_unix, set_bounds
from ssepool.runtime.proxies import Peer

logger = logging.getLogger("ssepool")

HEAD_SECONDS = 10.0
"""Seconds that a client may take to send a request's head; `Protocol.head_timeout` changes it."""

MAX_HEAD_BYTES = 64 * KiB
"""Bytes of a request's head, beyond what has come in one read, until its client is refused."""

MAX_AROUND_BODY_BYTES = 8 * KiB
"""Bytes of a chunked body that are no part of it: trailers, and what stands between two parts (RFC 9112, 7.1)."""

MAX_PIPELINED_REQUESTS = 100
"""Requests of a connection that wait for the answers to those before them."""

Answer = Callable[[bytes, list[tuple[bytes, bytes]], bytes, Peer | None], Reply | None]
"""Gives the answer to a request, from its target, headers, body and peer; or None, and then has done nothing."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
"""ASGI's `receive`."""

Send = Callable[[dict[str, Any]], Awaitable[None]]
"""ASGI's `send`."""


class Excess(Exception):
    """A request has more of something than is taken. Raised for the parser, which stops at once."""


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol; offers `scope["extensions"]["ssepool.detach"]` where a socket can be detached."""

    head_timeout = HEAD_SECONDS
    """Seconds that a client may take to send a request's head."""
    answer: Answer | None = None
    """What is asked before the application is, about requests with a body that arrive whole."""
    url = b""  # which uvicorn sets with the first byte that is not an empty line
    """The target of the request that is read."""
    early = b""
    """What has been read of the connection before it became this protocol's."""
    place: Place | None = None
    """The connection's place among the callers, once it is connected."""
    entrance: Entrance | None = None
    """What all connections of the server pass, where the server says that."""
    alone = False
    """Whether a stream has the connection for itself: what its client still sends is dropped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entrance = self.entrance or entrance_of(self.config)
        self._app = self._entrance.app
        self.app = self._serve
        self._in_head = True
        """Whether a request's head is awaited, or has begun."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_size = 0
        self._in_body = False
        """Whether a request's body is awaited, or has begun."""
        self._trailer_bytes = 0
        self._bytes_without_part = 0
        """Bytes that came in its body since the last part of it."""
        self._may_answer = False
        """Whether the application need not be asked about the next request of this packet."""
        self._held: list[bytes] | None = None
        """The body, so far, of a request that the server has not been told of yet."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if self.place is None:
            self.place = self._entrance.callers.enter(self._entrance.proxies.source(self.client), self._give_way)
        elif not self.place.is_taken:
            return transport.abort()
        self.place.give_way = self._give_way
        if self.client is None and not is_unix(transport.get_extra_info("socket")):
            return transport.abort()  # the peer is gone, and must not be taken for a proxy without an address
        self._await_head()
        if self.early:
            self.data_received(self.early)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.alone:
            return
        # Of a packet's requests only the first: a packet is as long as a client likes, and tasks take turns.
        self._may_answer = self.answer is not None and self._is_idle
        timer = self._head_timer
        self._bytes_without_part += len(data)
        super().data_received(data)
        # The parser calls nothing while it is inside one field, however long that is.
        if self._in_body and self._bytes_without_part > MAX_AROUND_BODY_BYTES:
            self._refuse(wire.TOO_LARGE)
        if self._held is not None:
            self._go_on()
        if self._head_timer is None:
            # Empty lines before a request begin no message for the parser, but stop the server's keep-alive timer.
            if self._in_head or (self._is_idle and self.timeout_keep_alive_task is None):
                self._await_head()
        elif self._head_timer is timer:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD_BYTES:
                self._refuse(wire.TOO_LONG if len(self.url) > MAX_HEAD_BYTES // 2 else wire.TOO_LARGE)
        if self.place is not None and self.place.stage is not (stage := self._stage):
            self.place.move(stage)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_head_timer()
        self.leave_callers()
        if self.cycle is not None and isinstance(exc, OSError):
            self.cycle.scope["ssepool.errno"] = exc.errno or 0  # type: ignore[typeddict-unknown-key]
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Another protocol takes the connection, and asyncio tells this one nothing of it any more."""
        self.leave_callers()
        self._stop_head_timer()
        super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        """See uvicorn: an answer has been given."""
        super().on_response_complete()
        if self.place is not None:
            self.place.is_fresh = True
            self.place.move(self._stage)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._in_body = True, False
        self._unset_keepalive_if_required()  # which the answer to a request before it in this packet has set

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer. Trailers are dropped: a proxy's word on the client, or what a route has
        looked at already, must not be overridden by them (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)
        else:
            self._trailer_bytes += len(name) + len(value) + 4
            if self._trailer_bytes > MAX_AROUND_BODY_BYTES:
                raise Excess(f"more than {MAX_AROUND_BODY_BYTES} bytes of trailers")

    def on_headers_complete(self) -> None:
        """The head is there: it is decided who answers."""
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise Excess(f"more than {MAX_PIPELINED_REQUESTS} requests behind one that has no answer")
        self._in_head, self._in_body = False, True
        self._trailer_bytes = self._bytes_without_part = 0
        self._stop_head_timer()
        if not self.url.startswith(b"/"):
            wire.take_authority(self.url, self.headers)
        if self._may_answer and self._is_plain():
            self._held = []
        else:
            super().on_headers_complete()
        self._may_answer = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._bytes_without_part = 0
        if self._held is not None:
            self._held.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there as a whole."""
        self._in_body = False
        if self._held is not None:
            if self._answered(b"".join(self._held)):
                self._held = None
                return
            self._go_on()
        super().on_message_complete()

    # Answers without a task.

    @property
    def _is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _is_plain(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.config.access_log
            and self.limit_concurrency is None
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _answered(self, body: bytes) -> bool:
        """Whether the request that is held has its answer; if not, nothing has been done."""
        assert self.answer is not None
        try:
            reply = self.answer(self.url, self.headers, body, self.client)
        except Exception:  # nobody knows what it has done, so the application is not asked to do it again
            logger.exception("a request could not be answered; its client is sent away")
            self.transport.abort()
            return True
        if reply is None:
            return False
        status, headers, content = reply
        length = (b"content-length", b"%d" % len(content))
        head = wire.render_head(status, [*self.server_state.default_headers, length, *headers], keep_alive=True)
        self.transport.write(head + content)
        super().on_response_complete()
        if self.place is not None:
            self.place.is_fresh = True
        return True

    def _go_on(self) -> None:
        """Let the server do with the request that is held what it does with all others."""
        assert self._held is not None
        body, self._held = self._held, None
        super().on_headers_complete()
        for part in body:
            super().on_body(part)

    # Room for others.

    @property
    def _stage(self) -> Stage:
        if self._in_body:
            return Stage.BODY
        if self.cycle is not None and not self.cycle.response_complete:
            return Stage.ANSWER
        return Stage.HEAD if self._in_head or self._head_timer is not None else Stage.IDLE

    def leave_callers(self) -> None:
        """The connection is a stream, or is no more."""
        if self.place is not None:
            self.place.leave()

    def _give_way(self) -> None:
        """Another connection needs the descriptor."""
        assert self.place is not None
        if self.transport.get_write_buffer_size() or self.place.stage is Stage.ANSWER:
            self.transport.abort()  # what is written already need not go out, and what was asked may have been done
        elif self.place.stage is Stage.IDLE:
            self.transport.close()
        else:
            self._refuse(wire.TOO_MANY)

    # The head's deadline and bound.

    def _await_head(self) -> None:
        self._head_size = 0
        self._head_timer = self.loop.call_later(self.head_timeout, self._head_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        self._refuse(wire.TOO_LATE)

    def _refuse(self, answer: bytes) -> None:
        self._stop_head_timer()
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()  # an answer in the middle of another would be read as a part of it
            return
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    # What the application meets.

    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        # Not `self.cycle`, which is a later request's if more than one came in one packet.
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        exchange = Exchange(self, cycle, scope, receive, send)
        extensions = scope.setdefault("extensions", {})
        extensions |= {ALONE: exchange.alone, ABORT: exchange.abort, CUT: exchange.cut}
        if AVAILABLE and not self.config.is_ssl:
            extensions[DETACH] = exchange.detach
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            if exchange.sink is not None:  # its socket was taken, and it has not been answered as a whole
                exchange.sink.complete()


class Exchange:
    """One request and its response, before and after its socket is detached. Also the handover of that socket."""

    fd: int
    """The descriptor of the detached socket."""
    sink: Sink | None = None
    """Where the rest of the response goes."""
    _is_open = False
    """Whether the body of a response to HTTP/1.0 ends with the connection."""

    def __init__(
        self, protocol: Protocol, cycle: RequestResponseCycle, scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._scope = scope
        self._receive = receive
        self._send = send
        self._detached = False
        self._requested = False
        """Whether the application has had the whole request."""

    def detach(self, ack_timeout: float) -> Exchange | None:
        """Take the socket away from the server; None where that cannot be done now, and plain `send` goes on.
        `ack_timeout`, in seconds, is when the kernel is to give the peer up.

        Cannot be done when other requests wait behind this one, when a body is still to come or bytes are still to be
        written, or when no file descriptor is left for the duplicate.
        """
        protocol, cycle = self._protocol, self._cycle
        transport = protocol.transport
        sock = transport.get_extra_info("socket")
        if (
            sock is None
            or transport.is_closing()
            or transport.get_write_buffer_size()
            or protocol.pipeline
            or protocol.cycle is not cycle
            or cycle.response_started
            or cycle.more_body
        ):
            return None
        try:
            self.fd = os.dup(sock.fileno())
        except OSError as error:
            logger.warning("a stream stays with the server, which costs more memory: %s", error)
            return None
        os.set_blocking(self.fd, False)
        set_bounds(self.fd, ack_timeout)
        self._detached = True
        # The server must neither complain that nothing was answered nor tell the application that the client left.
        protocol.cycle = None  # type: ignore[assignment]
        cycle.disconnected = True
        cycle.message_event.clear()
        protocol.server_state.total_requests += 1
        protocol.leave_callers()
        transport.abort()
        return self

    def alone(self, ack_timeout: float) -> None:
        """Keep the connection for this response, and end it with the response.

        The server stops reading when a request comes behind one that is under way, and would not see its client leave.
        `ack_timeout`, in seconds, is when the kernel is to give the peer up.
        """
        protocol, cycle = self._protocol, self._cycle
        sock = protocol.transport.get_extra_info("socket")
        if sock is not None and not protocol.transport.is_closing():
            set_bounds(sock.fileno(), ack_timeout)
        protocol.alone = True
        protocol.leave_callers()
        protocol.pipeline.clear()
        protocol.cycle = cycle
        if not protocol.transport.is_closing():
            protocol.flow.resume_reading()

    def abort(self) -> None:
        """Drop the connection with all that is still to be written."""
        self._cycle.disconnected = True  # else the server complains that the response is not complete
        self._protocol.transport.abort()

    def cut(self) -> None:
        """Close the connection once what is written is out, without the end of the response."""
        self._cycle.disconnected = True  # as for `abort`
        self._protocol.transport.close()

    def gone(self) -> None:
        """The client of a detached socket has left."""
        self._cycle.message_event.set()

    async def receive(self) -> dict[str, Any]:
        """ASGI's `receive`."""
        if self._detached:
            if not self._requested and not self._cycle.message_event.is_set():
                self._requested = True
                return {"type": "http.request", "body": bytes(self._cycle.body), "more_body": False}
            await self._cycle.message_event.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._requested = self._requested or not message.get("more_body", False)
        if message["type"] == "http.disconnect" and "ssepool.errno" in self._cycle.scope:
            message = {**message, "ssepool.errno": self._cycle.scope["ssepool.errno"]}  # type: ignore[typeddict-item]
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI's `send`."""
        if not self._detached:
            if self._scope["http_version"] == "1.0":
                self._is_open = wire.unchunked(self._cycle, message, self._is_open)
            await self._send(message)
            if self._protocol.alone:  # not before: the head would announce it, see `render_head`
                self._cycle.keep_alive = False
        elif self.sink is not None:
            if message["type"] == "http.response.start":
                self._start(self.sink, message["status"], message.get("headers", ()))
            elif message["type"] == "http.response.body":
                if message.get("body"):
                    self.sink.body(message["body"])
                if not message.get("more_body", False):
                    self.sink.complete()

    def _start(self, sink: Sink, status: int, headers: Any) -> None:
        """Pass the response's head on as the server would write it."""
        wire.log_access(self._cycle, self._scope, status)
        chunked = self._scope["http_version"] == "1.1" and not wire.has_length(status, headers)
        sink.head(wire.render_head(status, [*self._cycle.default_headers, *headers], chunked=chunked), chunked=chunked)


def protocol(head_timeout: float, answer: Answer | None = None, entrance: Entrance | None = None) -> type[Protocol]:
    """The protocol class with another deadline for a request's head, in seconds, an `Answer`, and what all
    connections pass."""
    given = None if answer is None else staticmethod(answer)
    return type("Protocol", (Protocol,), {"head_timeout": head_timeout, "answer": given, "entrance": entrance})
