"""Aging: what topics hold for too long, where topics have ages of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ssepool.core.kept import Kept
from ssepool.core.rules import Rules
from ssepool.core.topic_lines import NO_TOPIC, TopicLines


class Aging:
    """Has each topic release what is older than its rule allows. Those of one age wait in the order in which they came,
    so nothing is looked through."""

    __slots__ = ("_age", "_lines", "_rules", "_waiting")

    def __init__(self, rules: Rules, age: float, lines: TopicLines) -> None:
        """`age` (seconds) holds where a rule says nothing; `lines` know which topic holds what."""
        self._rules = rules
        self._age = age
        self._lines = lines
        self._waiting: dict[float, deque[tuple[float, int, str]]] = {}

    def add(self, entry: Kept, at: float) -> None:
        """An event has come `at` this time (seconds)."""
        for topic in dict.fromkeys(entry.topics or NO_TOPIC):
            age = self._rules.of(topic).age
            age = self._age if age is None else age
            self._waiting.setdefault(age, deque()).append((at, entry.position, topic))

    def expire(self, now: float) -> Iterator[int]:
        """The positions of events that no topic holds any more; each is to be dropped before the next is asked for."""
        for age, waiting in self._waiting.items():
            while waiting and waiting[0][0] <= now - age:
                _, position, topic = waiting.popleft()
                if self._lines.release_until(topic, position):
                    yield position
