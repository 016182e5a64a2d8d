"""Feeds: the live feeds of a hub, by subscription, and which of them an event belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ssepool.core.chunk import chunk
from ssepool.core.event import Entry, encode
from ssepool.core.feed import Feed, Joins
from ssepool.core.frames import COMMENTS, DIALECT, Dialect
from ssepool.core.tally import MAX_TOPICS, Tally
from ssepool.core.topics import Subscription, TopicIndex, check_topic
from ssepool.runtime.streams.delivery import Delivery
from ssepool.runtime.streams.link import Link


class Feeds:
    """One feed for all connections of a subscription that have the hub's own events as events, and one for those that
    have them as comments; made with the first and dropped with the last."""

    def __init__(self, delivery: Delivery, now: Callable[[], float]) -> None:
        self._delivery = delivery
        self._now = now
        self._index: TopicIndex[Feed] = TopicIndex()
        self._feeds: dict[tuple[Subscription, bool], Feed] = {}
        self._joins = Joins()
        self.dispatched = 0
        """Entries given out so far, whether anybody wanted them or not."""
        self._tally = Tally(now())

    def dispatch(self, entries: Sequence[Entry]) -> None:
        """Give entries to the feeds that want them."""
        now = self._now()
        match, append = self._index.match, self._delivery.append
        if now >= self._tally.due:
            self._tally.mark(now, self.dispatched)
        note = self._tally.recent.append
        for entry in entries:
            note(entry.topics[:MAX_TOPICS])
            for feed in match(entry.topics, entry.private):
                append(feed, entry, now)
        self.dispatched += len(entries)

    def announce(self, topic: str, data: Any, *, type: str) -> None:
        """Send an event to the clients that listen now: without an id, kept nowhere. `type` may be the hub's own.

        Raises `InvalidTopic`.
        """
        if feeds := self.listeners(check_topic(topic)):
            text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
            self._give(feeds, (topic,), encode(text, type=type))

    def announce_loss(self, missed: Callable[[Subscription], object] | None = None) -> None:
        """Tell every client that is live, behind all that came before, that the broker has lost events: those whose
        subscription has `missed` some, if that is known."""
        for feed in list(self._feeds.values()):
            if missed is None or missed(feed.subscription):
                self._give([feed], (), feed.dialect.gap(None, None, "broker_lost"))

    def _give(self, feeds: Sequence[Feed], topics: tuple[str, ...], frame: bytes) -> None:
        entry, now = Entry(0, None, topics, chunk(frame)), self._now()
        for feed in feeds:
            self._delivery.append(feed, entry, now)

    def listeners(self, topic: str) -> list[Feed]:
        """The feeds that get what is published to a topic; empty if nobody listens."""
        return self._index.match((topic,), False)

    def __iter__(self) -> Iterator[Feed]:
        """All that are live now."""
        return iter(list(self._feeds.values()))

    def rates(self) -> dict[str, float]:
        """Events a second that are published to each topic, over the last minute."""
        return self._tally.rates(self._now(), self.dispatched)

    def named(self, topic: str) -> int:
        """Connections that have subscribed to a topic by its name."""
        return sum([len(feed.members) for feed in self._index.naming(topic)])

    def by_pattern(self, topic: str) -> int:
        """Connections that have not, and have a pattern that matches it."""
        naming = set(self._index.naming(topic))
        return sum([len(feed.members) for feed in self._index.match((topic,), False) if feed not in naming])

    def shared(self, subscription: Subscription, dialect: Dialect = DIALECT) -> Subscription:
        """An equal subscription, but the one object for all instead of one for each that was given with these words."""
        feed = self._feeds.get((subscription, dialect.own_events))
        if feed is None or (subscription.patterns and subscription.keys != feed.subscription.keys):
            return subscription
        return feed.subscription

    def join(self, link: Link, subscription: Subscription) -> None:
        """Let a link follow its feed from here on."""
        own_events = link.dialect.own_events
        feed = self._feeds.get((subscription, own_events))
        if feed is None:
            # What all of its connections are told has the one dialect or the other: only there it matters how.
            feed = Feed(subscription, self._joins, DIALECT if own_events else COMMENTS)
            self._feeds[subscription, own_events] = feed
            self._index.add(subscription, feed)
        link.follow(feed)

    def drop(self, feed: Feed) -> None:
        """A connection of this feed has gone: nobody needs it without any."""
        key = (feed.subscription, feed.dialect.own_events)
        if not feed.members and self._feeds.get(key) is feed:
            del self._feeds[key]
            self._index.discard(feed.subscription, feed)
            self._joins.let_go(feed)

    def relieve(self, oldest: int) -> None:
        """Bound what is held for lagging clients of entries up to a position; see `Delivery.relieve`."""
        self._delivery.relieve(self._feeds.values(), oldest)

    def __len__(self) -> int:
        return len(self._feeds)
