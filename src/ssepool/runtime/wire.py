"""Wire: the bytes that a server adapter writes and reads by itself, beside those of its HTTP library."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

CHUNKED = (b"transfer-encoding", b"chunked")
"""The field of a response whose body is chunked."""
OF_CONNECTION = frozenset({b"connection", b"transfer-encoding"})
"""Fields that say how a response ends."""


def _refusal(status: int, text: str, more: str = "") -> bytes:
    fields = (
        f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\nconnection: close\r\n{more}\r\n"
    )
    return STATUS_LINE[status] + (fields + text).encode()


INVALID = _refusal(400, "Invalid HTTP request received.")
"""The answer to what is no request."""
BAD_HOST = _refusal(400, "A request takes one well-formed Host")
"""The answer to a request without `Host`, with two, or with one that is no host (RFC 9112, 3.2)."""
FAULTY_FRAMING = _refusal(400, "HTTP/1.0 has no Transfer-Encoding")
"""The answer to a body of HTTP/1.0 whose end nobody can tell (RFC 9112, 6.1)."""
UNKNOWN_CODING = _refusal(501, "Transfer-Encoding takes chunked alone")
"""The answer to a body in another transfer coding (RFC 9112, 6.1)."""
NO_TUNNEL = _refusal(501, "CONNECT is for proxies")
"""The answer to a request for a tunnel."""
WRONG_VERSION = _refusal(505, "HTTP/1.1 or HTTP/1.0 is spoken here")
"""The answer to a request of another version of HTTP (RFC 9110, 15.6.6)."""
TOO_LATE = _refusal(408, "Request Timeout")
"""The answer to a client whose request's head does not come in time."""
TOO_LONG = _refusal(414, "URI Too Long")
"""The answer to a request whose target is too long."""
TOO_LARGE = _refusal(431, "Request Header Fields Too Large")
"""The answer to a request whose headers are too long."""
TOO_MANY = _refusal(503, "Too Many Connections", "retry-after: 1\r\n")
"""The answer to a client who gives way to another before its request is there."""


def render_head(
    status: int, headers: Iterable[tuple[bytes, bytes]], *, keep_alive: bool = False, chunked: bool = False
) -> bytes:
    """A response's head in its wire format. Without `keep_alive` the connection ends with the body, and a body that is
    not `chunked` and has no length ends with the connection (RFC 9112, 6.3).

    A `chunked` one does not announce that: where it is announced, Node.js takes a body that was cut for a whole one.
    """
    lines = [STATUS_LINE[status]]
    if chunked:
        headers = [*(field for field in headers if field[0].lower() not in OF_CONNECTION), CHUNKED]
    elif not keep_alive:
        headers = [*(field for field in headers if field[0].lower() != b"connection"), (b"connection", b"close")]
    for name, value in headers:
        if b"\n" in value or b"\r" in value or b"\n" in name or b"\r" in name:
            raise RuntimeError(f"header {name!r} has a line break in its value {value!r}")
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def has_length(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client of a response knows from its head how long the body is (RFC 9112, 6.3)."""
    return status in (204, 304) or any(name.lower() == b"content-length" for name, _ in headers)


def is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether this is the head of a stream of events, with whatever parameters."""
    types = [value.split(b";")[0].strip().lower() for name, value in headers if name.lower() == b"content-type"]
    return types == [b"text/event-stream"]


def unchunked(cycle: RequestResponseCycle, message: MutableMapping[str, Any], is_open: bool) -> bool:
    """Have a server send this part of a response without chunks, which its client does not know (HTTP/1.0): uvicorn
    would chunk it all the same. Returns whether the body ends with the connection; `is_open` is what that was before.
    """
    if message["type"] == "http.response.start":
        is_open = not has_length(message["status"], message.get("headers", ()))
        if is_open:
            cycle.chunked_encoding = cycle.keep_alive = False
    elif is_open:
        cycle.expected_content_length = len(message.get("body", b""))  # each part is as long as it was to be
    return is_open


def log_access(cycle: RequestResponseCycle, scope: MutableMapping[str, Any], status: int) -> None:
    """Log a response as uvicorn would have."""
    if cycle.access_log:
        cycle.access_logger.info(
            '%s - "%s %s HTTP/%s" %d',
            get_client_addr(scope),  # type: ignore[arg-type]
            scope["method"],
            get_path_with_query_string(scope),  # type: ignore[arg-type]
            scope["http_version"],
            status,
        )
