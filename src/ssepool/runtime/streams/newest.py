"""Newest: what a client is given that begins with the newest events of its topics, before it follows what is live."""

from __future__ import annotations

from collections.abc import Iterator

from ssepool.core.beginning import Beginning
from ssepool.core.event import Entry
from ssepool.core.feed import JOIN_BYTES, joined
from ssepool.core.kept import Kept
from ssepool.core.matcher import Matcher
from ssepool.core.topics import Subscription
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.streams.link import Link
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.replay import Replay
from ssepool.runtime.streams.slices import Slice
from ssepool.runtime.tasks import Tasks

MAX_EVENTS = 5000
"""Events that one client is given at most, of all its topics together."""

MAX_LOOKED_AT = 20_000
"""Events that are looked at for one client at most: private ones are passed over, and for patterns all others."""

STEP_ENTRIES = 16
"""Entries between two looks at the clock."""


class Newest:
    """The newest of each topic among the events that the log has in memory, in order, and then a `Replay` from the
    place where the search began.

    Only positions are kept meanwhile: what is dropped before the client has room for it is not held for its sake, and
    not sent. With patterns it is the newest of all that the client wants, not of each topic.
    """

    __slots__ = ("_beginning", "_each", "_feeds", "_left", "_log", "_subscription", "_tasks", "taken", "waiting")

    def __init__(self, log: EventLog, feeds: Feeds, tasks: Tasks, subscription: Subscription, each: int) -> None:
        """`each` events of each topic."""
        self._log = log
        self._feeds = feeds
        self._tasks = tasks
        self._subscription = subscription
        self._each = each
        self._beginning = Beginning(log.window.epoch, log.position)
        self._left: list[int] = []
        """The positions that are still to be sent, the first one last."""
        self.waiting = True
        """Whether they are still looked for; the link is flushed when they have been found."""
        self.taken = 0
        """Events in the page returned last."""

    def begin(self, link: Link) -> None:
        """Look for them, in slices."""
        self._tasks.start(self._look(link))

    def next(self, link: Link) -> bytes:
        """The next page. With the last one the link goes on with what has come since."""
        self.taken = 0
        if self.waiting:
            return b""
        window, page, size = self._log.window, [], 0
        is_lost = window.epoch != self._beginning.epoch
        while self._left and size < JOIN_BYTES and not is_lost:
            entry = window.at(self._left.pop())
            if isinstance(entry, Entry):
                page.append(entry)
                size += len(entry.chunk)
        if is_lost or not self._left:
            wanted = self._beginning.id
            link.replay = replay = Replay(self._log, self._feeds, self._tasks, self._subscription, wanted=wanted)
            replay.begin(link)
        self.taken = len(page)
        return joined(page, link.chunked)

    async def _look(self, link: Link) -> None:
        found = await self._found(Slice(link.context.now))
        if link.replay is not self:
            return
        self._left = sorted(found, reverse=True)
        self.waiting = False
        if not found and self._log.window.epoch == self._beginning.epoch:
            link.push(link.dialect.empty(self._beginning.id))
        link.flush()

    async def _found(self, step: Slice) -> set[int]:
        window, subscription = self._log.window, self._subscription
        matches = Matcher.of(subscription).matches if subscription.patterns else subscription.matches
        most = MAX_EVENTS // max(1, 0 if subscription.patterns else len(subscription.topics))
        found: set[int] = set()
        looked_at = 0
        while not (subscription.patterns or window.is_indexed):
            window.index()
            if step.is_over:
                await step.pause()
        for entries in self._ways_back():
            left = min(self._each, most)
            while left and looked_at < MAX_LOOKED_AT and (entry := next(entries, None)) is not None:
                looked_at += 1
                if not entry.removed and matches(entry.topics, entry.private):
                    found.add(entry.position)
                    left -= 1
                if looked_at % STEP_ENTRIES == 0 and step.is_over:
                    await step.pause()
        return found

    def _ways_back(self) -> list[Iterator[Kept]]:
        window, until = self._log.window, self._beginning.position
        topics = (None,) if self._subscription.patterns else sorted(self._subscription.topics)
        return [window.back(topic, until=until) for topic in topics]
