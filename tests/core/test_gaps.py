"""When a gap is told: each sentence of docs/behaviour.md that promises something of what has been dropped."""

from __future__ import annotations

import pytest

from ssepool.core.cut import Cut
from ssepool.core.cuts import CUT_SECONDS, MAX_CUTS, MAX_RECENT, MAX_RECENT_TOPICS
from ssepool.core.event import Entry
from ssepool.core.rules import Rules
from ssepool.core.topics import Subscription
from ssepool.core.window import REMOVED_SECONDS, Window
from ssepool.topic_rules import topic_rule

DAY = 86_400.0
A, B, NOBODYS = Subscription.of(["a"]), Subscription.of(["b"]), Subscription.of(["nobody's"])
ANY_B = Subscription.of((), ["b*"])


def window_of(*rules: str, events: float = 10**6, at_hand: float = 10**9, age: float = 100 * DAY) -> Window:
    rules_ = Rules(rules=map(topic_rule, rules))
    return Window("0000000a", events=events, bytes=10**9, age=age, rules=rules_, at_hand=at_hand)


def put(window: Window, *topics: str, now: float = 0.0, key: str | None = None, id: str | None = None) -> int:
    """Publish an event (a tombstone if its key begins with a minus)."""
    position = window.newest + 1
    removed = key is not None and key.startswith("-")
    name = key.lstrip("-") if key else None
    chosen = id or f"0000000a-{position}"
    window.append([Entry(position, chosen, topics, b"x", key=name, removed=removed)], now)
    return position


def test_of_exact_topics_only_what_they_had_themselves_is_told() -> None:
    window = window_of("a events=1")
    first = put(window, "a")
    put(window, "b")
    put(window, "a")
    assert [window.lost(A, place) for place in range(3)] == [first, 0, 0]
    assert not window.lost(B, 0)
    assert not window.lost(NOBODYS, 0)


def test_what_is_forgotten_after_a_day_is_told_to_all_from_before() -> None:
    assert CUT_SECONDS == DAY
    window = window_of("b age=10")
    gone = put(window, "b")
    put(window, "a")
    window.expire(10.0)
    assert [bool(window.lost(one, 0)) for one in (A, B)] == [False, True]
    window.expire(10.0 + DAY - 1)
    assert [bool(window.lost(one, 0)) for one in (A, B)] == [False, True]
    window.expire(10.0 + DAY)
    assert [window.lost(one, 0) for one in (A, B, NOBODYS)] == [gone] * 3
    assert [window.lost(one, gone) for one in (A, B, NOBODYS)] == [0] * 3


@pytest.mark.parametrize(
    ("bytes", "most"), [(10**12, MAX_CUTS), (400 * 10**6, MAX_CUTS), (40 * 10**6, 10_000), (0, 100)]
)
def test_so_many_topics_are_remembered(bytes: float, most: int) -> None:
    window = Window("0000000a", events=1, bytes=bytes, age=1.0)
    for position in range(1, most + 2):
        window.cuts.put(f"t{position}", Cut(position), 0.0)
    assert (len(window.cuts), window.cuts.floor) == (most, 1)


def test_patterns_are_told_when_more_than_a_thousand_others_went() -> None:
    assert MAX_RECENT == 1000
    window = window_of("c events=1")
    put(window, "b")
    for _ in range(MAX_RECENT + 1):
        put(window, "c")
    assert not window.lost(ANY_B, 0)  # one is there still
    put(window, "c")
    assert [window.lost(ANY_B, place) for place in (1, 2)] == [2, 0]
    assert not window.lost(B, 0)


def test_patterns_are_told_of_an_event_of_more_than_ten_topics() -> None:
    assert MAX_RECENT_TOPICS == 10
    many = [f"c{number}" for number in range(11)]
    for topics, told in ((many[:10], False), (many, True)):
        window = window_of("c* events=1")
        put(window, *topics)
        put(window, *topics)
        assert bool(window.lost(ANY_B, 0)) is told
        assert not window.lost(ANY_B, 1)
        assert not window.lost(B, 0)


def test_patterns_are_told_of_whatever_went_before_their_node_began() -> None:
    window = window_of()
    window.cuts.load([("c", Cut(5))], 0.0)
    assert [window.lost(ANY_B, place) for place in (4, 5)] == [5, 0]
    assert not window.lost(B, 0)
    left = window_of("c events=1")
    put(left, "c")
    put(left, "c")
    put(left, "b")
    left = left.branched(left.timelines.followed("0000000b", 2), 2)
    assert [left.lost(Subscription.of((), ["c*"]), place) for place in (0, 1)] == [1, 0]  # it cannot know better
    assert [left.lost(ANY_B, place) for place in (0, 1)] == [1, 0]
    assert not left.lost(B, 0)


def test_of_live_only_topics_nobody_is_told() -> None:
    window = window_of("live events=0")
    put(window, "live")
    assert not window.lost(Subscription.of(["live"], ["l*"]), 0)


def test_what_was_replaced_is_not_missed_and_a_tombstone_that_goes_is() -> None:
    window = window_of()
    put(window, "a", key="row")
    put(window, "a", key="row")
    gone = put(window, "a", key="-row")
    put(window, "b")
    assert not window.lost(A, 0)
    window.expire(REMOVED_SECONDS - 1)
    assert not window.lost(A, 0)
    assert REMOVED_SECONDS == DAY
    window.expire(REMOVED_SECONDS)
    assert [window.lost(A, place) for place in (0, gone - 1, gone)] == [gone, gone, 0]
    assert not window.lost(B, 0)


def test_a_tombstone_that_is_replaced_is_not_missed() -> None:
    window = window_of()
    put(window, "a", key="-row")
    put(window, "a", key="row")
    window.expire(2 * REMOVED_SECONDS)
    assert not window.lost(A, 0)
    assert window.kept.events == 1


def test_of_chosen_ids_that_were_dropped_the_last_thousand_are_known() -> None:
    window = window_of(events=1000)
    for number in range(3000):
        put(window, "a", id=f"order{number}")
    kept = window.kept.events
    known = [number for number in range(3000) if window.named(f"order{number}")]
    assert known == list(range(3000 - kept - 1000, 3000))


def test_no_more_of_them_than_are_kept() -> None:
    window = window_of(events=5)
    for number in range(100):
        put(window, "a", id=f"order{number}")
    assert len([number for number in range(100) if window.named(f"order{number}")]) <= 5 + 6


def test_a_chosen_id_that_was_not_at_hand_when_it_was_dropped_is_not_known() -> None:
    window = window_of(events=10, at_hand=2000)
    for number in range(30):
        put(window, "a", id=f"order{number}")
    known = [number for number in range(30) if window.named(f"order{number}")]
    assert known == list(range(30 - len(known), 30))
    assert 0 < len(known) < 10
