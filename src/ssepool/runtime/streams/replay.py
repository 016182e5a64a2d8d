"""Replay: what one client missed, in bounded pages, up to the exact place where live begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from ssepool.config import KiB
from ssepool.core.beginning import Found
from ssepool.core.event import EARLIEST, Entry
from ssepool.core.feed import joined
from ssepool.core.matcher import Matcher
from ssepool.core.topics import Subscription
from ssepool.errors import BrokerError
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.streams.link import Link
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.slices import Slice
from ssepool.runtime.tasks import Tasks

SCAN_ENTRIES = 1000
"""Entries taken from the window or the broker in one step; how many are looked through, the clock decides."""

STEP_ENTRIES = 16
"""Entries between two looks at the clock. To ask ten patterns about a topic takes some 100 us."""

NEAR_ENTRIES = 100
"""Entries that are looked through for the id at which delivery goes on behind a gap."""

PAGE_BYTES = 256 * KiB
"""A page ends when it has this much, so that one step writes about what a socket buffer takes."""

RETRY_SECONDS = 1.0
"""Seconds until a page that the broker did not give is asked for again."""


class Replay:
    """Goes through the order from a position until it meets the last position handed to the feeds.

    At that moment the link joins its feed. No step awaits between the comparison and the joining, and feeds get entries
    in the broker's order, so nothing is lost, doubled or out of order. What the log's window no longer has is fetched
    from the broker, a page at a time; where something is gone for good the client gets `ssepool.gap`.
    """

    __slots__ = (
        "_asking",
        "_epoch",
        "_feeds",
        "_log",
        "_matches",
        "_page",
        "_tasks",
        "position",
        "subscription",
        "taken",
        "wanted",
    )

    def __init__(
        self,
        log: EventLog,
        feeds: Feeds,
        tasks: Tasks,
        subscription: Subscription,
        *,
        after: int | None = None,
        wanted: str | None = None,
    ) -> None:
        """From a position, or from the event whose id the client `wanted`."""
        self._log = log
        self._feeds = feeds
        self._tasks = tasks
        self._epoch = log.window.epoch
        self._page: Sequence[Entry] | None = None
        """What has been fetched and not been looked through."""
        self._asking = False
        self._matches = Matcher.of(subscription).matches if subscription.patterns else subscription.matches
        self.subscription = subscription
        """What the client wants."""
        self.wanted = wanted
        """The id that the client came with, until delivery has begun behind it."""
        self.position = after
        """How far the order has been gone through; None until the client's place is known."""
        self.taken = 0
        """Events in the page returned last."""

    @property
    def waiting(self) -> bool:
        """Whether the broker has been asked and the link is flushed when it has answered."""
        return self._asking

    def next(self, link: Link) -> bytes:
        """The next page; empty if this step found none, if the broker has to be asked, or if the link was joined to
        its feed (`link.replay` is None then)."""
        self.taken = 0
        log = self._log
        if self._asking:
            return b""
        if self._epoch != log.window.epoch:  # what was to be replayed is lost; the new history is all there is
            self._epoch, self._page = log.window.epoch, None
            self.position = log.window.oldest if log.complete else log.bounds.oldest
            self._tell(link, "broker_lost")
            self.wanted = EARLIEST  # as in `_go_to`
            return b""
        assert self.position is not None
        if self._joined(link):
            return b""
        subscription = self.subscription
        step = Slice(link.context.now)
        if not self._page and not subscription.patterns and self.position >= log.window.oldest:
            self.wanted = None
            most = max(STEP_ENTRIES, SCAN_ENTRIES // len(subscription.topics))  # as many are looked up for each topic
            found = log.window.select(subscription.topics, after=self.position, until=log.position, max_entries=most)
            return self._matching(step, link.chunked, *found)
        entries = self._entries(link, min(SCAN_ENTRIES, log.position - self.position))
        return b"" if entries is None else self._matching(step, link.chunked, entries)

    def begin(self, link: Link) -> None:
        """Find the place where the client was. Where nothing has come since, the link is joined to its feed at once."""
        if self.position is not None:
            self._joined(link)
        elif found := self._log.find(self.wanted or EARLIEST, self.subscription):
            self._go_to(link, found)
        else:
            self._ask(link, self._find(link))

    def _go_to(self, link: Link, found: Found) -> None:
        self.position = found.position
        if not found.complete:
            self._tell(link, "unknown_id")
            self.wanted = EARLIEST  # what is there; the place where that begins is as old as our last look
        self._joined(link)

    def _joined(self, link: Link) -> bool:
        log = self._log
        if self.position is None or self.position < log.position or self._epoch != log.window.epoch:
            return False
        link.replay = None
        self._feeds.join(link, self.subscription)
        return True

    def _entries(self, link: Link, max_entries: int) -> Sequence[Entry] | None:
        """The entries to look through next; None if the broker has been asked, or the client told of a gap."""
        window, position = self._log.window, self.position
        assert position is not None
        if self._page:
            entries, self._page = self._page, None
        elif position < window.oldest and not self._log.complete:
            self._ask(link, self._fetch(link, position))
            return None
        else:
            entries = window.read(position, max_entries=max_entries)
            if entries and entries[-1].position > self._log.position:  # what the feeds have not is left for the feeds
                entries = [entry for entry in entries if entry.position <= self._log.position]
        first = entries[0].position if entries else self._log.position + 1
        if first > position + 1:  # what was to come next is kept no longer
            self.position = first - 1
            if self.wanted != EARLIEST:
                self._page = entries or None
                self._tell(link, "expired")
                return None
        self.wanted = None
        return entries

    def _matching(self, step: Slice, chunked: bool, entries: Sequence[Entry], reached: int | None = None) -> bytes:
        """The frames of those that the client wants, until a page is full or the time of this step is over; else all
        up to `reached` has been seen."""
        matches = self._matches
        page: list[Entry] = []
        size = 0
        for place, entry in enumerate(entries, 1):
            self.position = entry.position
            if matches(entry.topics, entry.private):
                page.append(entry)
                size += len(entry.chunk)
            if size >= PAGE_BYTES or (place % STEP_ENTRIES == 0 and step.is_over):
                self._page = entries[place:] if entry.position < self._log.window.oldest else None
                break
        else:
            self.position = reached if reached is not None else self.position
        self.taken = len(page)
        return joined(page, chunked)

    def _tell(self, link: Link, reason: str) -> None:
        """Send the client a gap. It says where delivery goes on, if that is known."""
        link.push(link.dialect.gap(self.wanted, self._resumed(), reason))
        self.wanted = None

    def _resumed(self) -> str | None:
        """The id of the next event for this client, if it is near: ids of other topics are none of its business."""
        window, position = self._log.window, self.position or 0
        following = self._page or ()
        if not following and (self._log.complete or position >= window.oldest):
            following = window.read(position, max_entries=NEAR_ENTRIES)
        matches = self._matches
        return next((entry.id for entry in following[:NEAR_ENTRIES] if matches(entry.topics, entry.private)), None)

    # What the broker is asked.

    def _ask(self, link: Link, question: Awaitable[None]) -> None:
        self._asking = True
        self._tasks.start(self._answer(link, question))

    async def _answer(self, link: Link, question: Awaitable[None]) -> None:
        try:
            await question
        except BrokerError:  # the log says so in its own words; the client stays, and gets it when the broker is back
            await asyncio.sleep(RETRY_SECONDS)
        self._asking = False
        if self.position is None and link.replay is self:
            self.begin(link)
        link.flush()

    async def _find(self, link: Link) -> None:
        found = await self._log.ask(self.wanted or EARLIEST, self.subscription)
        if link.replay is self:
            self._go_to(link, found)

    async def _fetch(self, link: Link, position: int) -> None:
        log = self._log
        epoch = self._epoch
        async with log.fetching:
            if link.replay is not self:
                return
            entries = await log.fetch(position, max_entries=SCAN_ENTRIES)
            if epoch == self._epoch == log.window.epoch:
                # Those that the broker has and our feeds have not are left for the feeds.
                self._page = [entry for entry in entries if entry.position <= log.position] or None
                if not self._page:  # all of it has gone meanwhile
                    self.position = max(position, log.window.oldest)
                    if self.wanted != EARLIEST:
                        self._tell(link, "expired")
