"""The HTTP protocol class for uvicorn that lets streams go: `uvicorn app:app --http ssepool.uvicorn:Protocol`.

It is uvicorn's own httptools protocol, with these additions: ASGI extensions that hand a request's socket over, keep
a connection for one response, and drop or cut it; a deadline and a bound for a request's head; a bound for
connections that are no streams; the address that the last trusted proxy has seen; the reason for which a connection
was lost; and answers without a task, where they can be given at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ssepool.config import KiB
from ssepool.core.callers import Place, Stage
from ssepool.runtime import wire
from ssepool.runtime.entrance import Entrance, entrance_of
from ssepool.runtime.exchange import Exchange, Receive, Send, Served
from ssepool.runtime.handover import ABORT, ALONE, AVAILABLE, CUT, DETACH, Reply, is_unix
from ssepool.runtime.head import fault_of, take_authority
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

LINGER_SECONDS = 1.0
"""Seconds that a client which still sends its body has to read the answer to it."""

MAX_LINGER_BYTES = 256 * KiB
"""Bytes of such a body that are read and dropped meanwhile."""

Answer = Callable[[bytes, list[tuple[bytes, bytes]], bytes, Peer | None], Reply | None]
"""Gives the answer to a request, from its target, headers, body and peer; or None, and then has done nothing."""


class Excess(Exception):
    """A request is not taken, or has more of something than is taken. Raised for the parser, which stops at once."""


class Protocol(Served):
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
    fault: bytes | None = None
    """The answer to a head that is not taken."""
    declines = False
    """Whether the request that is read asks for another protocol, and is to be read as though it did not."""

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
        self._patience = math.inf
        """Bytes that are dropped until the connection is closed."""
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
            self._patience -= len(data)
            return self.transport.close() if self._patience < 0 else None
        # Of a packet's requests only the first: a packet is as long as a client likes, and tasks take turns.
        self._may_answer = self.answer is not None and self._is_idle
        timer = self._head_timer
        self._bytes_without_part += len(data)
        self._parse(data)
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

    def _parse(self, data: bytes) -> None:
        """What uvicorn does with data, but for what is wrong with them, and who asks for another protocol than HTTP/1.1
        gets an answer in this one (RFC 9110, 7.8): the parser would take the request's body for the other's."""
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self.declines:
                    return self.handle_websocket_upgrade()
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as error:
                self.logger.warning("Invalid HTTP request received.")
                return self._refuse(
                    self.fault or (wire.WRONG_VERSION if "HTTP version" in str(error) else wire.INVALID)
                )

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

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
        self._in_head, self._in_body, self.declines = True, False, False
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
        if not self.url.startswith(b"/"):
            take_authority(self.url, self.headers)
        self.fault = fault_of(self.parser.get_method(), self.parser.get_http_version(), self.headers)
        if self.fault is not None:
            raise Excess("the head is not taken")
        self.declines = self.parser.should_upgrade() and not self._should_upgrade()
        if self.declines:
            return
        self._in_head, self._in_body = False, True
        self._trailer_bytes = self._bytes_without_part = 0
        self._stop_head_timer()
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
        if self.declines:
            return
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
        if not self._is_idle and (self._in_head or self.cycle.response_started):
            self.transport.abort()  # it would be read as the answer to the request before, or as a part of that
            return
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def linger(self) -> None:
        """Say that nothing follows, and close when the client has had the time to read its answer: to close a socket
        while its client sends throws away what is on the way to it (RFC 9112, 9.6)."""
        self.alone, self._in_body, self._patience = True, False, MAX_LINGER_BYTES
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.flow.resume_reading()
            self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.transport.close)

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


def protocol(head_timeout: float, answer: Answer | None = None, entrance: Entrance | None = None) -> type[Protocol]:
    """The protocol class with another deadline for a request's head, in seconds, an `Answer`, and what all
    connections pass."""
    given = None if answer is None else staticmethod(answer)
    return type("Protocol", (Protocol,), {"head_timeout": head_timeout, "answer": given, "entrance": entrance})
