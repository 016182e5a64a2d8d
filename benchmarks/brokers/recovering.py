"""What a fault does: how soon events come through on both nodes again, and whether any is lost or doubled."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import uvloop

from benchmarks.brokers.kinds import Backend
from benchmarks.brokers.nodes import Node, nodes
from benchmarks.peers import on_the_first_core
from services import Server
from ssepool import AsyncPublisher
from ssepool.bench.loop import clock
from ssepool.client import AsyncClient, ClientError
from ssepool.errors import BrokerError

INTERVAL_SECONDS = 0.02
"""Time from one publish to the next."""
RETRY_SECONDS = 0.05
"""Time until a publish that failed is tried again with the same id, and a stream that ended is taken up again."""
HANG_SECONDS = 3.0
"""How long a server hangs."""
GONE_SECONDS = 1.0
"""How long a server that was killed is away."""
CALM_SECONDS = 1.0
"""How long events are published before a fault, and after all is well again."""
PATIENCE_SECONDS = 30.0
"""How long it may take until all is well again."""

Fault = Callable[[], Awaitable[int]]
"""Does it and undoes it; returns when that was."""


class _Ended(Exception):
    """A stream is over; we come back at once and not when the hub would like it."""


class Run:
    """Two nodes with a subscriber each, and one who publishes straight to the broker, through a fault."""

    def __init__(self, url: str, pair: list[Node], calm: float) -> None:
        self._url = url
        self._calm = calm
        self._nodes = pair
        self.began: dict[str, int] = {}
        """When each event was published for the first time,"""
        self.stored: set[str] = set()
        """those whose publish succeeded,"""
        self.failed = 0
        """and attempts that did not."""
        self.longest = 0
        """Microseconds that an attempt took, whatever came of it."""
        self.came: list[list[tuple[str, int]]] = [[] for _ in pair]
        """What came on each node, and when."""

    async def through(self, fault: Fault) -> dict[str, Any]:
        """Publish before, during and after; returns what became of the events."""
        async with self._reading(), AsyncPublisher(self._url) as publisher, asyncio.TaskGroup() as publishes:
            publishing = asyncio.create_task(self._publish(publisher, publishes))
            await self._until(lambda: all(self.came), "the first event")
            await asyncio.sleep(self._calm)
            back = await fault()
            await self._until(lambda: self._recovered(back) is not None, "an event after the fault")
            await asyncio.sleep(self._calm)
            publishing.cancel()
            await self._until(lambda: self.stored == self.began.keys(), "the end of all publishes")
            with suppress(TimeoutError):  # what has not come then is lost
                await self._until(lambda: all(self.stored <= {id for id, _ in came} for came in self.came), "the rest")
        return self._findings(back)

    def _recovered(self, back: int) -> int | None:
        """When the first event that was published after that time had come on both nodes."""
        late = {id for id, began in self.began.items() if began >= back}
        times = [{id: time for id, time in came if id in late} for came in self.came]
        both = times[0].keys() & times[1].keys()
        return min((max(at[id] for at in times) for id in both), default=None)

    def _findings(self, back: int) -> dict[str, Any]:
        recovered = self._recovered(back)
        assert recovered is not None
        counts = [Counter(id for id, _ in came) for came in self.came]
        orders = [list(dict.fromkeys(id for id, _ in came)) for came in self.came]
        return {
            "seconds": (recovered - back) / 1e6,
            "silence": [_silence(came) for came in self.came],
            "events": len(self.stored),
            "failed": self.failed,
            "longest": self.longest / 1e6,
            "lost": sum(len(self.stored - count.keys()) for count in counts),
            "doubled": sum(count.total() - len(count) for count in counts),
            "reordered": int(orders[0] != orders[1]),
        }

    async def _publish(self, publisher: AsyncPublisher, publishes: asyncio.TaskGroup) -> None:
        """An event each interval, each tried until it is stored."""
        while True:
            id = f"e{len(self.began)}"
            self.began[id] = clock()
            publishes.create_task(self._store(publisher, id))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _store(self, publisher: AsyncPublisher, id: str) -> None:
        while id not in self.stored:
            start = clock()
            try:
                await publisher.publish("bench", "x" * 100, id=id)
                self.stored.add(id)
            except BrokerError:
                self.failed += 1
                await asyncio.sleep(RETRY_SECONDS)
            self.longest = max(self.longest, clock() - start)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        readers = [
            asyncio.create_task(self._read(node, came)) for node, came in zip(self._nodes, self.came, strict=True)
        ]
        try:
            yield
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)

    async def _read(self, node: Node, came: list[tuple[str, int]]) -> None:
        async with AsyncClient(node.url) as client:
            while True:
                last = came[-1][0] if came else "earliest"
                with suppress(ClientError, _Ended):
                    async for message in client.subscribe("bench", last_event_id=last, on_lost=_end):
                        if message.type == "message":  # and not of the hub's own
                            came.append((message.id, clock()))
                await asyncio.sleep(RETRY_SECONDS)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)


def _end(*_: object) -> None:
    raise _Ended


def _silence(came: list[tuple[str, int]]) -> float:
    """The longest time without an event, in seconds."""
    times = [time for _, time in came]
    return max((after - before for before, after in pairwise(times)), default=0) / 1e6


def measure(
    backend: Backend,
    *,
    hangs: float = HANG_SECONDS,
    gone: float = GONE_SECONDS,
    calm: float = CALM_SECONDS,
    rounds: int = 3,
) -> dict[str, Any]:
    """Each fault so many times, with new nodes and a new history; the list of what was found, for each fault."""

    async def killed() -> int:
        assert backend.service is not None
        await asyncio.to_thread(backend.service.kill)
        await asyncio.sleep(gone)
        await asyncio.to_thread(_start, backend.service)
        return clock()

    async def hung() -> int:
        if backend.service is None:
            return await _locked(backend, name, hangs)
        backend.service.suspend()
        await asyncio.sleep(hangs)
        backend.service.resume()
        return clock()

    async def node_killed() -> int:
        await asyncio.to_thread(pair[0].kill)
        back = clock()
        await asyncio.to_thread(_start, pair[0])
        return back

    faults: dict[str, Fault] = {"server hangs": hung, "node killed": node_killed}
    if backend.service is not None:
        faults = {"server killed": killed, **faults}
    found: dict[str, Any] = {}
    for title, fault in faults.items():
        for number in range(rounds):
            name = f"{title.replace(' ', '')}{number}"
            url = backend.url(name)
            with nodes(backend.folder, url, url) as pair:
                found.setdefault(title, []).append(uvloop.run(Run(url, pair, calm).through(fault)))
    return found


def _start(server: Server) -> None:
    with on_the_first_core():
        server.start()


async def _locked(backend: Backend, name: str, seconds: float) -> int:
    """Of SQLite there is no server that could hang; another process may hold the file."""
    connection = sqlite3.connect(backend.database(name), isolation_level=None, timeout=5)
    connection.execute("BEGIN IMMEDIATE")
    await asyncio.sleep(seconds)
    connection.execute("ROLLBACK")
    connection.close()
    return clock()
