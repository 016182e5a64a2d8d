"""The window: what it selects by topic is what a look at every entry finds, whatever has been dropped."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.config import MiB
from ssepool.core.event import Entry, Event
from ssepool.core.window import STEP_ENTRIES, Window

TOPICS = ("a", "b", "c")


def window_of(*, after: int = 0, events: float = 1000, age: float = 1000.0) -> Window:
    return Window("0000000a", after=after, events=events, bytes=10**9, age=age)


def put(window: Window, *topics: tuple[str, ...], now: float = 0.0) -> None:
    first = window.newest + 1
    window.append(
        [Entry(first + n, f"0000000a-{first + n}", names, b"data: x\n\n") for n, names in enumerate(topics)], now
    )


def positions(found: tuple[list[Entry], int]) -> tuple[list[int], int]:
    return [entry.position for entry in found[0]], found[1]


def test_a_topics_entries_are_found_without_the_others() -> None:
    window = window_of()
    put(window, ("a",), ("b",), ("a", "b"), ("c",), ("a",))
    assert positions(window.select({"a"}, after=0, until=5, max_entries=10)) == ([1, 3, 5], 5)
    assert positions(window.select({"b", "c"}, after=0, until=5, max_entries=10)) == ([2, 3, 4], 5)
    assert positions(window.select({"nobody's"}, after=2, until=5, max_entries=10)) == ([], 5)


def test_a_page_says_how_far_it_has_looked() -> None:
    window = window_of()
    put(window, *[("a",), ("b",)] * 5)
    assert positions(window.select({"a"}, after=0, until=10, max_entries=2)) == ([1, 3], 3)
    assert positions(window.select({"a"}, after=3, until=10, max_entries=2)) == ([5, 7], 7)
    assert positions(window.select({"a"}, after=7, until=10, max_entries=2)) == ([9], 10)
    assert positions(window.select({"a"}, after=0, until=4, max_entries=10)) == ([1, 3], 4)
    assert positions(window.select({"a"}, after=0, until=4, max_entries=3)) == ([1, 3], 4)


def test_an_event_may_name_a_topic_twice() -> None:
    window = window_of(events=1)
    put(window, ("a", "a"), ("b",), ("b",))
    assert positions(window.select({"a"}, after=2, until=3, max_entries=10)) == ([], 3)


def test_topics_are_forgotten_with_their_entries() -> None:
    window = window_of(events=10)
    for number in range(1000):
        put(window, (f"t{number}", "always"))
        window.select({"always"}, after=window.oldest, until=window.newest, max_entries=1)
    assert len(window.names(0)[0]) == 11
    assert len(window._lines) == 11


def test_a_topic_that_is_published_to_again_and_again_leaves_no_positions() -> None:
    window = window_of(events=10)
    for _ in range(1000):
        put(window, ("noisy",), ("noisy", "quiet"))
    line = window._lines._lines["noisy"]
    assert len(line.positions) < 50  # type: ignore[union-attr]


def test_what_nobody_asks_for_is_not_indexed() -> None:
    window = window_of()
    for number in range(100):
        put(window, (f"t{number}",))
    assert not window._lines
    assert positions(window.select({"t95"}, after=90, until=100, max_entries=5)) == ([96], 100)


def test_a_long_history_is_indexed_step_by_step() -> None:
    window = window_of(events=10 * STEP_ENTRIES)
    put(window, *[("a",)] * (2 * STEP_ENTRIES + 5))
    after, found = 0, 0
    for step in (STEP_ENTRIES, 2 * STEP_ENTRIES, 2 * STEP_ENTRIES + 5):
        entries, after = window.select({"a", "b"}, after=after, until=window.newest, max_entries=10 * STEP_ENTRIES)
        found += len(entries)
        assert (found, after) == (step, step)


@pytest.mark.parametrize("max_entries", [1, 3, 1000])
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3).map(tuple), max_size=40),
            st.integers(0, 8),
        ),
        max_size=20,
    ),
    wanted=st.sets(st.sampled_from(TOPICS), min_size=1),
)
def test_what_is_selected_is_what_a_look_at_all_finds(max_entries: int, steps: list[Any], wanted: set[str]) -> None:
    window, now = window_of(after=7, events=50, age=20), 0.0
    for topics, seconds in steps:
        now += seconds
        window.expire(now)
        put(window, *topics, now=now)
        for after in range(window.oldest, window.newest + 1):
            everything = window.read(after, max_entries=10_000)
            expected = [entry for entry in everything if wanted & set(entry.topics)]
            found, reached = window.select(wanted, after=after, until=window.newest, max_entries=max_entries)
            assert found == expected[:max_entries]
            assert reached == (found[-1].position if len(found) == max_entries else window.newest)


# What it takes.


def held(events: int, topics: int, *, bytes: float, indexed: bool, data: str = "") -> tuple[int, int]:
    """Bytes of memory that a window has after so many events of so many topics, and what it says that it has."""
    gc.collect()
    tracemalloc.start()
    try:
        window = Window("0000000a", events=10**9, bytes=bytes, age=1e9)
        for place in range(1, events + 1):
            names = tuple(f"orders/{place}/{number}" for number in range(topics))
            window.append([Event(data, names).entry("0000000a", place)], float(place))
            if indexed and place % 200 == 0:
                window.select({"nobody's"}, after=0, until=place, max_entries=1)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], window.kept.bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(("events", "topics"), [(1000, 100), (20_000, 1), (15_000, 0), (3000, 3)])
def test_what_a_history_of_little_events_takes_is_what_its_bound_says(events: int, topics: int, indexed: bool) -> None:
    limit = 2 * MiB
    taken, said = held(events, topics, bytes=limit, indexed=indexed)
    assert said <= limit
    assert taken <= 1.2 * limit
    assert taken >= 0.3 * said  # it does not say far more either


@pytest.mark.parametrize("data", ["", "x" * 1000, "é" * 300])
@pytest.mark.parametrize("topics", [0, 1, 10, 100])
def test_the_size_of_an_entry_is_the_memory_that_it_takes(topics: int, data: str) -> None:
    taken, said = held(1000, topics, bytes=10**12, indexed=True, data=data)
    assert 0.6 * said <= taken <= 1.15 * said


def test_the_index_has_nothing_of_what_is_dropped() -> None:
    window = window_of(age=5)
    put(window, *[(f"t{number}",) for number in range(10)])
    window.select({"t0"}, after=0, until=10, max_entries=1)
    put(window, *[(f"u{number}",) for number in range(10)], now=5)  # and nobody asks
    window.expire(5)
    assert not window._lines
    assert window.kept.events == 10


def test_entries_without_topics_are_passed_over() -> None:
    window = window_of()
    put(window, (), ("a",), ())
    assert positions(window.select({"a"}, after=0, until=3, max_entries=10)) == ([2], 3)
