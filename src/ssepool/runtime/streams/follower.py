"""Follower: keeps up with the broker's order, and has at hand what is kept of it."""

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

from ssepool import clock
from ssepool.brokers.base import Bounds, Broker, InstantBroker
from ssepool.core.event import Entry
from ssepool.core.kept import DROP_REASONS
from ssepool.core.rules import Rules
from ssepool.core.timelines import Timelines
from ssepool.core.topics import Subscription
from ssepool.core.window import Window
from ssepool.errors import BrokerError
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.intake import Intake
from ssepool.runtime.streams.progress import Progress
from ssepool.runtime.streams.slices import next_step
from ssepool.runtime.streams.sweeper import Sweeper
from ssepool.runtime.streams.trouble import Trouble
from ssepool.runtime.streams.unread import Unread

logger = logging.getLogger("ssepool")

CHECK_SECONDS = 1.0
"""Seconds between two looks at whether the broker is there, and whether the tail keeps up with it."""

TRIM_LOOKS = 10
"""Looks after which the broker is asked to do its housekeeping."""

RETRY_SECONDS = (0.1, 2.0)
"""Seconds until a broken tail is taken up again: at first, and at the most. With jitter."""

PAGE_ENTRIES = 1000
"""Entries of a page that is read at the start."""

Missed = Callable[[Subscription], object] | None
"""Whether a subscription has missed something; None if all have."""


