"""Matcher: which events belong to a subscription, remembered by topic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from weakref import WeakValueDictionary

from ssepool.core.topics import Subscription

MAX_KNOWN_TOPICS = 1024
"""Topics that one matcher remembers."""


class Matcher:
    """Answers as `Subscription.matches` does, but runs the patterns once for each topic.

    `of` gives all that look at events for equal subscriptions at the same time the same one: when a crowd comes back,
    one of them pays for all.
    """

    __slots__ = ("__weakref__", "_known", "_subscription")

    _alive: ClassVar[WeakValueDictionary[Subscription, Matcher]] = WeakValueDictionary()

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._known: dict[str, bool] = {}

    @classmethod
    def of(cls, subscription: Subscription) -> Matcher:
        """The one matcher of all equal subscriptions, for as long as somebody has it."""
        matcher = cls._alive.get(subscription)
        if matcher is None:
            matcher = cls._alive[subscription] = cls(subscription)
        return matcher

    def matches(self, topics: Iterable[str], private: bool) -> bool:
        """Whether an event of these topics, private or not, belongs to the subscription."""
        if private and not self._subscription.private:
            return False
        known = self._known
        for topic in topics:
            found = known.get(topic)
            if found is None:
                if len(known) >= MAX_KNOWN_TOPICS:
                    del known[next(iter(known))]
                found = known[topic] = self._subscription.matches((topic,), False)
            if found:
                return True
        return False
