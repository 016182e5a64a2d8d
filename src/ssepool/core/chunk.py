"""Chunk: the coding of a body whose length nobody knows yet (RFC 9112, section 7.1). A body that ends without the last
chunk was cut, and every client can tell."""

from __future__ import annotations

LAST_CHUNK = b"0\r\n\r\n"
"""What ends a body that is whole. No trailers."""


def chunk(data: bytes) -> bytes:
    """These bytes as a chunk; none for none, since a chunk of no bytes would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def unchunk(chunk: bytes) -> bytes:
    """The bytes that `chunk` made this of."""
    return chunk[chunk.find(b"\n") + 1 : -2]
