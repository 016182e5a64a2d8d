"""Aging: what topics release when it is too old."""

from __future__ import annotations

from ssepool.core.aging import Aging
from ssepool.core.cuts import Cuts
from ssepool.core.event import Entry
from ssepool.core.kept import Kept
from ssepool.core.rules import Rule, Rules
from ssepool.core.topic_lines import TopicLines
from ssepool.topic_rules import topic_rule


class History:
    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}
        rules = Rules(Rule(age=100.0), [topic_rule("short age=10")])
        self.lines = TopicLines(rules, Cuts(), self.kept)
        self.aging = Aging(rules, 1000.0, self.lines)

    def come(self, at: float, *topics: str) -> None:
        position = len(self.kept) + 1
        entry = self.kept[position] = Entry(position, None, topics, b"x")
        self.lines.add(entry)
        self.aging.add(entry, at)


def test_each_topic_releases_what_is_too_old_by_its_own_rule() -> None:
    history = History()
    for at in (0.0, 5.0):
        history.come(at, "short")
        history.come(at, "long")
    assert list(history.aging.expire(9.9)) == []
    assert list(history.aging.expire(12.0)) == [1]
    assert list(history.aging.expire(15.0)) == [3]
    assert list(history.aging.expire(105.0)) == [2, 4]
    assert list(history.aging.expire(1e9)) == []


def test_an_event_of_several_topics_goes_with_the_last_of_them() -> None:
    history = History()
    history.come(0.0, "short", "long", "short")
    assert list(history.aging.expire(99.0)) == []
    assert list(history.aging.expire(100.0)) == [1]


def test_what_came_earlier_than_what_came_before_it_waits_for_that() -> None:
    history = History()
    history.come(8.0, "short")
    history.come(0.0, "short")
    assert list(history.aging.expire(12.0)) == []
    assert sorted(history.aging.expire(18.0)) == [1, 2]
