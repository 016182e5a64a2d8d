"""The window against a plain model of the rules: what it keeps, what it has dropped, and who has missed something."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeping import AGE, Bounds, Model
from ssepool.core import cuts
from ssepool.core.event import Entry
from ssepool.core.kept import Absent
from ssepool.core.rules import Rule
from ssepool.core.topics import Subscription
from ssepool.core.window import Window

TOPICS = ("a", "b", "c", "live", "d/1", "d/2")
RULES = ("live events=0", "d/* events=3 age=50", "c bytes=1500", "b age=400")

EVENTS = st.tuples(
    st.lists(st.sampled_from(TOPICS), max_size=3).map(tuple),
    st.integers(0, 300),
    st.booleans(),
    st.sampled_from([None, None, "k", "l"]),
    st.booleans(),
)
STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(EVENTS, min_size=1, max_size=6)),
    st.tuples(st.just("pass"), st.sampled_from([0, 1, 30, 60, 90_000])),
    st.tuples(st.just("look"), st.sampled_from(TOPICS)),
)
BOUNDS = st.builds(
    Bounds,
    st.sampled_from([0, 1, 4, 8, math.inf]),
    st.sampled_from([0, 700, 3000, 6000, math.inf]),
    st.sampled_from([Rule(), Rule(events=2), Rule(bytes=1300), Rule(age=70.0)]),
    st.sampled_from([(), RULES, RULES[:1], RULES[1:2]]),
)
SUBSCRIPTIONS = [
    Subscription.of(["a"]),
    Subscription.of(["b", "d/1"], private=True),
    Subscription.of(["live"], private=True),
    Subscription.of((), ["d/*"]),
    Subscription.of(["c"], ["*"], private=True),
    Subscription.of(["nobody's"]),
]


def entry_of(position: int, what: Any) -> Entry:
    topics, size, private, key, removed = what
    return Entry(
        position,
        f"0000000a-{position}",
        topics,
        b"x" * size,
        private,
        key if topics else None,
        removed and key is not None and bool(topics),
    )


@pytest.fixture(autouse=True, scope="module")
def _cuts_for_ever() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "CUT_SECONDS", math.inf)
        yield


@pytest.mark.parametrize("at_hand", [math.inf, 1500, 1])
@settings(deadline=None)
@given(bounds=BOUNDS, steps=st.lists(STEPS, max_size=25))
def test_the_window_keeps_what_the_rules_say(at_hand: float, bounds: Bounds, steps: list[tuple[str, Any]]) -> None:
    model = Model(bounds)
    window = Window("0000000a", events=bounds.events, bytes=bounds.bytes, age=AGE, rules=model.rules, at_hand=at_hand)
    window.cuts = type(window.cuts)()
    window._lines._cuts = window.cuts
    now = 0.0
    for step, what in steps:
        if step == "append":
            entries = [entry_of(window.newest + 1 + place, one) for place, one in enumerate(what)]
            window.append(entries, now)
            model.append(entries, now)
        elif step == "pass":
            now += what
            window.expire(now)
            model.expire(now)
        else:
            window.select([what], after=0, until=window.newest, max_entries=10)
        _compare(window, model)
    left = window.branched(window.timelines.followed("0000000b", window.newest // 2), window.newest // 2)
    kept = [position for position in model.kept if position <= window.newest // 2]
    assert [one.position for one in left.read(0, max_entries=10_000)] == kept
    assert left.kept == (len(kept), sum(model.kept[position].entry.size for position in kept))


def _compare(window: Window, model: Model) -> None:
    kept = window.read(0, max_entries=10_000)
    assert [one.position for one in kept] == list(model.kept)
    assert window.kept == (len(model.kept), sum(held.entry.size for held in model.kept.values()))
    assert window.oldest == min(model.kept, default=window.newest + 1) - 1
    for one in kept:
        assert isinstance(one, Absent) or one is model.kept[one.position].entry
        assert (one.topics, one.size) == (model.kept[one.position].entry.topics, model.kept[one.position].entry.size)
    for topic in TOPICS:
        expected = [position for position, held in model.kept.items() if topic in held.entry.topics]
        found, reached = window.select([topic], after=0, until=window.newest, max_entries=10_000)
        assert ([one.position for one in found], reached) == (expected, window.newest)
        assert [one.position for one in window.back(topic, until=window.newest)] == expected[::-1]
    assert [one.position for one in window.back(None, until=window.newest)] == list(model.kept)[::-1]
    assert len(model.kept) + sum(window.dropped.values()) == window.newest
    assert window.topics == len({topic for held in model.kept.values() for topic in held.entry.topics})
    for subscription in SUBSCRIPTIONS:
        for after in range(window.newest + 1):
            assert window.lost(subscription, after) == model.lost(subscription, after)
