"""Rules: how much of each topic is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ssepool.config import HubConfig
from ssepool.core.topics import Pattern, check_topic
from ssepool.topic_rules import TopicRule, topic_rule

MAX_KNOWN_TOPICS = 4096
"""Topics whose rule is remembered, those that came first are forgotten first."""


class Rule(NamedTuple):
    """How much of one topic is kept."""

    events: float = math.inf
    """Events at most; 0: what is published is for who listens now, and nobody else misses it."""
    bytes: float = math.inf
    """Bytes of memory of the events at most: `Entry.size`."""
    age: float | None = None
    """Seconds for which an event is kept; None: as all others."""
    is_promise: bool = False
    """Whether a rule for this topic says how many events are kept: then the bound of all events does not count them."""

    @property
    def is_bound(self) -> bool:
        """Whether it drops anything when an event comes."""
        return self.events < math.inf or self.bytes < math.inf


ALL = Rule()
"""Of a topic everything is kept."""


class _TopicRule(NamedTuple):
    match: str | Pattern
    given: TopicRule

    @classmethod
    def of(cls, given: TopicRule) -> _TopicRule:
        if not given.is_pattern:
            return cls(check_topic(given.match), given)
        pattern = Pattern(given.match)
        pattern.compile()
        return cls(pattern, given)

    def matches(self, topic: str) -> bool:
        return topic == self.match if isinstance(self.match, str) else self.match.matches(topic)


class Rules:
    """Finds the rule of a topic: the first that matches, completed with what holds for all topics."""

    __slots__ = ("_known", "_rules", "ages", "default", "is_bound")

    def __init__(self, default: Rule = ALL, rules: Iterable[TopicRule] = ()) -> None:
        """What holds for all topics, and the rules for some, of which the first counts. Raises `InvalidTopic`."""
        self.default = default
        """What holds for topics without a rule of their own."""
        self._rules = [_TopicRule.of(rule) for rule in rules]
        self._known: dict[str, Rule] = {}
        self.is_bound = default.is_bound or bool(self._rules)
        """Whether what a topic has must be known whenever an event comes."""
        self.ages = default.age is not None or any(rule.given.age is not None for rule in self._rules)
        """Whether any topic has an age of its own."""

    @classmethod
    def from_config(cls, config: HubConfig) -> Rules:
        """The rules of these settings. Raises `InvalidTopic` for a pattern that is none."""
        events, bytes, age = config.topic_events, config.topic_bytes, config.topic_age
        default = Rule(math.inf if events is None else events, math.inf if bytes is None else bytes, age)
        return cls(default, map(topic_rule, config.topic_rules))

    def of(self, topic: str) -> Rule:
        """The rule of a topic."""
        if not self._rules:
            return self.default
        known = self._known.get(topic)
        if known is None:
            if len(self._known) >= MAX_KNOWN_TOPICS:
                del self._known[next(iter(self._known))]
            known = self._known[topic] = self._found(topic)
        return known

    def _found(self, topic: str) -> Rule:
        default = self.default
        for rule in self._rules:
            if rule.matches(topic):
                _, _, events, bytes, age = rule.given
                return Rule(
                    default.events if events is None else events,
                    default.bytes if bytes is None else bytes,
                    default.age if age is None else age,
                    events is not None,
                )
        return default

    def promise(self, topics: tuple[str, ...]) -> bool:
        """Whether a rule of one of these topics says how many events are kept."""
        return any(self.of(topic).is_promise for topic in topics)

    def is_live_only(self, topics: tuple[str, ...]) -> bool:
        """Whether an event of these topics is only for who listens now, so that nobody else misses it."""
        return bool(topics) and all(self.of(topic).events < 1 for topic in topics)
