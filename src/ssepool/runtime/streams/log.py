"""EventLog: what a hub has at hand of the broker's order, and how it keeps up with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import groupby

from ssepool.brokers.base import PAGE_PLACES, Bounds, Broker, InstantBroker, Stored
from ssepool.brokers.group import GroupCommit
from ssepool.brokers.record import records
from ssepool.core.beginning import Found
from ssepool.core.event import EARLIEST, MADE_ID, Entry, Event
from ssepool.core.topics import Subscription
from ssepool.core.window import Window
from ssepool.errors import BrokerError
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.progress import Progress
from ssepool.runtime.streams.slices import next_step
from ssepool.runtime.streams.trouble import Trouble

logger = logging.getLogger("ssepool")

CHECK_SECONDS = 1.0
"""Seconds between two looks at whether the broker is there, and whether the tail keeps up with it."""

TRIM_LOOKS = 10
"""Looks after which the broker is asked to drop what is too old."""

RETRY_SECONDS = (0.1, 2.0)
"""Seconds until a broken tail is taken up again: at first, and at the most. With jitter."""

MAX_WINDOW_ENTRIES = 1_000_000
"""Entries that are taken into the window at the start at most."""

MAX_FETCHES = 16
"""Pages of the history that are fetched from the broker at a time."""


class EventLog:
    """Follows the broker: every entry goes into the window, and to `deliver`, in order and once.

    The window holds the newest of the history, so that replays after a reconnection storm do not ask the broker; what
    is older is fetched from it. With the memory broker the window is the history. While the broker is away `failing`
    says why, and the log catches up by itself afterwards. Where entries are gone that should have come, `lost` is
    called in their place, also where the broker has nothing behind them.
    """

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[Sequence[Entry]], None],
        lost: Callable[[], None],
        room: Callable[[], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        """`deliver` gets the entries, and `lost` is called where entries are gone that should have come. `room` is
        awaited before each page that the broker has for us, so that delivery is not swamped. `now` is the hub's clock,
        in seconds."""
        self.broker = broker
        """Where events are kept."""
        self._instant = broker if isinstance(broker, InstantBroker) else None
        self.config = broker.config
        """The settings."""
        self.trouble = Trouble(broker.url)
        """What keeps this log from following the broker."""
        self.bounds = Bounds("", 0, 0, 0)
        """What the broker had when we last looked."""
        self._progress = Progress(now())
        self.fetching = asyncio.Semaphore(MAX_FETCHES)
        """Bounds the pages that are fetched at a time."""
        self._deliver = deliver
        self._lost = lost
        self._room = room
        self._now = now
        self._group = GroupCommit(broker)
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tail: asyncio.Task[None] | None = None
        self._crowded = False
        """The tail waits for delivery, not for the broker."""
        self._follows = False
        """The tail's first page has come: with it all that the broker has for us, or that there is nothing."""
        self._pending: deque[Entry] = deque()
        """What the memory broker has, and `deliver` gets in slices."""
        self.window: Window
        """The newest of the history."""
        self.position: int
        """The position of the newest entry that was given to `deliver`."""
        self._begin(self.bounds, 0)

    # Opening and closing.

    async def open(self) -> None:
        """Connect, and fill the window with the newest of the history. Raises `BrokerError` and `ConfigError`."""
        broker = self.broker
        async with self._in_time():
            await broker.open()
            self.bounds = await broker.bounds()
        if self._instant is not None:
            self._take_over(self._instant)
            return
        most = int(min(self.config.history_events, MAX_WINDOW_ENTRIES))
        self._begin(self.bounds, max(self.bounds.oldest, self.bounds.newest - most))
        self._tail = asyncio.create_task(self._follow())
        self._tasks = [self._tail, asyncio.create_task(self._watch())]
        with contextlib.suppress(BrokerError):  # what is not there in time comes later
            async with self._in_time():
                await self.reached(self.bounds.newest)

    async def close(self) -> None:
        """Follow no more, and let the broker go."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
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

    @property
    def failing(self) -> BrokerError | None:
        """Why the broker cannot be followed at the moment."""
        return self.trouble.error

    @property
    def late(self) -> float:
        """Seconds for which something has been missing here that the broker says it has; 0 if nothing is."""
        return self._progress.late(self.position, self._now())

    @property
    def complete(self) -> bool:
        """Whether the window has all of the history, so that there is nothing to be fetched."""
        return self._instant is not None

    def find(self, id: str, subscription: Subscription) -> Found | None:
        """Where a client with this subscription goes on that has all up to this id; None if it has to be asked for.

        Publishers may choose the same id for events of other topics: only one that the client may have had counts, and
        of several the first, so that nothing is lost.
        """
        if id == EARLIEST:
            return Found(self.window.oldest if self.complete else self.bounds.oldest, True)
        named = self._named(id, subscription)
        if len(named) > PAGE_PLACES:
            return None
        return self._found(id, self.window.first(named, subscription.matches), subscription)

    def _named(self, id: str, subscription: Subscription) -> Sequence[int]:
        return self.window.named(id, None if subscription.patterns else subscription.topics)

    def _found(self, id: str, chosen: int | None, subscription: Subscription) -> Found | None:
        """As `find`, when it is known which event in the window has the id as a chosen one."""
        position = self.window.made(id) if chosen is None else chosen
        if self._pending and position is not None and position > self.position:
            return None  # who joined the feeds now would get what it has had
        if chosen is not None and not self.complete and not self._is_first(subscription):
            return None
        if position is not None and (position >= self.window.oldest or not self.complete):
            return Found(position, True)
        if self.complete or (MADE_ID.fullmatch(id) and not id.startswith(self.window.epoch)):
            return self._unknown()
        return None  # chosen, or made of an event that another node has had before us

    def _is_first(self, subscription: Subscription) -> bool:
        """Whether what the window has of a chosen id is the first that the client may have had, as far as that depends
        on publishers to other topics than all of the client's."""
        is_whole = self.window.oldest <= self.bounds.oldest
        return is_whole or (len(subscription.topics) == 1 and not subscription.patterns)

    async def ask(self, id: str, subscription: Subscription) -> Found:
        """As `find`, by asking the broker; the log has come to that place then. Raises `BrokerError`."""
        if self._instant is not None:
            chosen = await self._first(self._named(id, subscription), subscription)
            while (found := self._found(id, chosen, subscription)) is None:
                await self._settled()
            return found
        epoch = self.window.epoch
        async with self.fetching, self._in_time():
            position = await self.broker.find(id, subscription.matches)
        if position is None and (position := await self._place_ahead(id)) is None:
            return self._unknown()
        if self.window.epoch == epoch:  # who joined the feeds before they are there would get what it has had
            async with self._in_time():
                await self.reached(position)
        return Found(position, True)

    async def _place_ahead(self, id: str) -> int | None:
        """The place of an id of the hub's making to which another node came before us, if we soon come there."""
        is_made = id.startswith(self.window.epoch) and MADE_ID.fullmatch(id) is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                while is_made and self.window.made(id) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        return self.window.made(id)

    async def _first(self, places: Sequence[int], subscription: Subscription) -> int | None:
        """The first of many places that the client wants; other tasks get their turn meanwhile."""
        for start in range(0, len(places), PAGE_PLACES):
            found = self.window.first(places[start : start + PAGE_PLACES], subscription.matches)
            if found is not None:
                return found
            await asyncio.sleep(0)
        return None

    async def fetch(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        """Entries behind a position, from the broker, up to one that cannot be read. Raises `BrokerError`."""
        async with self._in_time():
            while entries := await self.broker.read(after, max_entries=max_entries):
                for readable, group in groupby(entries, _is_readable):
                    if readable:
                        return list(group)
                after = entries[-1].position
            return ()

    async def reached(self, position: int) -> None:
        """Wait until the entry at a position has been delivered, or the history in which it was is lost."""
        epoch = self.window.epoch
        while self.position < position and self.window.epoch == epoch:
            self._arrived.clear()
            await self._arrived.wait()

    # How it keeps up.

    def _begin(self, bounds: Bounds, after: int) -> None:
        config = self.config
        self.window = Window(
            bounds.epoch,
            after=after,
            events=config.history_events,
            bytes=min(config.history_bytes, config.window_bytes),
            age=config.history_age,
        )
        self.position = after
        self._progress.begin(after, self._now())
        self._arrived.set()

    def _take_over(self, memory: InstantBroker) -> None:
        self.window = memory.window
        self.position = memory.window.newest
        memory.listener = self._take

    def _take(self, entries: Sequence[Entry]) -> None:
        """The memory broker has new entries, in its window already."""
        if self._pending or len(entries) > 1:
            scheduled = bool(self._pending)
            self._pending.extend(entries)
            if not scheduled:
                self._give()
        elif entries:
            self._deliver(entries)
            self.position = entries[-1].position

    def _give(self) -> None:
        """Deliver what is pending, and go on in the loop's next turn if it is too much for one."""
        pending, began, step = self._pending, self._now(), 1
        deadline = began + SLICE_SECONDS
        try:
            while pending:
                entries = [pending.popleft() for _ in range(min(step, len(pending)))]
                self._deliver(entries)
                self.position = entries[-1].position
                now = self._now()
                if now >= deadline:
                    break
                step, began = next_step(step, now - began), now
        finally:
            if pending:
                asyncio.get_running_loop().call_soon(self._give)
            self._arrived.set()

    @property
    def settled(self) -> bool:
        """Whether all that was published at once has gone to `deliver`."""
        return not self._pending

    async def _settled(self) -> None:
        while self._pending:
            await self.reached(self._pending[-1].position)

    async def _follow(self) -> None:
        """Take entries in for ever; a broken tail is taken up again where it broke."""
        delay, longest = RETRY_SECONDS
        while True:
            self._follows = False
            try:
                async with aclosing(self.broker.tail(self.position)) as tail:  # type: ignore[type-var]
                    async for entries in tail:
                        self._follows = True
                        self.trouble.end("tail")
                        self._crowded = True
                        await self._room()
                        self._crowded = False
                        await self._accept_all(entries)
                        delay = RETRY_SECONDS[0]
            except Exception as error:  # a defect that one page meets must not end following
                self.trouble.meet("tail", error)
            await asyncio.sleep(delay * (0.5 + random.random()))
            delay = min(2 * delay, longest)

    async def _accept_all(self, page: Sequence[Entry]) -> None:
        """Take a page in, in slices. Whoever restarts the tail between two of them finds the log in order."""
        start, step, began = 0, 1, self._now()
        deadline = began + SLICE_SECONDS
        while start < len(page):
            end = start + step
            while end < len(page) and not (_is_readable(page[end - 1]) or _is_readable(page[end])):
                end += 1  # what cannot be read is told of together
            self._accept(page[start:end])
            start = end
            now = self._now()
            step, began = next_step(step, now - began), now
            if now >= deadline:
                await asyncio.sleep(0)
                began = self._now()
                deadline = began + SLICE_SECONDS

    def _accept(self, entries: Sequence[Entry]) -> None:
        """Entries of the tail: what is there already is left out, what is missing or unreadable is said."""
        if entries and entries[0].position <= self.position:
            entries = [entry for entry in entries if entry.position > self.position]
        for readable, group in groupby(entries, _is_readable):
            some = list(group)
            if not readable:
                self._skip(some[-1].position, "has records that cannot be read, and are skipped, at the positions")
                continue
            if some[0].position > self.position + 1:
                self._skip(some[0].position - 1)
            self.window.append(some, self._now())
            self._deliver(some)
            self.position = some[-1].position
            self._arrived.set()

    async def _watch(self) -> None:
        """See that the broker is there, that it has what it had, and that the tail does not sleep."""
        looks = random.randrange(TRIM_LOOKS)
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            looks += 1
            try:
                if looks % TRIM_LOOKS == 0:
                    async with self._in_time():
                        await self.broker.trim()
                await self._look()
            except Exception as error:  # a defect that one look meets must not end looking
                self.trouble.meet("look", error)
            else:
                self.trouble.end("look")

    async def _look(self) -> None:
        before = self.position  # seen first: the broker may have more by the time it answers, but never less
        # Nothing may come between an epoch that is new and what is done about it: brokers take a tail that begins now
        # for one of the history that they have just named.
        async with self._in_time():
            bounds = self.bounds = await self.broker.bounds()
        nothing_comes = self._progress.look(self.position, bounds.newest, self._now(), is_crowded=self._crowded)
        if bounds.epoch != self.window.epoch:
            self._start_over(bounds, bounds.oldest)
        elif bounds.newest < before:
            self._start_over(bounds, bounds.newest)
        elif nothing_comes and not await self._passed(bounds.newest):
            logger.warning("%s has had news for %g s that did not come; asking again", self.broker.url, CHECK_SECONDS)
            self._restart_tail()

    async def _passed(self, newest: int) -> bool:
        """Go on behind entries up to `newest` that are gone: a tail that has begun anew does not give them, and nor is
        there any other. Whether there was anything to go past."""
        position = self.position
        if self._progress.stalls < 2 or not self._follows:
            return False
        async with self._in_time():
            if await self.broker.read(position, max_entries=1):
                return False
        if self.position == position:
            self._skip(newest)
        return True

    def _start_over(self, bounds: Bounds, after: int) -> None:
        """The broker has lost events. What it has behind a position is delivered, behind a gap."""
        logger.error("%s has lost what it kept; subscribers are told", self.broker.url)
        self._begin(bounds, after)
        self._lost()
        self._restart_tail()

    def _skip(self, position: int, why: str = "does not have any more the events at the positions") -> None:
        logger.error("%s %s %d to %d", self.broker.url, why, self.position + 1, position)
        self._begin(self.bounds._replace(epoch=self.window.epoch), position)
        self._lost()

    def _restart_tail(self) -> None:
        assert self._tail is not None
        self._crowded = False
        self._tail.cancel()
        self._tasks.remove(self._tail)
        self._tail = asyncio.create_task(self._follow())
        self._tasks.append(self._tail)

    def expire(self) -> None:
        """Drop what is too old from the window."""
        self.window.expire(self._now())

    def _unknown(self) -> Found:
        return Found(self.window.oldest if self.complete else self.bounds.oldest, False)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.config.broker_timeout):
                yield
        except TimeoutError:
            raise BrokerError(f"{self.broker.url} did not answer in {self.config.broker_timeout:g} s") from None


def _is_readable(entry: Entry) -> bool:
    return bool(entry.chunk)
