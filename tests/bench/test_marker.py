"""Marks and how they are found, against the full decoder."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.test_framing import chunked, pieces, splits
from ssepool.bench import marker
from ssepool.bench.marker import Scan, Scans, mark
from ssepool.bench.sequence import Sequence
from ssepool.core.decoder import Decoder
from ssepool.core.event import encode

RUN = b"a1b2c3"

events = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1000, 1005)),
        st.sampled_from([b": heartbeat\n", b"data: something else\n\n", b"event: ssepool.open\ndata: {}\n\n", b"\n"]),
    )
)


def frame(event: tuple[int, int, int] | bytes) -> bytes:
    if isinstance(event, bytes):
        return event
    data = mark(RUN, *event).decode() + "x" * 10
    return encode(data, id=f"i-{event[1]}")


def through_the_decoder(stream: bytes) -> list[tuple[int, ...]]:
    pattern = re.compile(rf"^~{RUN.decode()}\.(\d+)\.(\d+)\.(\d+)~x*$")
    found = [pattern.match(message.data) for message in Decoder().feed(stream)]
    return [tuple(map(int, match.groups())) for match in found if match]


@given(events, splits, splits, st.booleans())
def test_all_is_found_however_the_stream_is_cut(
    sent: list[tuple[int, int, int] | bytes], at: list[int], chunks: list[int], is_chunked: bool
) -> None:
    stream = b"".join(map(frame, sent))
    expected = through_the_decoder(stream)
    scans = Scans(RUN, 3, chunked=is_chunked)
    rest, times, numbers = b"", [], [list[int]() for _ in range(3)]
    for piece in pieces(chunked(stream, chunks) if is_chunked else stream, at):
        scan = scans[rest + piece]
        rest = scan.rest
        times += [time for time, count in scan.times for _ in range(count)]
        for lane, first, after in scan.parts:
            numbers[lane] += range(first, after)
        assert scan.count == sum(after - first for _, first, after in scan.parts) == sum(n for _, n in scan.times)
    assert times == [time for _, _, time in expected]
    assert numbers == [[number for lane, number, _ in expected if lane == one] for one in range(3)]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12))))
def test_parts_give_a_sequence_the_same_as_numbers_one_by_one(marks: list[tuple[int, int]]) -> None:
    scan = Scan([(lane, number, 0) for lane, number in marks])
    by_parts, one_by_one = [Sequence(), Sequence()], [Sequence(), Sequence()]
    for lane, first, after in scan.parts:
        by_parts[lane].take(first, after)
    for lane, number in marks:
        one_by_one[lane].take(number, number + 1)
    for first, second in zip(by_parts, one_by_one, strict=True):
        counts = [(s.expected, s.missing, s.doubled, s.reordered) for s in (first, second)]
        assert counts[0] == counts[1]


def test_an_unbroken_series_is_one_part_on_each_lane() -> None:
    scan = Scan([(0, 5, 1), (1, 9, 1), (0, 6, 2), (0, 7, 2), (1, 10, 2)])
    assert scan.parts == [(0, 5, 8), (1, 9, 11)]
    assert scan.times == [(1, 2), (2, 3)]


def test_marks_of_other_runs_and_lanes_are_not_counted() -> None:
    stream = b"".join(encode(mark(run, lane, 0, 1).decode()) for run, lane in ((b"ffffff", 0), (RUN, 7), (RUN, 1)))
    assert Scans(RUN, 2, chunked=False)[stream].parts == [(1, 0, 1)]


def test_an_unfinished_event_does_not_count() -> None:
    whole = encode(mark(RUN, 0, 0, 1).decode())
    scans = Scans(RUN, 1, chunked=False)
    for length in range(len(whole)):
        scan = scans[whole[:length]]
        assert (scan.count, scan.rest) == (0, whole[:length])
    assert scans[whole].count == 1


def test_a_mark_stands_for_itself_in_json_forms_and_urls() -> None:
    text = mark(RUN, 63, 10**15 - 1, 10**12).decode()
    assert quote(text) == text
    assert json.dumps(text) == f'"{text}"'
    assert parse_qs(f"data={text}") == {"data": [text]}
    assert urlencode({"data": text}) == f"data={text}"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = Scans(RUN, 1, chunked=False)
    for number in range(marker.MAX_SCANS * 3):
        assert scans[frame((0, number, 1))].parts == [(0, number, number + 1)]
        assert len(scans) <= marker.MAX_SCANS
    monkeypatch.setattr(marker, "MAX_SCANNED_BYTES", 1000)
    for number in range(100):
        scans[frame((0, number, 2))]
        assert sum(map(len, scans)) <= 1000 + 100


def test_the_same_bytes_are_looked_at_once() -> None:
    scans = Scans(RUN, 1, chunked=False)
    assert scans[bytes(frame((0, 1, 1)))] is scans[bytes(bytearray(frame((0, 1, 1))))]
