"""Handover: everything that a server adapter and the hub have to know of each other.

A server that can give its sockets away offers four extensions under `scope["extensions"]`. The hub calls them when a
request has become a stream; servers without them are served through ASGI's plain `send`.

- `DETACH`: `detach(ack_timeout) -> Handover | None` takes the request's socket away from the server. None where that
  cannot be done now, and plain `send` goes on.
- `ALONE`: `alone(ack_timeout)` keeps the connection for this one response, and reads on to see its client leave.
- `ABORT`: `abort()` drops the connection with everything that is still to be written.
- `CUT`: `cut()` writes that, and then closes the connection in the middle of the response, without the end of its body.

A server that knows its proxies also says, as `FORWARDED_HOST`, what the client asked for.

`ack_timeout` is in seconds: the adapter passes it to `set_bounds`, with the socket.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Protocol

DETACH = "ssepool.detach"
"""The extension that takes a socket away from the server."""
ALONE = "ssepool.alone"
"""The extension that keeps a connection for one response."""
ABORT = "ssepool.abort"
"""The extension that drops a connection."""
CUT = "ssepool.cut"
"""The extension that closes a connection whose response is not whole."""

FORWARDED_HOST = "ssepool.forwarded_host"
"""The extension in which a request has the `Host` that its client sent to a trusted proxy, as text."""

AVAILABLE = sys.platform == "linux"
"""Whether sockets can be taken over on this system: that takes epoll."""

MAX_UNSENT_BYTES = 128 * 1024
"""Bytes that the kernel takes for a client beyond those that are on their way to it."""

FAILED = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n"
    b"connection: close\r\n\r\nInternal Server Error"
)
"""The answer where an application gave none."""

Reply = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers but for the length, and body of an answer that is given without an application's help."""


class Sink(Protocol):
    """Where a server puts the response that an application sends after its socket was taken over."""

    def head(self, data: bytes, *, chunked: bool = False) -> None:
        """The status line and the headers, in their wire format, and whether they say that the body is chunked: then
        the hub codes all that it is given, and all that it writes."""

    def body(self, data: bytes) -> None:
        """A part of the body."""

    def complete(self) -> None:
        """The response is over; also where the application has sent none, or a part of it."""


class Handover(Protocol):
    """What a server hands over: a file descriptor that is the hub's from now on, and the rest of the response."""

    fd: int
    """The descriptor, in non-blocking mode."""
    sink: Sink | None
    """Set by the hub. What is sent while this is None is dropped."""
    owns_body: bool
    """Set by the hub before it sends the head of a stream, whose body it writes to the descriptor. Middleware that
    codes bodies does not see it, so what that says of a coding does not go into the head. Set back by the server where
    the head that comes is not that of a stream: it belongs to a response that has been put in its place."""

    def gone(self) -> None:
        """Tell the server's side of the request that the client has left."""


def set_bounds(fd: int, ack_timeout: float) -> None:
    """Give a socket the kernel's bounds for a stream: both of the following."""
    set_ack_timeout(fd, ack_timeout)
    set_max_unsent(fd)


def is_unix(sock: socket.socket | None) -> bool:
    """Whether a socket is one of this machine alone, whose peer has no address."""
    return sock is not None and sock.family == getattr(socket, "AF_UNIX", None)


def set_max_unsent(fd: int) -> None:
    """Have the kernel take no more for a slow peer than `MAX_UNSENT_BYTES` beyond what is on its way
    (TCP_NOTSENT_LOWAT, tcp(7)): what comes behind that lies in the feed once for all, not in each socket's buffer.

    Does nothing where the system or the socket has no such option. Sockets accepted from a listener inherit it.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        _set(fd, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)


def set_ack_timeout(fd: int, seconds: float) -> None:
    """Have the kernel give a peer up that acknowledges nothing for so long (TCP_USER_TIMEOUT, RFC 5482).

    Does nothing where the system or the socket has no such option. Sockets accepted from a listener inherit it.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        _set(fd, socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000)))


def _set(fd: int, option: int, value: int) -> None:
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise
    finally:
        sock.detach()
