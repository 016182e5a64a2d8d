"""HTTP and event streams in pieces, against the whole and against the full decoder."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssepool.bench import framing
from ssepool.bench.framing import BadFraming, cut, read_answer, read_head, unchunk
from ssepool.core.decoder import Decoder, Message

lines = st.sampled_from([b"data: a", b"data: bb", b"id: 7", b"event: x", b": comment", b"data", b"data:c\xc3\xa4"])
streams = st.lists(st.tuples(st.one_of(lines, st.just(b"")), st.sampled_from([b"\n", b"\r\n", b"\r"]))).map(
    lambda parts: b"".join(line + end for line, end in parts)
)
splits = st.lists(st.integers(0, 200))


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in at} | {0, len(data)})
    return [data[first:last] for first, last in pairwise(ends)]


def chunked(data: bytes, at: list[int]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces(data, at) if piece)


def read(parts: list[bytes], *, chunked: bool) -> list[Message]:
    """What is in whole blocks, read piece by piece."""
    decoder, rest = Decoder(), b""
    messages = []
    for part in parts:
        found = cut(rest + part, chunked)
        rest = found.rest
        messages += decoder.feed(found.blocks)
    return messages


# Event streams


@given(streams, splits)
@example(b"data: a\r\n\r\n", [10])
@example(b"data: a\r\ndata: b\r\n\r\n", [8])
@example(b"data: a\r\rdata: b\r\r", [9])
def test_blocks_are_those_of_the_decoder_however_the_stream_is_cut(stream: bytes, at: list[int]) -> None:
    assert read(pieces(stream, at), chunked=False) == Decoder().feed(stream)


@given(streams, splits, splits)
@example(b"data: a\n\n", [], [4 + 9])
@example(b"data: a\n\n", [], [4 + 9 + 1])
@example(b"data: a\n\ndata: b\n\n", [9], [4 + 9])
@example(b"data: a\r\n\r\n", [8, 10], [3 + 8 + 1])
def test_chunks_change_nothing_about_it(stream: bytes, chunks: list[int], at: list[int]) -> None:
    assert read(pieces(chunked(stream, chunks), at), chunked=True) == Decoder().feed(stream)


@given(streams)
def test_one_byte_at_a_time_changes_nothing(stream: bytes) -> None:
    framed = chunked(stream, [3, 9, 20])
    parts = [framed[at : at + 1] for at in range(len(framed))]
    assert read(parts, chunked=True) == Decoder().feed(stream)


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    for end in (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"):
        assert cut(b"data: a" + end, False) == framing.Cut(b"data: a\n\n", b"", False)
        assert cut(b"9\r\ndata: abc\r\n", True).blocks == b""


def test_whole_chunks_with_whole_events_leave_nothing_behind() -> None:
    assert cut(b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n", True) == framing.Cut(b"data: a\n\ndata: b\n\n", b"", False)


def test_the_last_chunk_ends_the_stream() -> None:
    assert cut(b"9\r\ndata: a\n\n\r\n0\r\n\r\n", True) == framing.Cut(b"data: a\n\n", b"", True)


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_UNFINISHED_BYTES", 100)
    for raw, is_chunked in ((b"data: " + b"x" * 100, False), (b"fff\r\n" + b"x" * 100, True)):
        with pytest.raises(BadFraming, match="more than 100 bytes"):
            cut(raw, is_chunked)


@pytest.mark.parametrize("raw", [b"x\r\n", b"\r\n", b"-1\r\nab", b"5\r\nabcde\r\nnope\r\n", b"1" * 5000])
def test_what_is_no_chunk_is_refused(raw: bytes) -> None:
    with pytest.raises(BadFraming, match="not the size of a chunk"):
        unchunk(raw)


def test_chunk_extensions_are_passed_over() -> None:
    assert unchunk(b"2;name=value\r\nab\r\n").content == b"ab"


# Heads and answers


def test_a_head_says_how_its_body_ends() -> None:
    head, rest = read_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\nbody") or pytest.fail()
    assert (head.status, head.chunked, head.length, head.keep_alive, rest) == (200, True, None, True, b"body")
    head, _ = read_head(b"HTTP/1.1 404 Not Found\r\ncontent-LENGTH: 12\r\nConnection: Close\r\n\r\n") or pytest.fail()
    assert (head.status, head.chunked, head.length, head.keep_alive) == (404, False, 12, False)


@pytest.mark.parametrize(
    ("first", "fields", "kept"),
    [
        (b"HTTP/1.1 200 OK", b"", True),
        (b"HTTP/1.1 200", b"Connection: close\r\n", False),
        (b"HTTP/1.0 200 OK", b"", False),
        (b"HTTP/1.0 200 OK", b"Connection: keep-alive\r\n", True),
    ],
)
def test_which_connections_are_kept_alive(first: bytes, fields: bytes, kept: bool) -> None:
    head, _ = read_head(first + b"\r\n" + fields + b"\r\n") or pytest.fail()
    assert head.keep_alive is kept


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 ok\r\n\r\n", b"\r\n\r\n", b"HTTP/2 200\r\n\r\n"])
def test_what_is_no_head_is_refused(raw: bytes) -> None:
    with pytest.raises(BadFraming, match="not the first line"):
        read_head(raw)


def test_a_head_without_end_is_refused() -> None:
    assert read_head(b"HTTP/1.1 200 OK\r\n") is None
    with pytest.raises(BadFraming, match="a head of more than"):
        read_head(b"HTTP/1.1 200 OK\r\n" + b"x" * framing.MAX_HEAD_BYTES)


ANSWERS = {
    b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc": b"abc",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n": b"abc",
    b"HTTP/1.1 204 No Content\r\n\r\n": b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": b"",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na": b"a",
}


@pytest.mark.parametrize("raw", ANSWERS)
def test_an_answer_is_there_once_it_is_whole(raw: bytes) -> None:
    whole = read_answer(raw, ended=False)
    assert whole and whole.body == ANSWERS[raw] and whole.keep_alive
    last = raw.rindex(b"0\r\n\r\n") + 2 if b"chunked" in raw else len(raw) - 1
    for length in range(last):
        assert read_answer(raw[:length], ended=False) is None


def test_an_answer_may_end_with_its_connection() -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\nabc"
    assert read_answer(raw, ended=False) is None
    answer = read_answer(raw, ended=True)
    assert answer and (answer.body, answer.keep_alive) == (b"abc", False)
    assert read_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", ended=True) is None
