"""EventLog: what a hub has of the broker's order: publishing to it, and finding a client's place in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from ssepool import clock
from ssepool.brokers.base import PAGE_PLACES, Broker, Stored
from ssepool.brokers.group import GroupCommit
from ssepool.brokers.record import records
from ssepool.core.beginning import Found
from ssepool.core.event import EARLIEST, MADE_ID, Entry, Event
from ssepool.core.timelines import Timelines
from ssepool.core.topics import Subscription
from ssepool.core.window import Window
from ssepool.runtime.streams.follower import CHECK_SECONDS, Follower, Missed
from ssepool.runtime.streams.slices import Slice

MAX_FETCHES = 16
"""Pages of the history that are fetched from the broker at a time."""

UNKNOWN = Found(0, False)
"""Where a client goes on whose id nobody knows: at the beginning."""

Matches = Callable[[tuple[str, ...], bool], bool]
"""Whether events of these topics, private or not, belong to a subscription."""


class EventLog(Follower):
    """A follower of the broker that also publishes, and finds where clients go on."""

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[Sequence[Entry]], None],
        lost: Callable[[Missed], None],
        room: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        wall_clock: Callable[[], float] = clock.wall_clock,
    ) -> None:
        """As `Follower`."""
        super().__init__(broker, deliver, lost, room, now, wall_clock)
        self.fetching = asyncio.Semaphore(MAX_FETCHES)
        """Bounds the pages that are fetched at a time."""
        self._group = GroupCommit(broker)

    async def close(self) -> None:
        """Follow no more, and let the broker go."""
        await self._unfollow()
        await self._group.close()
        await self.broker.close()

    # Publishing.

    async def publish(self, events: Sequence[Event]) -> list[str]:
        """Store a batch, all or nothing, and return the ids. Raises `InvalidEvent` and `BrokerError`."""
        if self._instant is not None:
            await self._settled()  # what waits to be delivered is one batch, however many publish
            ids = self._instant.append_nowait(events)
            await self._settled()
            return ids
        return [stored.id for stored in await self._group.append(events)]

    async def store(self, events: Sequence[Event]) -> list[Stored]:
        """As `publish`, and returns the positions too."""
        if self._instant is not None:
            await self._settled()
            places = await self._instant.append(records(events, self.config.max_event_size))
            await self._settled()
            return places
        return await self._group.append(events)

    def publish_nowait(self, events: Sequence[Event]) -> list[str]:
        """As `publish`, at once. Raises `NotImplementedError` if the broker is not in this process."""
        if self._instant is not None:
            return self._instant.append_nowait(events)
        scheme = self.broker.url.partition(":")[0]
        raise NotImplementedError(f"a broker of the kind {scheme}:// cannot publish without waiting; use publish()")

    # Reading.

    def find(self, id: str, subscription: Subscription) -> Found | None:
        """Where a client with this subscription goes on that has all up to this id; None if it has to be asked for.

        Publishers may choose the same id for events of other topics: only one that the client may have had counts, and
        of several the first, so that nothing is lost.
        """
        if id == EARLIEST:
            return Found(0, True)
        named = self._named(id, subscription)
        if len(named) > PAGE_PLACES:
            return None
        return self._found(id, self.window.first(named, subscription.matches), subscription)

    def _named(self, id: str, subscription: Subscription) -> Sequence[int]:
        return self.window.named(id, None if subscription.patterns else subscription.topics)

    def _found(self, id: str, chosen: int | None, subscription: Subscription) -> Found | None:
        """As `find`, when it is known which event at hand has the id as a chosen one."""
        found = self.window.place(id) if chosen is None else Found(chosen, True)
        if found is None and self._pending:
            return None  # it may be one of these
        is_ahead = found is not None and found.position > self.position
        if is_ahead and (self._pending or not self.complete):
            return None  # who joined the feeds now would get what it has had
        if chosen is not None and not self.complete and not self._is_first(subscription):
            return None
        return UNKNOWN if found is None and self.complete else found

    def _is_first(self, subscription: Subscription) -> bool:
        """Whether what the window has of a chosen id is the first that the client may have had, as far as that depends
        on publishers to other topics than all of the client's."""
        return self.window.is_whole or (len(subscription.topics) == 1 and not subscription.patterns)

    async def ask(self, id: str, subscription: Subscription) -> Found:
        """As `find`, by asking the broker; the log has come to that place then. Raises `BrokerError`."""
        if self._instant is not None:
            await self._settled()
            chosen = await self._first(self._named(id, subscription), subscription)
            while (found := self._found(id, chosen, subscription)) is None:
                await self._settled()
            return found
        if MADE_ID.fullmatch(id) and not id.startswith(self.window.epoch):
            await self._next_look()  # a name that began a moment ago, or of nobody
            if not id.startswith(self.window.epoch):
                return await self._come(self.window.place(id) or UNKNOWN, self.window)
        window = self.window
        async with self.fetching, self._in_time():
            position = await self.broker.find(id, subscription.matches)
        found = Found(position, True) if position is not None else await self._place_ahead(id)
        if found is None:
            return UNKNOWN
        return await self._come(found, window)

    async def _come(self, found: Found, window: Window) -> Found:
        """Wait until the log has come to a place that was found in this window: who joined the feeds before they are
        there would get what it has had."""
        if self.window is window:
            async with self._in_time():
                await self.reached(found.position)
        return found

    async def _next_look(self) -> None:
        """Wait for the next look at the broker, for a moment."""
        looks = self._looks
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CHECK_SECONDS):
                while looks == self._looks:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _place_ahead(self, id: str) -> Found | None:
        """The place of an id of the hub's making to which another node came before us; None if even the broker has not
        come there. What is kept of it does not matter: the event may have been dropped since."""
        if not MADE_ID.fullmatch(id):
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                while self.window.place(id) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        if (found := self.window.place(id)) is not None:
            return found
        await self._see()
        bounds = self.bounds
        return Timelines(bounds.epoch, bounds.timelines).place(id, bounds.newest)

    async def _first(self, places: Sequence[int], subscription: Subscription) -> int | None:
        """The first of many places that the client wants; other tasks get their turn meanwhile."""
        for start in range(0, len(places), PAGE_PLACES):
            found = self.window.first(places[start : start + PAGE_PLACES], subscription.matches)
            if found is not None:
                return found
            await asyncio.sleep(0)
        return None

    async def fetch(self, positions: Sequence[int]) -> Sequence[Entry]:
        """The first of the entries at these positions, from the broker, as far as it has them. Raises `BrokerError`."""
        async with self._in_time():
            return await self.broker.fetch(positions)

    async def indexed(self) -> Window:
        """The window, when it has looked at the topics of all that it keeps: in slices."""
        step = Slice(self._now)
        while not self.window.is_indexed:
            self.window.index()
            if step.is_over:
                await step.pause()
        return self.window

    def lost(self, subscription: Subscription, after: int, matches: Matches | None = None) -> int:
        """As `Window.lost`."""
        return self.window.lost(subscription, after, matches)
