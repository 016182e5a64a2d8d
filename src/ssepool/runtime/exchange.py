"""Exchange: one request to uvicorn and its response, before and after its socket is detached."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ssepool.runtime import wire
from ssepool.runtime.handover import Sink, set_bounds

logger = logging.getLogger("ssepool")

Receive = Callable[[], Awaitable[dict[str, Any]]]
"""ASGI's `receive`."""

Send = Callable[[dict[str, Any]], Awaitable[None]]
"""ASGI's `send`."""

BODY_FIELDS = frozenset({b"content-encoding", b"content-length"})
"""Fields that middleware puts into the head of a body that it has coded or measured."""


class Served(HttpToolsProtocol):
    """What an exchange has to know of its connection."""

    alone = False
    """Whether a response has the connection for itself: what the client still sends is dropped."""

    def leave_callers(self) -> None:
        """The connection is a stream, or is no more."""
        raise NotImplementedError

    def linger(self) -> None:
        """Say that nothing follows, and close when the client has had the time to read its answer."""
        raise NotImplementedError


class Exchange:
    """One request and its response, before and after its socket is detached. Also the handover of that socket."""

    fd: int
    """The descriptor of the detached socket."""
    sink: Sink | None = None
    """Where the rest of the response goes."""
    _is_open = False
    """Whether the body of a response to HTTP/1.0 ends with the connection."""
    owns_body = False
    """Whether the hub writes the body that the next head announces."""

    def __init__(
        self,
        protocol: Served,
        cycle: RequestResponseCycle,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._scope = scope
        self._receive = receive
        self._send = send
        self._detached = False
        self._requested = False
        """Whether the application has had the whole request."""
        self._is_coded = False
        """Whether somebody on the way has announced a coding of a body that the hub writes."""

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
            await self._send_through(message)
        elif self.sink is not None:
            if message["type"] == "http.response.start":
                self._start(self.sink, message["status"], message.get("headers", ()))
            elif message["type"] == "http.response.body":
                # What a compressing middleware makes of nothing is the beginning of a coded body, which never comes.
                if message.get("body") and not self._is_coded:
                    self.sink.body(message["body"])
                if not message.get("more_body", False):
                    self.sink.complete()

    async def _send_through(self, message: dict[str, Any]) -> None:
        """Send by the server. A response that begins before the request's body is there ends the connection: the rest
        is not read to be thrown away, however long it is, and never taken for another request (RFC 9112, 9.3 and 9.6).
        """
        cycle = self._cycle
        if cycle.more_body and not cycle.response_started:
            cycle.keep_alive = False
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        lingers = ends and cycle.more_body and not cycle.keep_alive and not cycle.disconnected
        if lingers:
            cycle.keep_alive = True  # its client knows better already, and the server does not close at once
        if self._scope["http_version"] == "1.0":
            self._is_open = wire.unchunked(cycle, message, self._is_open)
        await self._send(message)
        if self._protocol.alone:  # not before: the head would announce it, see `render_head`
            cycle.keep_alive = False
        if lingers:
            self._protocol.linger()

    def _start(self, sink: Sink, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Pass the response's head on as the server would write it."""
        wire.log_access(self._cycle, self._scope, status)
        headers = list(headers)
        # Middleware may put another response, with a body of its own, in the stream's place.
        self.owns_body = self.owns_body and status == 200 and wire.is_stream(headers)
        if self.owns_body:
            given, headers = headers, [field for field in headers if field[0].lower() not in BODY_FIELDS]
            self._is_coded = len(headers) < len(given)
        chunked = self._scope["http_version"] == "1.1" and not wire.has_length(status, headers)
        sink.head(wire.render_head(status, [*self._cycle.default_headers, *headers], chunked=chunked), chunked=chunked)
