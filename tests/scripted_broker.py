"""A broker for tests that breaks, sleeps, repeats, skips and forgets as they say, and a log that follows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from ssepool.brokers.base import Bounds, Broker, Fact, Stored, Wants, anything
from ssepool.brokers.record import Record
from ssepool.config import HubConfig
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.core.timelines import Timeline
from ssepool.core.topics import Subscription
from ssepool.errors import BrokerError
from ssepool.runtime.streams.follower import Missed
from ssepool.runtime.streams.log import EventLog

DEADLINE = 10.0


class Scripted(Broker):
    """A broker that fails as the test says."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self.calls: list[str] = []
        """How often it was opened and closed, in order."""
        self.epoch = "0000000a"
        self.entries: list[Entry] = []
        self.oldest = 0
        self.timelines: tuple[Timeline, ...] = ()
        self.floor: int | None = None
        """0: it drops what it is told to, and has timelines."""
        self.told: list[tuple[list[int], dict[str, Cut]]] = []
        """What it was told to drop."""
        self.broken: str | None = None
        self.deaf: Exception | None = None
        """With this tails fail, while all else is answered."""
        self.asleep = False
        """Tails notice nothing any more."""
        self.repeats = 0
        """Entries that each tail gives again."""
        self.blind: Exception | None = None
        """With this nobody sees the bounds, while all else is answered."""
        self.looks = 0
        self.tails = 0
        self.reads = 0
        self.news = asyncio.Event()
        self.asked: list[str] = []
        self.facts: list[Fact] = []
        self.answers = asyncio.Event()
        self.answers.set()

    def put(self, count: int = 1, topic: str = "news") -> None:
        for _ in range(count):
            position = (self.entries[-1].position if self.entries else self.oldest) + 1
            self.entries.append(Record(b"data: %d\n\n" % position, (topic,)).entry(self.epoch, position))
        self.ring()

    def ring(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def lose(self, count: int) -> None:
        del self.entries[:count]
        self.oldest += count

    def forget(self, epoch: str) -> None:
        self.epoch, self.entries, self.oldest = epoch, [], 0

    def check(self) -> None:
        if self.broken:
            raise BrokerError(self.broken)

    async def open(self) -> None:
        self.calls.append("open")
        self.check()
        await self.answers.wait()

    async def close(self) -> None:
        self.calls.append("close")

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        self.check()
        self.put(len(records))
        return [Stored(entry.id or "", entry.position) for entry in self.entries[-len(records) :]]

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        self.tails += 1
        after, follows = max(0, after - self.repeats), False
        while True:
            self.check()
            if self.deaf is not None:
                raise self.deaf
            news = self.news
            found = [entry for entry in self.entries if entry.position > after][:10]
            if (found or not follows) and not self.asleep:
                after, follows = (found[-1].position if found else after), True
                yield found
            else:
                await news.wait()

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        self.check()
        self.reads += 1
        await self.answers.wait()
        return [entry for entry in self.entries if entry.position > after][:max_entries]

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        self.check()
        named = (entry for entry in self.entries if entry.id == id)
        found = next((entry.position for entry in named if wants(entry.topics, entry.private)), None)
        self.asked.append(id)
        await self.answers.wait()
        return found

    async def bounds(self) -> Bounds:
        self.looks += 1
        if self.blind is not None:
            raise self.blind
        self.check()
        newest = self.entries[-1].position if self.entries else self.oldest
        return Bounds(self.epoch, self.oldest, newest, 0, self.timelines, self.floor)

    async def renew(self, epoch: str) -> Bounds:
        bounds = await self.bounds()
        if epoch == self.epoch:
            self.timelines = (*self.timelines, Timeline(epoch, bounds.newest))
            self.epoch = f"{int(epoch, 16) + 256:08x}"
        return await self.bounds()

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        self.check()
        self.told.append((list(positions), dict(cuts)))
        self.entries = [entry for entry in self.entries if entry.position not in positions]

    async def cuts(self, after: str = "") -> Sequence[tuple[str, Cut]]:
        told: dict[str, Cut] = {}
        for _, cuts in self.told:
            told |= cuts
        return [(topic, cut) for topic, cut in sorted(told.items()) if topic > after]

    async def trim(self) -> None:
        self.check()

    async def send(self, message: bytes) -> None:
        self.check()

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        self.check()
        self.facts.append(Fact(name, len(self.facts) + 1, data))

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        self.check()
        return self.facts[after:]

    async def messages(self) -> AsyncIterator[bytes]:
        while True:
            self.check()
            await self.news.wait()
            yield b"{}"


class Heard:
    """A log, and what it has delivered: positions, and "lost" where it said so."""

    def __init__(self, **settings: Any) -> None:
        self.broker = Scripted(HubConfig(**settings))
        self.all: list[int | str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.log = EventLog(self.broker, self._deliver, self._lost, self._room, time.monotonic)

    def _deliver(self, entries: Sequence[Entry]) -> None:
        self.all += [entry.position for entry in entries]

    def _lost(self, missed: Missed) -> None:
        if missed is None or missed(Subscription.of(["news"])):
            self.all.append("lost")

    async def _room(self) -> None:
        await self.open.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, (self.all, self.log.failing, self.log.window)
            await asyncio.sleep(0.002)
