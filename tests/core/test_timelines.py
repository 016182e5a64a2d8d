"""Timelines: which id names which place, whatever has become of the history meanwhile."""

from __future__ import annotations

import pytest

from ssepool.core.beginning import Found
from ssepool.core.timelines import MAX_TIMELINES, Timeline, Timelines

A, B, C, D = "0000000a", "0000000b", "0000000c", "0000000d"
HISTORY = Timelines(C, (Timeline(A, 10), Timeline(B, 20)))


@pytest.mark.parametrize(
    ("id", "found"),
    [
        (f"{A}-3", Found(3, True)),
        (f"{A}-10", Found(10, True)),
        (f"{A}-11", Found(10, False, True)),
        (f"{B}-11", Found(11, True)),
        (f"{B}-3", Found(3, True)),  # it knew what was before it
        (f"{B}-21", Found(20, False, True)),
        (f"{C}-25", Found(25, True)),
        (f"{C}-31", None),  # not yet
        (f"{D}-3", None),
        ("mine", None),
        ("", None),
        (f"{C}-{'9' * 30}", None),
        (f"{C}-\u0661", None),
    ],
)
def test_an_id_of_a_name_before_is_a_place_up_to_where_that_ended(id: str, found: Found | None) -> None:
    assert HISTORY.place(id, 30) == found


@pytest.mark.parametrize(("position", "epoch"), [(1, A), (10, A), (11, B), (20, B), (21, C), (99, C)])
def test_an_event_keeps_the_name_under_which_it_was_published(position: int, epoch: str) -> None:
    assert HISTORY.epoch_at(position) == epoch


def test_a_history_goes_on_under_another_name() -> None:
    later = HISTORY.followed(D, 27)
    assert later == Timelines(D, (Timeline(A, 10), Timeline(B, 20), Timeline(C, 27)))
    assert later.place(f"{C}-28", 40) == Found(27, False, True)
    for number in range(2 * MAX_TIMELINES):
        later = later.followed(f"{number:08x}", 30 + number)
    assert len(later.before) == MAX_TIMELINES
    assert later.place(f"{A}-3", 1000) is None


def test_where_two_part_is_found_by_the_names_that_both_know() -> None:
    assert HISTORY.followed(D, 27).fork(HISTORY) == 27
    backup = Timelines(B, (Timeline(A, 10),))  # from before C began, with less than B had
    assert backup.followed(D, 15).fork(HISTORY) == 15
    assert Timelines(A).followed(D, 4).fork(HISTORY) == 4
    assert Timelines(D).fork(HISTORY) is None


def test_a_name_that_is_lost_is_known_up_to_where_the_two_part() -> None:
    restored = Timelines(B, (Timeline(A, 10),)).followed(D, 15).knowing(C, 15)
    assert restored.place(f"{C}-12", 40) == Found(12, True)
    assert restored.place(f"{C}-25", 40) == Found(15, False, True)
    assert [restored.epoch_at(position) for position in (10, 11, 15, 16)] == [A, B, B, D]
