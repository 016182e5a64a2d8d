"""Chunks: the coding of what has no length."""

from __future__ import annotations

import pytest

from ssepool.bench.framing import unchunk as read
from ssepool.core.chunk import LAST_CHUNK, MAX_KNOWN_SIZE, chunk, chunk_text, unchunk
from ssepool.core.event import Entry, Event


@pytest.mark.parametrize(
    "data", [b"x", b"data: x\n\n", b"x" * 15, b"x" * 16, b"\r\n0\r\n", b"y" * 1023, b"y" * 1024, b"y" * 70_000]
)
def test_a_chunk_is_what_a_reader_of_chunks_takes_and_gives_back_its_bytes(data: bytes) -> None:
    body = read(chunk(data) + chunk(data) + LAST_CHUNK)
    assert (body.content, body.left, body.tail, body.ended) == (data + data, 0, b"", True)
    assert unchunk(chunk(data)) == data


def test_nothing_makes_no_chunk_since_an_empty_one_is_the_last() -> None:
    assert chunk(b"") == unchunk(b"") == b""


@pytest.mark.parametrize("character", ["x", "é", "🦫"])
def test_text_makes_the_chunk_that_its_bytes_make(character: str) -> None:
    for size in (1, 15, 16, 255, 256, MAX_KNOWN_SIZE - 1, MAX_KNOWN_SIZE, MAX_KNOWN_SIZE + 1):
        assert chunk_text(character * size) == chunk((character * size).encode())
    assert chunk_text("x" * (MAX_KNOWN_SIZE - 1) + character) == chunk(
        ("x" * (MAX_KNOWN_SIZE - 1) + character).encode()
    )


def test_an_entry_has_its_events_frame_as_one_chunk() -> None:
    event = Event.of("news", "two\nlines, Umläute", type="update", id="mine", retry=500)
    entry = event.entry("0000000a", 1)
    assert entry.chunk == chunk(event.encode())
    assert entry.frame == event.encode()
    assert Entry(1, None, (), b"").frame == b""  # what cannot be read
