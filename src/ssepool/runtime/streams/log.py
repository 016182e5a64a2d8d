"""EventLog: what a hub has at hand of the broker's order, and how it keeps up with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import groupby

from ssepool.brokers.base import PAGE_PLACES, Bounds, Broker, InstantBroker, Stored
from ssepool.brokers.group import GroupCommit
from ssepool.brokers.record import records
from ssepool.core.beginning import Found
from ssepool.core.event import EARLIEST, MADE_ID, Entry, Event
from ssepool.core.rules import Rules
from ssepool.core.timelines import Timelines
from ssepool.core.topics import Subscription
from ssepool.core.window import Window
from ssepool.errors import BrokerError
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.sweeper import Sweeper
from ssepool.runtime.streams.trouble import Trouble

logger = logging.getLogger("ssepool")

CHECK_SECONDS = 1.0
"""Seconds between two looks at whether the broker is there, and whether the tail keeps up with it."""

TRIM_LOOKS = 10
"""Looks after which the broker is asked to drop what is too old."""

RETRY_SECONDS = (0.1, 2.0)
"""Seconds until a broken tail is taken up again: at first, and at the most. With jitter."""

MAX_BEHIND_SECONDS = 10.0
"""Seconds that what the broker has may take to come here; a hub that misses it for longer is not ready."""

MAX_FETCHES = 16
"""Pages of the history that are fetched from the broker at a time."""

STEP_ENTRIES = 16
"""Entries that are delivered between two looks at the clock at most."""

STEP_SECONDS = 0.0005
"""After a step that has taken longer, the next one is of a single entry: topics are new, or many feeds want them."""


PAGE_ENTRIES = 1000
"""Entries of a page that is read at the start."""

UNKNOWN = Found(0, False)
"""Where a client goes on whose id nobody knows: at the beginning."""

Matches = Callable[[tuple[str, ...], bool], bool]
"""Whether events of these topics, private or not, belong to a subscription."""

Missed = Callable[[Subscription], object] | None
"""Whether a subscription has missed something; None if all have."""


class EventLog:
    """Follows the broker: every entry goes into the window, and to `deliver`, in order and once.

    The window decides what is kept, and has the newest of it at hand, so that replays after a reconnection storm do not
    ask the broker; what is older is fetched from it. With the memory broker the window is the history. While the broker
    is away `failing` says why, and the log catches up by itself afterwards. Where entries are gone that should have
    come, `lost` is called in their place.
    """

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[Sequence[Entry]], None],
        lost: Callable[[Missed], None],
        room: Callable[[], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        """`deliver` gets the entries, and `lost` is called where entries are gone that should have come, with a
        question that says who missed any of them. `room` is awaited
        before each page that the broker has for us, so that delivery is not swamped. `now` is the hub's clock,
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
        self._looks = 0
        self._goal = (0, now())
        """A position that the broker has named, and when: this log is to come there soon."""
        self.fetching = asyncio.Semaphore(MAX_FETCHES)
        """Bounds the pages that are fetched at a time."""
        self._deliver = deliver
        self._lost = lost
        self._room = room
        self._now = now
        self._group = GroupCommit(broker)
        self._rules = Rules.from_config(broker.config)
        self.sweeper = Sweeper(broker, now)
        """Tells the broker what is kept no longer."""
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tail: asyncio.Task[None] | None = None
        self._crowded = False
        """The tail waits for delivery, not for the broker."""
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
        self._begin(self.bounds, self.bounds.oldest)
        await self._load_cuts()
        with contextlib.suppress(BrokerError):  # what is not there in time comes with the tail
            await self._load()
        self._tail = asyncio.create_task(self._follow())
        self._tasks = [self._tail, asyncio.create_task(self._watch())]
        with contextlib.suppress(BrokerError):
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
        goal, since = self._goal
        return self._now() - since if self.position < goal else 0.0

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
        if self._pending and found is not None and found.position > self.position:
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
            chosen = await self._first(self._named(id, subscription), subscription)
            while (found := self._found(id, chosen, subscription)) is None:
                await self._settled()
            return found
        if MADE_ID.fullmatch(id) and not id.startswith(
            self.window.epoch
        ):  # a name that began a moment ago, or of nobody
            await self._next_look()
            return self.window.place(id) or UNKNOWN
        window = self.window
        async with self.fetching, self._in_time():
            position = await self.broker.find(id, subscription.matches)
        found = Found(position, True) if position is not None else await self._place_ahead(id)
        if found is None:
            return UNKNOWN
        if self.window is window:  # who joined the feeds before they are there would get what it has had
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
        """The place of an id of the hub's making to which another node came before us, if we soon come there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                while MADE_ID.fullmatch(id) and self.window.place(id) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        return self.window.place(id)

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

    def lost(self, subscription: Subscription, after: int, matches: Matches | None = None) -> int:
        """As `Window.lost`."""
        return self.window.lost(subscription, after, matches)

    async def reached(self, position: int) -> None:
        """Wait until the entry at a position has been delivered, or the history in which it was is lost."""
        window = self.window
        while self.position < position and self.window is window:
            self._arrived.clear()
            await self._arrived.wait()

    # How it keeps up.

    def _begin(self, bounds: Bounds, after: int) -> None:
        config = self.config
        self._go_on_with(
            Window(
                Timelines(bounds.epoch, bounds.timelines),
                after=after,
                events=config.history_events,
                bytes=config.history_bytes,
                age=config.history_age,
                rules=self._rules,
                at_hand=config.window_bytes,
            )
        )
        self.window.cuts.raise_floor(bounds.untold)

    def _go_on_with(self, window: Window) -> None:
        self.window = window
        self.position = after = window.newest
        if self.bounds.drops:
            self.sweeper.follow(window)
        if after < self._goal[0]:  # of a history that is lost
            self._goal = (after, self._now())
        self._arrived.set()

    async def _load(self) -> None:
        """Read what is kept into the window."""
        newest = self.bounds.newest
        while self.position < newest:
            async with self._in_time():
                page = await self.broker.read(self.position, max_entries=PAGE_ENTRIES)
            if not page:
                break
            self._accept(page)
            await asyncio.sleep(0)
        self._come_to(newest)  # what was published last may be kept no longer

    def _come_to(self, position: int) -> None:
        if position > self.position:
            self.position = self.window.newest = position
            self._arrived.set()

    async def _load_cuts(self) -> None:
        """Read from the broker how far topics have been dropped."""
        after, window = "", self.window
        while self.bounds.drops:
            async with self._in_time():
                page = await self.broker.cuts(after)
            if not page:
                break
            window.cuts.load(page, self._now())
            after = page[-1][0]
            await asyncio.sleep(0)

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
                step, began = _next_step(step, now - began), now
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
            try:
                async with aclosing(self.broker.tail(self.position)) as tail:  # type: ignore[type-var]
                    async for entries in tail:
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
        if page and page[-1].position - max(self.position, page[0].position - 1) > len(page) - _known(
            page, self.position
        ):
            await self._load_cuts()  # something was dropped before it came here
        while start < len(page):
            end = start + step
            while end < len(page) and not (_is_readable(page[end - 1]) or _is_readable(page[end])):
                end += 1  # what cannot be read is told of together
            self._accept(page[start:end])
            start = end
            now = self._now()
            step, began = _next_step(step, now - began), now
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
                logger.error(
                    "%s has records that cannot be read, and are skipped, at the positions %d to %d",
                    self.broker.url,
                    some[0].position,
                    some[-1].position,
                )
                self._pass(some[-1].position, is_told=False)
                continue
            self._pass(some[0].position - 1, is_told=self.bounds.drops)
            self.window.append(some, self._now())
            self._deliver(some)
            self.position = some[-1].position
            self._arrived.set()

    def _pass(self, position: int, *, is_told: bool) -> None:
        """Go on behind a position up to which nothing comes; `is_told` if the cuts say what has been dropped there."""
        before = self.position
        if position <= before:
            return
        if not is_told:
            self.window.cuts.raise_floor(position)
        self._come_to(position)
        self._lost(lambda subscription: self.window.lost(subscription, before))

    async def _watch(self) -> None:
        """See that the broker is there, that it has what it had, and that the tail does not sleep."""
        looks, behind = random.randrange(TRIM_LOOKS), 0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            looks += 1
            before = self.position  # seen first: the broker may have more by the time it answers, but never less
            try:
                bounds = self.bounds = await self._look(before, trims=looks % TRIM_LOOKS == 0)
            except Exception as error:  # a defect that one look meets must not end looking
                self.trouble.meet("look", error)
                continue
            self.trouble.end("look")
            if self.position >= self._goal[0]:
                self._goal = (bounds.newest, self._now())
            self._looks += 1
            self._arrived.set()
            if bounds.epoch != self.window.epoch:
                self._turn(bounds)
            elif bounds.newest < before:
                self._start_over(bounds, bounds.newest)
            elif bounds.newest > self.position == behind and not self._crowded:
                await self._stir(bounds)
            behind = self.position if bounds.newest > self.position else -1

    async def _look(self, before: int, *, trims: bool) -> Bounds:
        """What the broker has. If that is less than before, it goes on under another name."""
        async with self._in_time():
            if trims:
                await self.broker.trim()
            await self.sweeper.sweep()
            # Last, since nothing may come between an epoch that is new and what is done about it: brokers take a tail
            # that begins now for one of the history that they have just named.
            bounds = await self.broker.bounds()
            if bounds.drops and bounds.epoch == self.window.epoch and bounds.newest < before:
                bounds = await self.broker.renew(bounds.epoch)
        return bounds

    def _turn(self, bounds: Bounds) -> None:
        """The history has another name. Nobody need know if it has all that was delivered here; else what it has behind
        the place where the one before ended is delivered, behind a gap."""
        timelines = Timelines(bounds.epoch, bounds.timelines)
        end = timelines.end_of(self.window.epoch)
        if end is not None and end >= self.position:
            self.window.timelines = timelines
            self._restart_tail()
        else:
            self._start_over(bounds, end)

    def _start_over(self, bounds: Bounds, end: int | None) -> None:
        """The broker has lost events: all behind a place, or everything."""
        logger.error("%s has lost what it kept; subscribers are told", self.broker.url)
        if end is None:
            self._begin(bounds, bounds.oldest)
        else:
            self._go_on_with(self.window.branched(Timelines(bounds.epoch, bounds.timelines), end))
        self._lost(None)
        self._restart_tail()

    async def _stir(self, bounds: Bounds) -> None:
        """The broker has had news for a while that did not come: it is asked again, or what was to come is gone."""
        with contextlib.suppress(BrokerError):
            async with self._in_time():
                if not await self.broker.read(self.position, max_entries=1):
                    await self._load_cuts()
                    logger.error(
                        "%s does not have any more the events at the positions %d to %d",
                        self.broker.url,
                        self.position + 1,
                        bounds.newest,
                    )
                    self._pass(bounds.newest, is_told=bounds.drops)
                    return
        logger.warning("%s has had news for %g s that did not come; asking again", self.broker.url, CHECK_SECONDS)
        self._restart_tail()

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

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.config.broker_timeout):
                yield
        except TimeoutError:
            raise BrokerError(f"{self.broker.url} did not answer in {self.config.broker_timeout:g} s") from None


def _next_step(step: int, seconds: float) -> int:
    """The number of entries to deliver before the next look at the clock, after `step` took so long."""
    return min(2 * step, STEP_ENTRIES) if seconds < STEP_SECONDS else 1


def _known(page: Sequence[Entry], position: int) -> int:
    """How many entries of a page do not come behind a position."""
    return bisect_right(page, position, key=lambda entry: entry.position)


def _is_readable(entry: Entry) -> bool:
    return bool(entry.chunk)
