"""Chunk: the coding of a body whose length nobody knows yet (RFC 9112, section 7.1). A body that ends without the last
chunk was cut, and every client can tell."""

from __future__ import annotations

LAST_CHUNK = b"0\r\n\r\n"
"""What ends a body that is whole. No trailers."""

MAX_KNOWN_SIZE = 1024
"""Bytes up to which the sizes of chunks are kept as they are written: those of nearly all frames."""

_SIZES = [f"{size:x}\r\n" for size in range(MAX_KNOWN_SIZE)]
_SIZES_IN_BYTES = [text.encode() for text in _SIZES]


def chunk(data: bytes) -> bytes:
    """These bytes as a chunk; none for none, since a chunk of no bytes would be the last."""
    size = len(data)
    if 0 < size < MAX_KNOWN_SIZE:
        return b"".join((_SIZES_IN_BYTES[size], data, b"\r\n"))
    return b"%x\r\n%b\r\n" % (size, data) if data else b""


def chunk_text(text: str) -> bytes:
    """The UTF-8 of this text, which is not empty, as a chunk. For each event that is published: it takes less time than
    `chunk`, since nothing is copied twice, nor any size written that has been written before."""
    size = len(text)
    if size < MAX_KNOWN_SIZE and text.isascii():
        return f"{_SIZES[size]}{text}\r\n".encode()
    return chunk(text.encode())


def unchunk(chunk: bytes) -> bytes:
    """The bytes that `chunk` made this of."""
    return chunk[chunk.find(b"\n") + 1 : -2]
