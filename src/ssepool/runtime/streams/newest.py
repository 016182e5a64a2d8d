"""Newest: what a client is given that begins with the newest events of its topics, before it follows what is live."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from ssepool.core.beginning import Beginning
from ssepool.core.event import Entry
from ssepool.core.feed import JOIN_BYTES, joined
from ssepool.core.kept import Absent, Kept
from ssepool.core.matcher import Matcher
from ssepool.core.topics import Subscription
from ssepool.errors import BrokerError
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.streams.link import Link
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.replay import FETCH_BYTES, RETRY_SECONDS, Replay
from ssepool.runtime.streams.slices import Slice
from ssepool.runtime.tasks import Tasks

MAX_EVENTS = 5000
"""Events that one client is given at most, of all its topics together."""

MAX_LOOKED_AT = 20_000
"""Events that are looked at for one client at most: private ones are passed over, and for patterns all others."""

STEP_ENTRIES = 16
"""Entries between two looks at the clock."""


class Newest:
    """The newest of each topic among the events that are kept, in order, and then a `Replay` from the place where the
    search began.

    Only positions are kept meanwhile, and a page of what had to be fetched from the broker: what is dropped before the
    client has room for it is not held for its sake, and not sent. With patterns it is the newest of all that the client
    wants, not of each topic.
    """

    __slots__ = (
        "_beginning",
        "_each",
        "_feeds",
        "_left",
        "_log",
        "_page",
        "_subscription",
        "_tasks",
        "taken",
        "waiting",
    )

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
        self._page: deque[Entry] | None = None
        """What has been fetched and is to be sent before these."""
        self.waiting = True
        """Whether they are still looked for, or fetched; the link is flushed when they are there."""
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
        page, size = list[Entry](), 0
        while size < JOIN_BYTES and (entry := self._next()) is not None:
            page.append(entry)
            size += len(entry.chunk)
        if not page and self._left:
            self.waiting = True
            self._tasks.start(self._fetch(link, self._absent()))
        elif not (self._page or self._left):
            wanted = self._beginning.id
            link.replay = replay = Replay(self._log, self._feeds, self._tasks, self._subscription, wanted=wanted)
            replay.begin(link)
        self.taken = len(page)
        return joined(page, link.chunked)

    def _next(self) -> Entry | None:
        """The next one; None if there is none, or if it has to be fetched."""
        if self._page:
            return self._page.popleft()
        window, end = self._log.window, self._end()
        while self._left:
            entry = window.at(self._left[-1]) if self._left[-1] <= end else None
            if isinstance(entry, Absent):
                return None
            self._left.pop()
            if entry is not None:
                return entry
        return None

    def _end(self) -> int:
        """Up to where the positions still are of what was found: a broker may have come back with less."""
        timelines, begun = self._log.window.timelines, self._beginning
        return begun.position if timelines.epoch == begun.epoch else timelines.end_of(begun.epoch) or 0

    def _absent(self) -> list[int]:
        """The positions of the next ones that are not at hand, a page of them."""
        positions, size = list[int](), 0
        for position in reversed(self._left):
            entry = self._log.window.at(position)
            if not isinstance(entry, Absent) or (size and size + entry.size > FETCH_BYTES):
                break
            positions.append(position)
            size += entry.size
        return positions

    async def _fetch(self, link: Link, positions: Sequence[int]) -> None:
        log, left = self._log, self._left
        try:
            async with log.fetching:
                entries = await log.fetch(positions) if link.replay is self else ()
        except BrokerError:  # the log says so in its own words; the client stays, and gets them when the broker is back
            await asyncio.sleep(RETRY_SECONDS)
        else:
            last, end = entries[-1].position if entries else positions[-1], self._end()
            while left and left[-1] <= last:
                left.pop()
            self._page = deque(entry for entry in entries if entry.chunk and entry.position <= end)
        self.waiting = False
        link.flush()

    async def _look(self, link: Link) -> None:
        found = await self._found(Slice(link.context.now))
        if link.replay is not self:
            return
        self._left = sorted(found, reverse=True)
        self.waiting = False
        if not found and self._end() == self._beginning.position:
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
