"""What the reader decides, with no socket anywhere."""

from __future__ import annotations

import pytest

from ssepool.client import Reader, Refused
from ssepool.client.reader import MAX_WAIT_SECONDS, MIN_WAIT_SECONDS, RECONNECTION_SECONDS

URL = "http://hub/events"
STREAM = "text/event-stream"


def reader(last_event_id: str = "", chance: float = 0.0) -> Reader:
    return Reader(last_event_id=last_event_id, chance=lambda: chance)


def open_reader(last_event_id: str = "") -> Reader:
    made = reader(last_event_id)
    assert made.opened(URL, 200, STREAM)
    return made


def test_the_first_request_has_no_last_event_id() -> None:
    assert reader().headers() == {
        "Accept": b"text/event-stream",
        "Cache-Control": b"no-cache",
        "Accept-Encoding": b"identity",
    }


def test_a_last_event_id_is_sent_as_utf_8() -> None:
    assert reader("ü☃").headers()["Last-Event-ID"] == "ü☃".encode()


@pytest.mark.parametrize(
    "kind", [STREAM, "Text/Event-Stream", "text/event-stream; charset=utf-8", "text/event-stream ;x"]
)
def test_a_stream_is_told_by_its_type_without_case_and_parameters(kind: str) -> None:
    assert reader().opened(URL, 200, kind)


@pytest.mark.parametrize("kind", ["", "text/html", "text/event-streams", "application/json; text/event-stream"])
def test_another_type_is_refused(kind: str) -> None:
    with pytest.raises(Refused, match=f"answered with {kind or 'no content type'}, not text/event-stream"):
        reader().opened(URL, 200, kind)


@pytest.mark.parametrize("status", [201, 206, 301, 400, 404, 429, 500, 503, 599, 799])
def test_another_status_is_refused(status: int) -> None:
    with pytest.raises(Refused, match=f"http://hub/events answered {status}") as refused:
        reader().opened(URL, status, STREAM)
    assert refused.value.status == status


def test_a_refusal_says_what_the_hub_said() -> None:
    answer = b'{"error": {"code": "pool_full", "message": "size=2 open=2"}}'
    with pytest.raises(Refused, match=r"^size=2 open=2$") as refused:
        reader().opened(URL, 503, "application/json", answer)
    assert refused.value.code == "pool_full"


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"code": 1}}', b"\xff\xfe"])
def test_a_refusal_by_somebody_else_says_the_status(answer: bytes) -> None:
    with pytest.raises(Refused, match="answered 502 Bad Gateway") as refused:
        reader().opened(URL, 502, "text/html", answer)
    assert refused.value.code == ""


def test_204_ends_the_subscription() -> None:
    assert not reader().opened(URL, 204, "")


def test_the_next_stream_goes_on_with_the_last_event_id() -> None:
    made = open_reader()
    made.feed(b"id: 7\ndata: a\n\n")
    made.lost()
    assert made.headers()["Last-Event-ID"] == b"7"
    made.opened(URL, 200, STREAM)
    assert [message.id for message in made.feed(b"data: b\n\n")] == ["7"]
    made.lost()
    assert made.headers()["Last-Event-ID"] == b"7"


def test_an_unfinished_event_neither_fires_nor_counts() -> None:
    made = open_reader("6")
    assert made.feed(b"id: 7\ndata: half") == []
    made.lost()
    assert made.headers()["Last-Event-ID"] == b"6"
    made.opened(URL, 200, STREAM)
    assert [message.data for message in made.feed(b"data: whole\n\n")] == ["whole"]


def test_an_empty_id_takes_the_header_away() -> None:
    made = open_reader("6")
    made.feed(b"id\n\n")
    made.lost()
    assert "Last-Event-ID" not in made.headers()


def test_a_byte_order_mark_is_stripped_from_each_stream() -> None:
    made = open_reader("6")
    for _ in range(2):
        assert [message.data for message in made.feed(b"\xef\xbb\xbfdata: a\n\n")] == ["a"]
        made.lost()
        made.opened(URL, 200, STREAM)


def test_after_a_stream_the_wait_is_the_reconnection_time() -> None:
    made = open_reader()
    assert made.lost() == RECONNECTION_SECONDS
    made.opened(URL, 200, STREAM)
    made.feed(b"retry: 1500\n\n")
    assert made.lost() == 1.5


def test_the_reconnection_time_holds_for_the_streams_after() -> None:
    made = open_reader()
    made.feed(b"retry: 1500\n\n")
    made.lost()
    made.opened(URL, 200, STREAM)
    assert made.lost() == 1.5


def test_failures_in_a_row_double_the_wait_up_to_a_bound() -> None:
    made = reader()
    assert [made.lost() for _ in range(7)] == [3, 6, 12, 24, 48, MAX_WAIT_SECONDS, MAX_WAIT_SECONDS]


def test_a_stream_ends_the_row_of_failures() -> None:
    made = reader()
    made.lost()
    made.lost()
    made.opened(URL, 200, STREAM)
    assert [made.lost(), made.lost(), made.lost()] == [3, 3, 6]


def test_endless_failures_do_not_overflow() -> None:
    made = reader()
    assert {made.lost() for _ in range(5000)} == {3, 6, 12, 24, 48, MAX_WAIT_SECONDS}


def test_a_reconnection_time_above_the_bound_of_failures_is_kept() -> None:
    made = open_reader()
    made.feed(b"retry: 120000\n\n")
    assert [made.lost(), made.lost(), made.lost()] == [120, 120, 120]


def test_no_reconnection_time_makes_a_loop_that_never_rests() -> None:
    made = open_reader()
    made.feed(b"retry: 0\n\n")
    assert made.lost() == MIN_WAIT_SECONDS


def test_a_reconnection_time_beyond_reason_is_a_day() -> None:
    made = open_reader()
    made.feed(b"retry: 999999999999999999\n\n")
    assert made.lost() == 86_400


def test_chance_adds_to_the_wait_and_never_takes_from_it() -> None:
    made = reader(chance=1.0)
    made.opened(URL, 200, STREAM)
    made.feed(b"retry: 1000\n\n")
    assert made.lost() == pytest.approx(1.3)
