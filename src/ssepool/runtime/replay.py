"""Replay: what one client missed, read from the broker in bounded pages, up to the exact place where live begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ssepool.brokers.base import Broker
from ssepool.config import KiB
from ssepool.core.topics import Subscription
from ssepool.runtime import frames

if TYPE_CHECKING:
    from ssepool.runtime.link import Link

SCAN = 1000
"""Entries looked through in one step: about a millisecond."""

PAGE_BYTES = 256 * KiB
"""A page ends when it has this much, so that one step writes about what a socket buffer takes."""


class Replay:
    """Goes through the broker's order from a position until it meets `newest()`, the last position handed to feeds.

    At that moment `join` puts the link on its feed. No step awaits between the comparison and the joining, and feeds
    get entries in the broker's order, so nothing is lost, doubled or out of order.
    """

    __slots__ = ("_broker", "_join", "_newest", "position", "subscription", "taken")

    def __init__(
        self,
        broker: Broker,
        subscription: Subscription,
        position: int,
        newest: Callable[[], int],
        join: Callable[[Link, Subscription], None],
    ) -> None:
        self._broker = broker
        self._newest = newest
        self._join = join
        self.subscription = subscription
        self.position = position
        self.taken = 0
        """Events in the page returned last."""

    def next(self, link: Link) -> bytes:
        """The next page; empty if this step found none, or if the link was joined to its feed (`link.replay` is None
        then)."""
        self.taken = 0
        newest = self._newest()
        if self.position >= newest:
            link.replay = None
            self._join(link, self.subscription)
            return b""
        if self.position < self._broker.oldest:
            # A client so slow that what it was to get next is kept no longer.
            self.position = self._broker.oldest
            entries = self._broker.read(self.position, most=1)
            link.push(frames.gap(None, entries[0].id if entries else None, "expired"))
            return b""
        matches = self.subscription.matches
        page: list[bytes] = []
        size = 0
        entries = self._broker.read(self.position, most=min(SCAN, newest - self.position))
        for entry in entries:
            self.position = entry.position
            if matches(entry.topics, entry.private):
                page.append(entry.frame)
                size += len(entry.frame)
                if size >= PAGE_BYTES:
                    break
        if not entries:  # nothing between here and `newest` is kept
            self.position = newest
        self.taken = len(page)
        return b"".join(page)