class Follower:
    """Follows the broker: every entry goes into the window, and to `deliver`, in order and once.

    The window decides what is kept, and has the newest of it at hand, so that replays after a reconnection storm do not
    ask the broker. With the memory broker the window is the history. While the broker is away `failing` says why, and
    all is caught up with by itself afterwards. Where entries are gone that should have come, `lost` is called in their
    place, also where the broker has nothing behind them.
    """

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[Sequence[Entry]], None],
        lost: Callable[[Missed], None],
        room: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        wall_clock: Callable[[], float] = clock.wall_clock,
    ) -> None:
        """`deliver` gets the entries, and `lost` is called where entries are gone that should have come, with a
        question that says who missed any of them. `room` is awaited before each page that the broker has for us, so
        that delivery is not swamped. `now` is the hub's clock and `wall_clock` the time since the epoch, in seconds."""
        self.broker = broker
        """Where events are kept."""
        self.config = broker.config
        """The settings."""
        self.trouble, self.unread = Trouble(broker.url), Unread(broker.url)
        """What keeps this hub from following the broker, and what it has that cannot be read here."""
        self.bounds = Bounds("", 0, 0, 0)
        """What the broker had when we last looked."""
        self.sweeper = Sweeper(broker, now)
        """Tells the broker what is kept no longer."""
        self._instant = broker if isinstance(broker, InstantBroker) else None
        self._rules = Rules.from_config(broker.config)
        self._progress = Progress(now())
        self._deliver = deliver
        self._lost = lost
        self._room = room
        self._now = now
        self._wall_clock = wall_clock
        self._arrived = asyncio.Event()
        self._looks, self._looking = 0, asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._tail: asyncio.Task[None] | None = None
        self._follows = False
        """The tail has given something, if only that there is nothing."""
        self._crowded = False
        """The tail waits for delivery, not for the broker."""
        self._pending: deque[Entry] = deque()
        """What the memory broker has, and `deliver` gets in slices."""
        self._there = 0
        """Up to here the broker had entries when we began to follow it."""
        self.window: Window
        """What is kept of the order, and the newest of it."""
        self.position: int
        """The position of the newest entry that was given to `deliver`."""
        self._dropped: dict[str, int] = dict.fromkeys(DROP_REASONS, 0)
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
        with contextlib.suppress(BrokerError):  # something may have been dropped while the history was read
            await self._see()

    async def _unfollow(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # How it does.

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
        """Whether the window has all of the history at hand, so that there is nothing to be fetched."""
        return self._instant is not None

    @property
    def settled(self) -> bool:
        """Whether all that was published at once has gone to `deliver`."""
        return not self._pending

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
        window.dropped = self._dropped  # counts on, whatever becomes of the history
        self.position = after = window.newest
        if self.bounds.drops:
            self.sweeper.follow(window)
        self._there = self.bounds.newest
        self._progress.begin(after, self._now())
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
            self.expire()  # else it would take the place of what is not too old, and clients would get it
            await asyncio.sleep(0)
        self._come_to(newest)  # what was published last may be kept no longer

    def _came(self, entry: Entry) -> float:
        """When an entry came, of those that the broker had already: an hour is over an hour after it was published,
        however often hubs begin anew. What is published now counts from now, whatever the clocks of others say."""
        now = self._now()
        return now - max(0.0, self._wall_clock() - entry.at) if entry.at and entry.position <= self._there else now

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
        self._pending = Intake(memory, self._took, self._now).pending

    def _took(self, entries: Sequence[Entry]) -> None:
        self._deliver(entries)
        self.position = entries[-1].position
        self._arrived.set()

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
                        self.trouble.end("tail")
                        self._follows = True
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
        if page and page[-1].position - self.position > len(page) - _known(page, self.position):
            if not await self._see():  # something was dropped before it came here
                await asyncio.sleep(0)  # here this task ends: the tail begins anew
            await self._load_cuts()
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
                self.unread.pass_over(some, self._now())
                self._skip(some[-1].position, is_told=False, is_said=True)
                continue
            if some[0].position > self.position + 1:
                self._skip(some[0].position - 1, is_told=self.bounds.drops)
            self.window.append(some, self._now(), self._came if some[0].position <= self._there else None)
            self._deliver(some)
            self.position = some[-1].position
            self._arrived.set()

    def _skip(self, position: int, *, is_told: bool, is_said: bool = False) -> None:
        """Go on behind a position up to which nothing comes: `is_told` by the cuts, or `is_said` by the log already."""
        before = self.position
        if not is_told:
            self.window.cuts.raise_floor(position)
        if not (is_told or is_said):
            said = "%s does not have any more the events at the positions %d to %d"
            logger.error(said, self.broker.url, before + 1, position)
        self._come_to(position)
        self._lost(lambda subscription: self.window.lost(subscription, before))

    async def _watch(self) -> None:
        """See that the broker is there, that it has what it had, and that the tail does not sleep."""
        looks = random.randrange(TRIM_LOOKS)
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            looks += 1
            try:
                await self._look()  # first: a history that goes on under another name refuses all the rest until then
                if looks % TRIM_LOOKS == 0:
                    async with self._in_time():
                        await self.broker.trim()
                await self.sweeper.sweep()
            except Exception as error:  # a defect that one look meets must not end looking
                self.trouble.meet("look", error)
            else:
                self.trouble.end("look")

    async def _look(self) -> None:
        if not await self._see():
            return
        newest = self.bounds.newest
        nothing_comes = self._progress.look(self.position, newest, self._now(), is_crowded=self._crowded)
        if nothing_comes and not await self._passed(newest):
            logger.warning("%s has had news for %g s that did not come; asking again", self.broker.url, CHECK_SECONDS)
            self._restart_tail()

    async def _see(self) -> bool:
        """See what the broker has now. False if that is another history than the one that is followed, or less of it:
        then the tail is begun anew."""
        async with self._looking:
            before = self.position  # seen first: the broker may have more by the time it answers, but never less
            # Nothing may come between an epoch that is new and what is done about it: brokers take a tail that begins
            # now for one of the history that they have just named.
            async with self._in_time():
                bounds = await self.broker.bounds()
                known = self.window.timelines
                is_less = bounds.epoch == known.epoch and bounds.newest < before
                if bounds.drops and (is_less or known.end_of(bounds.epoch) is not None):  # an earlier state is back
                    bounds = await self.broker.renew(bounds.epoch)
                self.bounds = bounds
            self._looks += 1
            self._arrived.set()
            if bounds.epoch != self.window.epoch:
                self._turn(bounds)
            elif bounds.newest < before:
                self._start_over(bounds, Timelines(bounds.epoch), bounds.newest)
            else:
                if bounds.drops:
                    self.window.cuts.raise_floor(bounds.untold)
                return True
            return False

    async def _passed(self, newest: int) -> bool:
        """Go on behind entries up to `newest` that are gone: a tail that has begun anew does not give them, and nor is
        there any other. Whether there was anything to go past."""
        position = self.position
        if self._progress.stalls < 2 or not self._follows:
            return False
        async with self._in_time():
            if await self.broker.read(position, max_entries=1):
                return False
        if not await self._see():
            return True
        await self._load_cuts()
        if self.position == position:
            self._skip(newest, is_told=self.bounds.drops)
        return True

    def _turn(self, bounds: Bounds) -> None:
        """The history has another name. Nobody need know if it has all that was delivered here; else what it has behind
        the place where the two part is delivered, behind a gap."""
        timelines, known = Timelines(bounds.epoch, bounds.timelines), self.window.timelines
        end = timelines.fork(known)
        if end is not None and timelines.end_of(known.epoch) is None:
            timelines = timelines.knowing(known.epoch, end)
        if end is not None and end >= self.position:
            self.window.timelines = timelines
            self._restart_tail()
        else:
            self._start_over(bounds, timelines, end)

    def _start_over(self, bounds: Bounds, timelines: Timelines, end: int | None) -> None:
        """The broker has lost events: all behind a place, or everything."""
        logger.error("%s has lost what it kept; subscribers are told", self.broker.url)
        if end is None:
            self._begin(bounds, bounds.oldest)
        else:
            self._go_on_with(self.window.branched(timelines, min(end, self.position)))
        self._lost(None)
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


def _known(page: Sequence[Entry], position: int) -> int:
    """How many entries of a page do not come behind a position."""
    return bisect_right(page, position, key=lambda entry: entry.position)


def _is_readable(entry: Entry) -> bool:
    return bool(entry.chunk)
