"""A plain model of what a history keeps, and of what can be missed: `docs/design/history.md`, word for word."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ssepool.core.event import Entry, topic_set
from ssepool.core.rules import Rule, Rules
from ssepool.core.topics import Subscription
from ssepool.core.window import REMOVED_SECONDS
from ssepool.topic_rules import topic_rule

AGE = 100.0
"""Seconds for which what has no age of its own is kept."""


class Bounds(NamedTuple):
    events: float
    bytes: float
    default: Rule
    rules: tuple[str, ...]


@dataclass
class Held:
    entry: Entry
    at: float
    topics: set[str] = field(default_factory=set)
    """Those that hold it."""


class Model:
    """The rules, word for word as the documents have them: slowly."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.rules = Rules(bounds.default, map(topic_rule, bounds.rules))
        self.kept: dict[int, Held] = {}
        self.missed: list[Entry] = []

    def append(self, entries: list[Entry], now: float) -> None:
        for entry in entries:
            self._append(entry, now)

    def _append(self, entry: Entry, now: float) -> None:
        self.kept[entry.position] = Held(entry, now, set(entry.topics or ("",)))
        for other in list(self.kept.values()):
            same = (other.entry.key, topic_set(other.entry.topics)) == (entry.key, topic_set(entry.topics))
            if same and entry.key is not None and other.entry is not entry:
                del self.kept[other.entry.position]
        self._keep_rules(self.kept[entry.position])
        while len([one for one in self.kept.values() if not self._is_promised(one)]) > self.bounds.events:
            self._give_way(lambda held: [1.0 for _ in held], counted=True)
        if entry.position in self.kept and entry.size > self.bounds.bytes:
            self._drop(self.kept[entry.position])
        while self._bytes() > self.bounds.bytes:
            self._give_way(lambda held: [float(one.entry.size) for one in held], counted=False)

    def _bytes(self) -> int:
        return sum(one.entry.size for one in self.kept.values())

    def _line(self, topic: str, until: float = math.inf) -> list[Held]:
        return [one for one in self.kept.values() if topic in one.topics and one.entry.position <= until]

    def _keep_rules(self, new: Held) -> None:
        topics = list(dict.fromkeys(new.entry.topics or ("",)))
        for topic in topics:
            rule = self.rules.of(topic)
            line = self._line(topic, new.entry.position)
            while len(line) > rule.events or sum(one.entry.size for one in line) > rule.bytes:
                self._release(line.pop(0), topic)

    def _release(self, held: Held, topic: str) -> None:
        held.topics.discard(topic)
        if not held.topics:
            self._drop(held)

    def _drop(self, held: Held) -> None:
        entry = held.entry
        del self.kept[entry.position]
        if not (entry.topics and all(self.rules.of(topic).events == 0 for topic in entry.topics)):
            self.missed.append(entry)

    def _is_promised(self, held: Held) -> bool:
        return any(self.rules.of(topic).is_promise for topic in held.entry.topics)

    def _give_way(self, weights: Any, *, counted: bool) -> None:
        lines = {topic: self._line(topic) for topic in {topic for one in self.kept.values() for topic in one.topics}}
        several = {
            topic: (sum(weights(line)), -line[0].entry.position)
            for topic, line in lines.items()
            if len(line) > 1 and not (counted and self.rules.of(topic).is_promise)
        }
        if several:
            topic = max(several, key=lambda one: several[one])
            self._release(lines[topic][0], topic)
        else:
            self._drop(next(one for one in self.kept.values() if not (counted and self._is_promised(one))))

    def expire(self, now: float) -> None:
        for held in list(self.kept.values()):
            if held.entry.removed and held.at <= now - REMOVED_SECONDS:
                self._drop(held)
        for held in list(self.kept.values()):
            for topic in set(held.topics):
                age = self.rules.of(topic).age
                if held.at <= now - (AGE if age is None else age):
                    self._release(held, topic)

    def lost(self, subscription: Subscription, after: int) -> int:
        return max(
            (
                entry.position
                for entry in self.missed
                if entry.position > after and subscription.matches(entry.topics, entry.private)
            ),
            default=0,
        )
