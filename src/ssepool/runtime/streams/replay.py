"""Replay: what one client missed, in bounded pages, up to the exact place where live begins."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence

from ssepool.config import KiB, MiB
from ssepool.core.beginning import Found
from ssepool.core.event import EARLIEST, Entry
from ssepool.core.feed import joined
from ssepool.core.kept import Absent, Kept
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

FETCH_BYTES = MiB
"""Bytes of memory of the entries that the broker is asked for in one step."""

RETRY_SECONDS = 1.0
"""Seconds until a page that the broker did not give is asked for again."""


class Replay:
    """Goes through the order from a position until it meets the last position handed to the feeds.

    At that moment the link joins its feed. No step awaits between the comparison and the joining, and feeds get entries
    in the broker's order, so nothing is lost, doubled or out of order. The log's window knows what is kept, and of what
    it does not have at hand a page at a time is fetched from the broker. If something has been dropped that the client
    would have had, it gets `ssepool.gap` before what comes next.
    """

    __slots__ = (
        "_asking",
        "_begins",
        "_begun",
        "_drops",
        "_epoch",
        "_feeds",
        "_fetched",
        "_log",
        "_matches",
        "_page",
        "_tasks",
        "_told",
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
        self._page: deque[tuple[int, Entry | None]] | None = None  # an empty one takes 760 bytes
        """What has been fetched and not been looked through; None where the broker has nothing any more."""
        self._fetched = 0
        """Up to here the page has all that the client wants, whatever is dropped meanwhile."""
        self._asking = False
        self._matches = Matcher.of(subscription).matches if subscription.patterns else subscription.matches
        self._begins = False
        """Whether the client takes what is there, and has had none of it."""
        self._begun = 0
        """What is removed up to here this client has never had: it began with what was there then."""
        self._told = 0
        """Of what was dropped up to here the client has been told, or need not be."""
        self._drops = log.window.cuts.drops
        """Events that had been dropped when it was last looked whether any of the client's were."""
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
        """The next page; empty if this step found none, if the client was told of a gap, if the broker has to be asked,
        or if the link was joined to its feed (`link.replay` is None then)."""
        self.taken = 0
        if self._asking or self._is_cut_off(link) or self._joined(link) or self._has_missed(link):
            return b""
        step = Slice(link.context.now)
        if self._page:
            return self._turned(step, link)
        return self._written(step, link, *self._following())

    def begin(self, link: Link) -> None:
        """Find the place where the client was. Where nothing has come since, the link is joined to its feed at once."""
        if self.position is not None:
            self._joined(link)
        elif found := self._log.find(self.wanted or EARLIEST, self.subscription):
            self._go_to(link, found)
        else:
            self._ask(link, self._find(link))

    def _go_to(self, link: Link, found: Found) -> None:
        self.position, self._epoch = found.position, self._log.window.epoch
        if self.wanted == EARLIEST or not found.complete:  # what is there is all there is
            self._told, self._begins = self._log.window.cuts.newest, True
        if self.wanted == EARLIEST:
            self._begun = self._log.position
        if not found.complete:
            self._tell(link, "broker_lost" if found.is_lost else "unknown_id")
        if not self._joined(link):
            self._skip(link)

    def _skip(self, link: Link) -> None:
        """Join at once where nothing is kept of what the client would have: what comes meanwhile is not kept either."""
        self._has_missed(link)
        entries, reached = self._following(STEP_ENTRIES)
        if not any(self._matches(entry.topics, entry.private) for entry in entries):
            self.position = reached
            self._joined(link)

    def _joined(self, link: Link) -> bool:
        log = self._log
        if self.position is None or self.position < log.position or self._epoch != log.window.epoch or self._page:
            return False
        link.replay = None
        self._feeds.join(link, self.subscription)
        return True

    # What is gone.

    def _is_cut_off(self, link: Link) -> bool:
        """Whether what was to be replayed is lost, and the client has been told: what is there is all there is."""
        window = self._log.window
        if window.epoch == self._epoch or self.position is None:
            return False
        end = window.timelines.end_of(self._epoch)
        self._epoch = window.epoch
        if end is not None and self.position <= end:
            return False
        self._page = None
        self._fetched = 0
        self.position, self._told, self._begun = end or 0, window.cuts.newest, 0
        self._tell(link, "broker_lost")
        return True

    def _has_missed(self, link: Link) -> bool:
        """Whether something that the client would have had has been dropped, and it has been told."""
        position = max(self.position or 0, self._fetched)
        cuts, before = self._log.window.cuts, self._drops
        self._drops = cuts.drops
        lost: int | None = self._log.lost(self.subscription, max(position, self._told), self._matches)
        if not lost and before != cuts.drops and position < self._told and not self._begins:
            # Of one topic the oldest goes first, but of another one something newer may have gone before.
            lost = cuts.dropped(before, position, self._matches)
            if lost is None:
                lost = self._log.lost(self.subscription, position, self._matches)
        if lost:
            self._told = max(self._told, lost)
            self._tell(link, "expired")
        return bool(lost)

    def _tell(self, link: Link, reason: str) -> None:
        """Send the client a gap. It says where delivery goes on, if that is known."""
        wanted = None if self.wanted == EARLIEST else self.wanted
        link.push(link.dialect.gap(wanted, self._resumed(), reason))
        self.wanted = None

    def _resumed(self) -> str | None:
        """The id of the next event for this client, if it is near: ids of other topics are none of its business."""
        if self._page:
            return next((entry.id for _, entry in self._page if entry is not None), None)
        entries, _ = self._following(NEAR_ENTRIES)
        found = next((one for one in entries if self._matches(one.topics, one.private)), None)
        return found.id if isinstance(found, Entry) else None

    # What comes next.

    def _following(self, most: int | None = None) -> tuple[Sequence[Kept], int]:
        """Entries that are kept behind the position, all that the client wants among them; and how far that goes."""
        entries, reached = self._kept(most)
        if (self.position or 0) < self._begun:
            entries = [entry for entry in entries if not entry.removed or entry.position > self._begun]
        return entries, reached

    def _kept(self, most: int | None) -> tuple[Sequence[Kept], int]:
        log, position, topics = self._log, self.position or 0, self.subscription.topics
        if self.subscription.patterns:
            entries = log.window.read(position, max_entries=most or SCAN_ENTRIES)
            if not entries or entries[-1].position > log.position:  # what the feeds have not is left for the feeds
                return [entry for entry in entries if entry.position <= log.position], log.position
            return entries, entries[-1].position
        most = most or max(STEP_ENTRIES, SCAN_ENTRIES // len(topics))  # as many are looked up for each topic
        return log.window.select(topics, after=position, until=log.position, max_entries=most)

    def _written(self, step: Slice, link: Link, entries: Sequence[Kept], reached: int) -> bytes:
        """The frames of those that the client wants, until a page is full, the time of this step is over or one is not
        at hand; else all up to `reached` has been seen."""
        matches, page, size = self._matches, list[Entry](), 0
        for place, entry in enumerate(entries, 1):
            if matches(entry.topics, entry.private):
                if entry.__class__ is Absent:
                    if page:
                        break
                    self._ask(link, self._fetch(link, self._absent(entries[place - 1 :])))
                    return b""
                page.append(entry)  # type: ignore[arg-type]
                size += len(entry.chunk)  # type: ignore[union-attr]
            self.position = entry.position
            if size >= PAGE_BYTES or (place % STEP_ENTRIES == 0 and step.is_over):
                break
        else:
            self.position = reached
            if not page:
                self._joined(link)
        return self._given(link, page)

    def _turned(self, step: Slice, link: Link) -> bytes:
        """The next of what has been fetched, as `_written`; or a gap where something has gone meanwhile."""
        page, size, left = list[Entry](), 0, self._page or deque()
        while left and left[0][1] is None and not page:
            self.position = left.popleft()[0]
            if not self._begins and (not left or left[0][1] is not None):
                self._tell(link, "expired")
                return b""
        while left and size < PAGE_BYTES and not (len(page) % STEP_ENTRIES == STEP_ENTRIES - 1 and step.is_over):
            position, entry = left[0]
            if entry is None:
                break
            left.popleft()
            self.position = position
            page.append(entry)
            size += len(entry.chunk)
        return self._given(link, page)

    def _given(self, link: Link, page: list[Entry]) -> bytes:
        if page:
            self.wanted, self._begins = None, False
        self.taken = len(page)
        return joined(page, link.chunked)

    def _absent(self, entries: Sequence[Kept]) -> list[int]:
        """The positions of the first of these that the client wants and that are not at hand, a page of them."""
        positions, size = list[int](), 0
        for entry in entries:
            if self._matches(entry.topics, entry.private):
                if not isinstance(entry, Absent) or (size and size + entry.size > FETCH_BYTES):
                    break
                positions.append(entry.position)
                size += entry.size
        return positions

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
        log, epoch, was_there = self._log, "", False
        while epoch != log.window.epoch:  # what was found under one name is no place under another
            epoch = log.window.epoch
            found = await log.ask(self.wanted or EARLIEST, self.subscription)
            if was_there and not found.complete:
                found = found._replace(is_lost=True)
            was_there = found.complete
        if link.replay is self:
            self._go_to(link, found)

    async def _fetch(self, link: Link, positions: Sequence[int]) -> None:
        log, epoch = self._log, self._epoch
        async with log.fetching:
            if link.replay is not self:
                return
            entries = await log.fetch(positions)
        if epoch != log.window.epoch:
            return
        found = {entry.position: entry for entry in entries if entry.chunk}
        last = entries[-1].position if entries else positions[-1]
        if all(position in found for position in positions if position <= last):
            self._fetched = last
        self._page = deque(
            (position, found.get(position))
            for position in positions
            if position <= last and (position in found or log.window.at(position) is not None)
        )
