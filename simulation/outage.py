"""Outage: the broker is away for a while. One node, its connections, and one real `Feed` that all of them share."""

from __future__ import annotations

from typing import Any

from simulation import costs
from ssepool.config import MiB
from ssepool.core.event import Entry
from ssepool.core.feed import Feed
from ssepool.core.topics import Subscription

SLICE_SECONDS = 0.002
"""How long delivery holds the loop at a time, as in `runtime/streams/delivery.py`."""

BACKLOG_BYTES = 4 * MiB
"""What may be appended to the feed and not yet offered to the connections, as in `runtime/streams/delivery.py`."""

CHUNK_CONNECTIONS = 50
"""Connections that are stepped over at once: all of them stand at one cursor."""


class Outage:
    """Publishers keep their events while the broker is away and send them all when it is back, as fast as they may.

    Delivery goes round the connections as `Delivery` does: what is published meanwhile joins in, and publishers wait
    while more than `BACKLOG_BYTES` is on its way. A write takes the core's time or the line's, whichever is longer.
    """

    def __init__(
        self,
        rate: float,
        *,
        connections: int = 20_000,
        size: int = 200,
        away: float = 30.0,
        begins: float = 5.0,
        line: float = 10e9 / 8,
    ) -> None:
        """`rate`: events a second that every connection gets; `size`: bytes of each; `line`: bytes a second."""
        self.rate, self.connections, self.line = rate, connections, line
        self.begins, self.ends = begins, begins + away
        self.frame = b"x" * size
        self.feed = Feed(Subscription.of(["all"]))
        self.cursors = [0] * (connections // CHUNK_CONNECTIONS)
        self.now = 0.0
        self.created = 0
        """Events that publishers have made so far; those beyond the feed's head wait with them."""
        self.held = self.kept = 0
        """The most events that publishers held, and the most bytes that the feed did."""
        self.sent = 0
        self.points: list[tuple[float, float]] = []
        """When a round ended, and how old the oldest event then was that it brought to the last connection."""
        self._backlog = 0

    def play(self, until: float = 80.0) -> dict[str, Any]:
        """Run to that time and say how it went."""
        while self.now < until:
            self._publish()
            if self.cursors[-1] < self.feed.head:
                self._round()
            else:
                self.now = max(self.now + SLICE_SECONDS, self._next())
        late = [when for when, age in self.points if when > self.ends and age > self.usual() * 1.5 + 0.05]
        return {
            "rate": self.rate,
            "held_events": self.held,
            "held_bytes": self.held * len(self.frame),
            "feed_bytes": self.kept,
            "usual_age": round(self.usual(), 3),
            "caught_up": round(max(late, default=self.ends) - self.ends, 2),
            "caught_up_bytes": self.held * len(self.frame) * self.connections,
            "points": [point for point in self.points if self.begins - 2 < point[0] < self.ends + 42],
        }

    def usual(self) -> float:
        """Seconds from an event to its last connection before the broker went away: the most of them."""
        return max((age for when, age in self.points if when < self.begins), default=0.0)

    def _next(self) -> float:
        """When the next event comes that the broker takes."""
        coming = (self.created + 1) / self.rate
        return self.ends if self.begins <= coming < self.ends else coming

    def _publish(self) -> None:
        self.created = int(self.now * self.rate)
        self.held = max(self.held, self.created - self.feed.head)
        if self.begins <= self.now < self.ends:
            return
        while self.feed.head < self.created and self._backlog <= BACKLOG_BYTES:
            self.feed.append(Entry(self.feed.head + 1, None, ("all",), self.frame), self.now)
            self._backlog += len(self.frame)
            self.now += costs.FED
        self.kept = max(self.kept, self.feed.size)

    def _round(self) -> None:
        """Visit every connection once. What is published meanwhile is for those that come later, and the next round."""
        slice_ends = self.now + SLICE_SECONDS
        reached, oldest = self.feed.head, self.cursors[-1] + 1
        for place, cursor in enumerate(self.cursors):
            while cursor < self.feed.head:
                data, read = self.feed.read(cursor)
                core = costs.DELIVERY + costs.JOINED * (read - cursor - 1)
                self.now += CHUNK_CONNECTIONS * max(core, len(data) / self.line)
                self.sent += CHUNK_CONNECTIONS * len(data)
                cursor = read
            self.cursors[place] = cursor
            if self.now >= slice_ends:
                self._publish()
                slice_ends = self.now + SLICE_SECONDS
        self.points.append((round(self.now, 3), round(self.now - oldest / self.rate, 3)))
        slowest = min(self.cursors)
        if slowest == self.feed.head:
            self.feed.clear()
            self._backlog = 0
        else:
            self.feed.trim(slowest, slowest, max_entries=10_000, max_bytes=16 * MiB)
        assert slowest >= reached
