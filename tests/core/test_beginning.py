"""Beginnings: the places at which streams begin."""

from __future__ import annotations

import pytest

from ssepool.core.beginning import Beginning, echoed
from ssepool.core.event import MADE_ID, Event
from ssepool.core.window import Window


@pytest.mark.parametrize("position", [0, 7, 10**18])
def test_a_beginning_is_named_as_brokers_name_the_event_there(position: int) -> None:
    id = Beginning("00c0ffee", position).id
    assert id == Event("x").entry("00c0ffee", position).id
    assert MADE_ID.fullmatch(id)
    assert Window("00c0ffee", after=position, events=1, bytes=1, age=1).made(id) == position


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("00c0ffee-3", "00c0ffee-3"),
        ("order-42", "order-42"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("earliest", None),
        ("two words", None),
        ("a\ndata: forged", None),
        ("ü", None),
        ("", None),
    ],
)
def test_an_id_that_an_event_may_have_is_where_a_stream_begins(wanted: str, expected: str | None) -> None:
    assert echoed(wanted) == expected
