"""The part of HTTP/1.1 (RFC 9112) that a load tool reads: heads, chunks, whole answers, blocks of an event stream.

Every function here is pure and takes bytes. The caller keeps the bytes of an unfinished part, appends the next ones to
them, and calls the same function again.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssepool.config import KiB, MiB
from ssepool.errors import SSEPoolError

MAX_HEAD_BYTES = 64 * KiB
"""Bytes that the head of an answer has at most."""
MAX_UNFINISHED_BYTES = 64 * MiB
"""Bytes that an event or an answer has at most before its end comes."""
MAX_SIZE_LINE_BYTES = 4 * KiB
"""Bytes that the line with a chunk's size has at most, extensions included."""

_CR = 0x0D
_CRLF = b"\r\n"


class BadFraming(SSEPoolError):
    """A server sent something that is not HTTP/1.1, or that has no end."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer."""

    status: int
    """The status code."""
    length: int | None
    """Bytes of the body; `None` if it is chunked, or ends with the connection."""
    chunked: bool
    """Whether the body comes in chunks."""
    keep_alive: bool
    """Whether the connection can take another request afterwards."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    """The status code."""
    body: bytes
    """The whole body, without chunk framing."""
    keep_alive: bool
    """Whether the connection can take another request."""


@dataclass(frozen=True, slots=True)
class Body:
    """The part of a chunked body that has come: its content, and where it stops."""

    content: bytes
    """The bytes without chunk framing."""
    left: int
    """Bytes that the last chunk lacks, its line end included; 0 between two chunks."""
    tail: bytes
    """The beginning of the line with the next chunk's size."""
    ended: bool
    """Whether the last chunk of the body has come."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An event stream cut after its last whole block."""

    blocks: bytes
    """The whole blocks, without chunk framing, with LF as their line ends."""
    rest: bytes
    """The bytes to keep: the next ones are appended to them."""
    ended: bool
    """Whether the server has ended the body."""


def read_head(raw: bytes) -> tuple[Head, bytes] | None:
    """The head and the bytes that follow it; `None` while the head is unfinished. Raises `BadFraming`."""
    text, end, rest = raw.partition(b"\r\n\r\n")
    if not end:
        if len(raw) > MAX_HEAD_BYTES:
            raise BadFraming(f"a head of more than {MAX_HEAD_BYTES} bytes")
        return None
    first, *lines = text.split(_CRLF)
    version, _, status = first.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
        raise BadFraming(f"{first[:80]!r} is not the first line of an HTTP/1.1 answer")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip().lower()
    length = fields.get(b"content-length", b"")
    chunked = fields.get(b"transfer-encoding", b"").endswith(b"chunked")
    connection = fields.get(b"connection", b"")
    keep_alive = b"close" not in connection and (version != b"HTTP/1.0" or b"keep-alive" in connection)
    return Head(int(status[:3]), int(length) if length.isdigit() and not chunked else None, chunked, keep_alive), rest


def read_answer(raw: bytes, ended: bool) -> Answer | None:
    """The answer to one request, read from the bytes so far; `None` while it is unfinished.

    Interim answers (1xx) are skipped. `ended` says that the connection will bring no more bytes. Raises `BadFraming`.
    """
    while (parsed := read_head(raw)) and 100 <= parsed[0].status < 200:
        raw = parsed[1]
    if parsed is None:
        return None
    head, body = parsed
    if head.status in (204, 304):
        return Answer(head.status, b"", head.keep_alive)
    if head.chunked:
        unchunked = unchunk(body)
        return Answer(head.status, unchunked.content, head.keep_alive) if unchunked.ended else None
    if head.length is None:
        return Answer(head.status, body, False) if ended else None
    return Answer(head.status, body[: head.length], head.keep_alive) if len(body) >= head.length else None


def unchunk(raw: bytes) -> Body:
    """Take the chunks of a body apart (RFC 9112, section 7.1). Raises `BadFraming`."""
    parts: list[bytes] = []
    at = 0
    while (end := raw.find(_CRLF, at)) >= 0:
        try:
            size = int(raw[at:end].partition(b";")[0], 16)
        except ValueError:
            size = -1
        if size < 0:
            raise BadFraming(f"{raw[at : end + 2][:40]!r} is not the size of a chunk")
        if size == 0:
            return Body(b"".join(parts), 0, b"", True)
        start = end + 2
        parts.append(raw[start : start + size])
        at = start + size + 2
        if at > len(raw):
            return Body(b"".join(parts), at - len(raw), b"", False)
    if len(raw) - at > MAX_SIZE_LINE_BYTES:
        raise BadFraming(f"{raw[at:][:40]!r}... is not the size of a chunk")
    return Body(b"".join(parts), 0, raw[at:], False)


def cut(raw: bytes, chunked: bool) -> Cut:
    """Cut an event stream after its last blank line (WHATWG HTML, section 9.2.5).

    `raw` is what `Cut.rest` kept, with the bytes of the last read; `chunked` is as `Head` has it. Raises `BadFraming`.
    """
    if not chunked:
        blocks, rest = _cut_text(raw)
        return Cut(blocks, _bounded(rest), False)
    body = unchunk(raw)
    blocks, rest = _cut_text(body.content)
    return Cut(blocks, _bounded(b"" if body.ended else _chunk_again(rest, body)), body.ended)


def _cut_text(text: bytes) -> tuple[bytes, bytes]:
    if _CR not in text:
        end = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        return text[:end], text[end:]
    lines = text.replace(_CRLF, b"\n").replace(b"\r", b"\n")
    end = lines.rfind(b"\n\n") + 2 if b"\n\n" in lines else 0
    rest = lines[end:]
    # A CR at the end of an unfinished block may be half of a line end, so it has to stay a CR. A CR at the end of the
    # last block is a line end by itself; if an LF follows, that is one more blank line, which means nothing.
    if rest and text[-1] == _CR:
        rest = rest[:-1] + b"\r"
    return lines[:end], rest


def _chunk_again(rest: bytes, body: Body) -> bytes:
    """The unfinished block as the content of one chunk, which lacks as many bytes as the last chunk does."""
    if body.left > 2:
        return b"%x\r\n%b" % (len(rest) + body.left - 2, rest)
    if body.left:
        # Only the line end of the chunk is missing, and no chunk may be empty. One more blank line means nothing here.
        rest = rest or b"\n"
        return b"%x\r\n%b%b" % (len(rest), rest, _CRLF[: 2 - body.left])
    return (b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"") + body.tail


def _bounded(rest: bytes) -> bytes:
    if len(rest) > MAX_UNFINISHED_BYTES:
        raise BadFraming(f"an event of more than {MAX_UNFINISHED_BYTES} bytes")
    return rest
