"""The HTTP protocol class for uvicorn that lets streams go: `uvicorn app:app --http ssepool.uvicorn:Protocol`.

It is uvicorn's own httptools protocol, with these additions: ASGI extensions that hand a request's socket over, keep
a connection for one response and drop a connection; a deadline and a bound for a request's head; and the reason for
which a connection was lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from ssepool.config import KiB
from ssepool.runtime.asgi import ABORT, ALONE, DETACH
from ssepool.runtime.streamer import AVAILABLE, Sink

logger = logging.getLogger("ssepool")

HEAD_TIMEOUT = 10.0
"""Seconds that a client may take to send a request's head; `Protocol.head_timeout` changes it."""

MOST_HEAD = 64 * KiB
"""Bytes of a request's head, beyond what has come in one read, until its client is refused."""


def _refusal(status: int, text: str) -> bytes:
    fields = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[status] + (fields + text).encode()


TOO_LATE = _refusal(408, "Request Timeout")
TOO_LONG = _refusal(414, "URI Too Long")
TOO_LARGE = _refusal(431, "Request Header Fields Too Large")


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol; offers `scope["extensions"]["ssepool.detach"]` where a socket can be detached."""

    head_timeout = HEAD_TIMEOUT
    url = b""  # which uvicorn sets with the first byte that is not an empty line
    early = b""
    """What has been read of the connection before it became this protocol's."""
    alone = False
    """Whether a stream has the connection for itself: what its client still sends is dropped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._app = self.app
        self.app = self._serve
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_size = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        if self.early:
            self.data_received(self.early)

    def data_received(self, data: bytes) -> None:
        if self.alone:
            return
        if self._head_timer is None and self.cycle is not None and self.cycle.response_complete:
            # Empty lines before a request begin no message for the parser, but stop the server's keep-alive timer.
            self._await_head()
        before = self._head_timer
        super().data_received(data)
        if before is not None and before is self._head_timer:
            self._head_size += len(data)
            if self._head_size > MOST_HEAD:
                self._refuse(TOO_LONG if len(self.url) > MOST_HEAD // 2 else TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self.cycle is not None and isinstance(exc, OSError):
            self.cycle.scope["ssepool.errno"] = exc.errno or 0  # type: ignore[typeddict-unknown-key]
        super().connection_lost(exc)

    # What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_size = 0
        self._head_timer = self.loop.call_later(self.head_timeout, self._head_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        self._refuse(TOO_LATE)

    def _refuse(self, answer: bytes) -> None:
        self._stop_head_timer()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    # What the application meets.

    async def _serve(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        # Not `self.cycle`, which is a later request's if more than one came in one packet.
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        exchange = Exchange(self, cycle, scope, receive, send)
        extensions = scope.setdefault("extensions", {})
        extensions[ALONE] = exchange.alone
        extensions[ABORT] = exchange.abort
        if AVAILABLE and not self.config.is_ssl:
            extensions[DETACH] = exchange.detach
        await self._app(scope, exchange.receive, exchange.send)


class Exchange:
    """One request and its response, before and after its socket is detached. Also the handover of that socket."""

    fd: int
    sink: Sink | None = None

    def __init__(
        self,
        protocol: Protocol,
        cycle: RequestResponseCycle,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._scope = scope
        self._receive = receive
        self._send = send
        self._detached = False
        self._requested = False
        """Whether the application has had the whole request."""

    def detach(self) -> Exchange | None:
        """Take the socket away from the server; None where that cannot be done now, and plain `send` goes on.

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
        self._detached = True
        # The server must neither complain that nothing was answered nor tell the application that the client left.
        protocol.cycle = None  # type: ignore[assignment]
        cycle.disconnected = True
        cycle.message_event.clear()
        protocol.server_state.total_requests += 1
        transport.abort()
        return self

    def alone(self) -> None:
        """Keep the connection for this response, and end it with the response.

        The server stops reading when a request comes behind one that is under way, and would not see its client leave.
        """
        protocol, cycle = self._protocol, self._cycle
        protocol.alone = True
        protocol.pipeline.clear()
        protocol.cycle = cycle
        cycle.keep_alive = False
        if not protocol.transport.is_closing():
            protocol.flow.resume_reading()

    def abort(self) -> None:
        """Drop the connection with all that is still to be written."""
        self._cycle.disconnected = True  # else the server complains that the response is not complete
        self._protocol.transport.abort()

    def gone(self) -> None:
        """The client of a detached socket has left."""
        self._cycle.message_event.set()

    async def receive(self) -> dict[str, Any]:
        if self._detached:
            if not self._requested:
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
        if not self._detached:
            await self._send(message)
        elif self.sink is not None:
            if message["type"] == "http.response.start":
                self.sink.head(self._head(message["status"], message.get("headers", ())))
            elif message["type"] == "http.response.body":
                if message.get("body"):
                    self.sink.body(message["body"])
                if not message.get("more_body", False):
                    self.sink.complete()

    def _head(self, status: int, headers: Any) -> bytes:
        """The response's head as the server would write it, which also logs the access."""
        if self._cycle.access_log:
            self._cycle.access_logger.info(
                '%s - "%s %s HTTP/%s" %d',
                get_client_addr(self._scope),  # type: ignore[arg-type]
                self._scope["method"],
                get_path_with_query_string(self._scope),  # type: ignore[arg-type]
                self._scope["http_version"],
                status,
            )
        return render_head(status, [*self._cycle.default_headers, *headers])


def render_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A response's head in its wire format. The body ends with the connection (RFC 9112, 6.3)."""
    lines = [STATUS_LINE[status]]
    kept = [(name, value) for name, value in headers if name.lower() != b"connection"]
    for name, value in (*kept, (b"connection", b"close")):
        if b"\n" in value or b"\r" in value or b"\n" in name or b"\r" in name:
            raise RuntimeError(f"header {name!r} has a line break in its value {value!r}")
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def protocol(head_timeout: float) -> type[Protocol]:
    """The protocol class with another deadline for a request's head, in seconds."""
    return type("Protocol", (Protocol,), {"head_timeout": head_timeout})
