"""Beginnings: the places at which streams begin."""

from __future__ import annotations

import pytest

from ssepool.core.beginning import Beginning, Found, echoed, newest_of_each
from ssepool.core.event import MADE_ID, Event
from ssepool.core.window import Window
from ssepool.errors import InvalidEvent


@pytest.mark.parametrize("position", [0, 7, 10**18])
def test_a_beginning_is_named_as_brokers_name_the_event_there(position: int) -> None:
    id = Beginning("00c0ffee", position).id
    assert id == Event("x").entry("00c0ffee", position).id
    assert MADE_ID.fullmatch(id)
    assert Window("00c0ffee", after=position, events=1, bytes=1, age=1).place(id) == Found(position, True)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("00c0ffee-3", "00c0ffee-3"),
        ("order-42", "order-42"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("earliest", None),
        ("latest", None),
        ("last=3", None),
        ("two words", None),
        ("a\ndata: forged", None),
        ("ü", None),
        ("", None),
    ],
)
def test_an_id_that_an_event_may_have_is_where_a_stream_begins(wanted: str, expected: str | None) -> None:
    assert echoed(wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("latest", 1),
        ("last=1", 1),
        ("last=20", 20),
        ("last=0", 0),
        ("last=999999999", 1000),
        ("last=", None),
        ("last=-1", None),
        ("last=2.0", None),
        ("last=\u0662", None),
        ("last=" + "9" * 100, None),
        ("earliest", None),
        ("newest", None),
        ("00c0ffee-1", None),
    ],
)
def test_the_newest_of_each_topic_are_asked_for_by_word(wanted: str, expected: int | None) -> None:
    assert newest_of_each(wanted) == expected


@pytest.mark.parametrize("id", ["earliest", "latest", "last=", "last=20", "last=word"])
def test_nobody_can_publish_what_asks_for_events(id: str) -> None:
    with pytest.raises(InvalidEvent, match="a client that resumes with it asks for what is kept"):
        Event("x", ("news",), id=id)
