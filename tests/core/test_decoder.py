"""The decoder against the vectors, against itself under any chunking, and at its limits."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssepool.core.decoder import Decoder, Message
from ssepool.errors import EventTooLarge

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "sse_vectors.json").read_bytes())[
    "decode"
]


def in_chunks(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def chunkings(case: dict[str, Any]) -> Iterator[tuple[str, list[bytes]]]:
    stream = base64.b64decode(case["input_b64"])
    yield "whole", [stream]
    yield "1-byte", in_chunks(stream, 1)
    yield "2-byte", in_chunks(stream, 2)
    if "chunks_b64" in case:
        yield "given", [base64.b64decode(chunk) for chunk in case["chunks_b64"]]


def decode(chunks: Iterable[bytes], **settings: Any) -> tuple[list[Message], Decoder, list[str]]:
    comments: list[str] = []
    decoder = Decoder(on_comment=comments.append, **settings)
    return [message for chunk in chunks for message in decoder.feed(chunk)], decoder, comments


@pytest.mark.parametrize(
    ("case", "chunks"),
    [pytest.param(case, chunks, id=f"{case['id']}-{how}") for case in CASES for how, chunks in chunkings(case)],
)
def test_vector(case: dict[str, Any], chunks: list[bytes]) -> None:
    messages, decoder, comments = decode(chunks)
    assert [{"type": m.type, "data": m.data, "last_event_id": m.id} for m in messages] == case["events"]
    assert decoder.last_event_id == case["last_event_id_at_eof"]
    assert decoder.retry == case["retry_ms"]
    assert comments == case["comments"]


# Bytes that mean something to a decoder, and whatever else there is.
pieces = st.sampled_from(
    "data event id retry : 17 x xxxxxxxxx \0 \ufeff \N{GRINNING FACE}".encode().split(b" ")
    + b"\n,\r,\r\n,\n\n, ,\xef,\xbb,\xbf,\xe2\x82,\xac,\xed\xa0\x80,\xc0".split(b",")
)
streams = st.lists(pieces | st.binary(max_size=4), max_size=40).map(b"".join)


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return stream, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(cut(streams))
@example((b"data:\xef\xbb\xbf\r\n\r\n", [b"data:\xef", b"\xbb\xbf\r", b"\n\r", b"\n"]))
def test_any_chunking_gives_the_same(stream_and_chunks: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = stream_and_chunks
    whole, at_once, comments = decode([stream])
    cut_up, bit_by_bit, same_comments = decode(chunks)
    assert cut_up == whole
    assert same_comments == comments
    assert bit_by_bit.last_event_id == at_once.last_event_id
    assert bit_by_bit.retry == at_once.retry


@given(cut(streams), st.integers(1, 40))
def test_any_chunking_refuses_the_same_event(stream_and_chunks: tuple[bytes, list[bytes]], limit: int) -> None:
    stream, chunks = stream_and_chunks
    outcomes = []
    for feeds in ([stream], chunks):
        decoder, messages, refused = Decoder(limit), [], False
        try:
            for chunk in [*feeds, b""]:
                messages += decoder.feed(chunk)
        except EventTooLarge:
            refused = True
        outcomes.append((messages, decoder.last_event_id, refused))
    assert outcomes[0] == outcomes[1]


def test_messages_come_with_the_chunk_that_completes_them() -> None:
    decoder = Decoder()
    assert decoder.feed(b"id: 1\ndata: a\n") == []
    assert decoder.last_event_id == ""
    assert decoder.feed(b"\ndata: b\n\ndata") == [Message("message", "a", "1"), Message("message", "b", "1")]
    assert decoder.last_event_id == "1"


def test_cr_at_the_end_of_a_chunk_ends_the_line_and_swallows_one_lf() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == [Message("message", "a", "")]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: b\r") == []
    assert decoder.feed(b"\n\n") == [Message("message", "b", "")]


def test_block_with_only_an_id_moves_the_last_event_id() -> None:
    decoder = Decoder()
    assert decoder.feed(b"id: 7\n\n") == []
    assert decoder.last_event_id == "7"
    assert decoder.feed(b"data: x\n\n") == [Message("message", "x", "7")]


def test_last_event_id_is_carried_over_from_the_connection_before() -> None:
    decoder = Decoder(last_event_id="41")
    assert decoder.last_event_id == "41"
    assert decoder.feed(b"data: x\n\n") == [Message("message", "x", "41")]
    decoder.feed(b"id\n\n")
    assert decoder.last_event_id == ""


@pytest.mark.parametrize("value", [b"", b"-1", b"1e3", b"\xd9\xa3", b" 5", b"5 ", b"9" * 19, b"9" * 5000])
def test_retry_that_is_no_sensible_number_of_ascii_digits_is_ignored(value: bytes) -> None:
    decoder = Decoder()
    decoder.feed(b"retry:1500\nretry: %s\n\n" % value)
    assert decoder.retry == 1500


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"\xe2\x82", "�"),
        (b"\xe2\x82A", "�A"),
        (b"\xed\xa0\x80", "���"),
        (b"\xf0\x9f\x98", "�"),
        (b"\xf5\x80", "��"),
        (b"\xc0\xaf", "��"),
        (b"\x80", "�"),
        (b"\xf0\x9f\x98\x80", "\N{GRINNING FACE}"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_invalid_utf8_becomes_replacement_characters(stream: bytes, text: str, size: int) -> None:
    messages, _, _ = decode(in_chunks(b"event:%s\ndata:%s\n\n" % (stream, stream), size))
    assert messages == [Message(text, text, "")]


@pytest.mark.timeout(30)  # one copy of the line a chunk would be 200 GB in all
@pytest.mark.parametrize("ending", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_long_line_in_small_chunks_takes_linear_time(ending: bytes) -> None:
    decoder, chunk, chunks = Decoder(), b"x" * 64, 5 * 2**20 // 64
    decoder.feed(b"data: ")
    assert not any(decoder.feed(chunk) for _ in range(chunks))
    (message,) = decoder.feed(ending)
    assert len(message.data) == 5 * 2**20


@pytest.mark.timeout(30)
def test_long_line_in_chunks_of_a_kibibyte() -> None:
    line = b"data: " + b"y" * (5 * 2**20)
    messages, _, _ = decode(in_chunks(line + b"\n\n", 1024))
    assert [len(message.data) for message in messages] == [5 * 2**20]


@pytest.mark.timeout(30)
def test_event_of_many_lines_takes_linear_time() -> None:
    messages, _, _ = decode([*[b"data: line\n"] * 100_000, b"\n"])
    assert messages[0].data.count("\n") == 99_999


class TestMaxEventSize:
    def test_event_of_just_that_size_passes(self) -> None:
        decoder = Decoder(max_event_size=20)
        assert decoder.feed(b"id: 12345\ndata: 12345\n\n" * 2) == [Message("message", "12345", "12345")] * 2

    @pytest.mark.parametrize("size", [1, 3, 100])
    @pytest.mark.parametrize(
        "stream",
        [
            b"id: 12345\ndata: 123456\n\n",
            b"data: 1\n" * 3,
            b"data: " + b"x" * 15,
            b"id: 1\n" * 5,
            b"event:" + b"x" * 15,
        ],
    )
    def test_larger_event_is_refused_with_size_and_limit(self, stream: bytes, size: int) -> None:
        with pytest.raises(EventTooLarge, match=r"has 2\d bytes or more; max_event_size is 20"):
            decode(in_chunks(stream, size), max_event_size=20)

    def test_refused_as_soon_as_the_limit_is_passed(self) -> None:
        decoder = Decoder(max_event_size=20)
        decoder.feed(b"data: " + b"x" * 14)
        with pytest.raises(EventTooLarge, match="has 21 bytes"):
            decoder.feed(b"x")

    def test_messages_before_it_in_the_chunk_are_not_lost(self) -> None:
        decoder = Decoder(max_event_size=20)
        assert decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: %s\n\ndata: c\n\n" % (b"x" * 20)) == [
            Message("message", "a", "1")
        ]
        assert decoder.last_event_id == "1"
        for _ in range(2):
            with pytest.raises(EventTooLarge):
                decoder.feed(b"")

    @pytest.mark.parametrize("start", [b":", b"unknown: ", b"datax", b"data : ", b"idx", b"i: ", b"Data: ", b" data: "])
    def test_what_clients_ignore_is_neither_counted_nor_kept(self, start: bytes) -> None:
        decoder, chunk = Decoder(max_event_size=1000), b"x" * 2**16
        tracemalloc.start()
        try:
            decoder.feed(start + chunk)
            kept, _ = tracemalloc.get_traced_memory()
            for _ in range(64):
                assert decoder.feed(chunk) == []
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 2**14
        assert peak < 2**18
        assert decoder.feed(b"\ndata: a\n\n") == [Message("message", "a", "")]

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_comment_for_the_callback_is_cut_off(self, size: int) -> None:
        messages, _, comments = decode(in_chunks(b":%s\n:b\ndata: c\n\n" % (b"x" * 50), size), max_event_size=20)
        assert comments == ["x" * 20, "b"]
        assert messages == [Message("message", "c", "")]


def test_comment_is_reported_when_its_line_ends() -> None:
    comments: list[str] = []
    decoder = Decoder(on_comment=comments.append)
    decoder.feed(b": keep-")
    assert comments == []
    decoder.feed(b"alive\n")
    assert comments == [" keep-alive"]
