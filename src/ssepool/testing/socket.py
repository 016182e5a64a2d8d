"""The way over a socket: HTTP/1.1 on loopback, to a server in the same event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import httptools

from ssepool.testing.answer import MAX_UNREAD, Answer, Request
from ssepool.testing.serving import Served

RECEIVE_BYTES = 4096
"""The socket's receive buffer: a stream that is not read is full soon."""

ABORT = struct.pack("ii", 1, 0)
"""`SO_LINGER`: close with a reset."""


class SocketWay(asyncio.Protocol):
    """One request over a connection of its own."""

    def __init__(self, served: Served, request: Request, answer: Answer) -> None:
        self._served = served
        self._request = request
        self._answer = answer
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._transport: asyncio.Transport | None = None
        self._sock: socket.socket | None = None
        self._paused = False
        answer.on_read = self._read

    async def start(self) -> None:
        """Connect, and send the request."""
        self._sock = sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, self._served.address)
        self._transport, _ = await loop.create_connection(lambda: self, sock=sock)
        request = self._request
        target = request.path + (f"?{request.query}" if request.query else "")
        lines = [f"{request.method} {target} HTTP/1.1".encode()]
        lines += [name + b": " + value for name, value in request.headers]
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + request.body)

    def pause(self) -> None:
        """Read nothing more."""
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    async def drop(self) -> None:
        """Reset the connection. On loopback no network can be lost: the hub sees that its client closed."""
        if self._sock is not None and self._transport is not None and not self._transport.is_closing():
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self._transport.abort()
        self._answer.finish("cut")
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
        await asyncio.sleep(0)

    def _read(self) -> None:
        if not self._paused and len(self._answer.items) <= MAX_UNREAD:
            self.go_on()

    # What asyncio and httptools call.

    def data_received(self, data: bytes) -> None:
        """Bytes of the response."""
        self._parser.feed_data(data)
        if len(self._answer.items) >= MAX_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """No more bytes. A body without a length and without coding ends with its connection (RFC 9112, 6.3)."""
        has_end = {"content-length", "transfer-encoding"} & self._answer.headers.keys()
        raised = self._served.errors.pop() if self._served.errors else None
        self._answer.finish("cut" if error or has_end or self._answer.status is None else "complete", raised)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._answer.begin(self._parser.get_status_code(), self._headers)

    def on_body(self, body: bytes) -> None:
        """A part of the body, without its coding."""
        self._answer.feed(body)

    def on_message_complete(self) -> None:
        """The body is complete, by its length or its last chunk."""
        self._answer.finish("complete")
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.close()
