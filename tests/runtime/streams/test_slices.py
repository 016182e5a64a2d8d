"""However much is to be delivered, the event loop is held for a few milliseconds at a time.

Time is counted, not measured: what costs time moves a clock of the test's own, and a callback that runs once in each
turn of the event loop looks at that clock.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parts import bound, connection_of, running
from ssepool.brokers.memory import MemoryBroker
from ssepool.config import HubConfig, PoolConfig
from ssepool.core.event import Event
from ssepool.core.grant import STRANGER
from ssepool.core.states import LinkState, Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.runtime.admission.admission import welcome
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import AVAILABLE
from ssepool.runtime.streams.link import Link

MANY = 10_000
MOST = 0.005
"""Seconds that the loop may be held (the issue's "about 5 ms")."""


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.held: list[float] = []
        """How long each turn of the event loop took."""
        self._turn_began = 0.0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._tick)

    def __call__(self) -> float:
        return self.now

    def _tick(self) -> None:
        self.held.append(self.now - self._turn_began)
        self._turn_began = self.now
        self._loop.call_soon(self._tick)


class Costly(Link):
    """A link each of whose writes takes time."""

    __slots__ = ("clock", "cost", "flushes", "written")

    def __init__(self, engine: Engine, clock: Clock, cost: float) -> None:
        super().__init__(engine.links)
        self.clock, self.cost = clock, cost
        self.written: list[bytes] = []
        self.flushes = 0
        self.become(LinkState.OPEN)

    def flush(self) -> None:
        self.flushes += 1
        if self.ended:
            return
        while (item := self.take()) is not None:
            self.clock.now += self.cost
            self.written.append(bytes(item[0]))
            if self.replay is not None:
                self.context.delivery.again(self)
                return

    def hang_up(self, before: LinkState) -> None:
        pass


async def opened(engine: Engine, clock: Clock, topic: str, *, cost: float, last_event_id: str | None = None) -> Costly:
    """A client that has its stream."""
    visit = Visit(grant=STRANGER, subscription=Subscription.of(["news", topic]), last_event_id=last_event_id)
    link = Costly(engine, clock, cost)
    bound(engine, link, visit)
    await welcome(engine, connection_of(link), link, visit)
    return link


async def turns_until_delivered(links: list[Costly], frame: bytes) -> None:
    async with asyncio.timeout(60):
        while not all(link.written and link.written[-1].endswith(frame) for link in links):
            await asyncio.sleep(0)


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def engine(clock: Clock) -> AsyncIterator[Engine]:
    quiet = PoolConfig(size=MANY, heartbeat_interval=1e6, reap_interval=1e6)
    async with running(HubConfig(pool=quiet), now=clock) as engine:
        yield engine


async def publish(engine: Engine, topic: str, data: str) -> None:
    await engine.publish_many([Event.of(topic, data)])


@pytest.mark.parametrize("topics", [1, MANY], ids=["one feed", "a feed each"])
async def test_ten_thousand_connections_are_served_in_slices(engine: Engine, clock: Clock, topics: int) -> None:
    links = [await opened(engine, clock, f"topic {number % topics}", cost=8e-6) for number in range(MANY)]
    await asyncio.sleep(0)
    clock.held.clear()
    await publish(engine, "news", "for all")
    await turns_until_delivered(links, b"data: for all\n\n")
    assert max(clock.held) <= MOST
    assert sum(held > 0 for held in clock.held) > MANY * 8e-6 / MOST
    assert [len(link.written) for link in links] == [2] * MANY  # its welcome, and this


async def test_one_slow_write_after_another_does_not_add_up(engine: Engine, clock: Clock) -> None:
    # As when a quarter of a megabyte goes to each.
    links = [await opened(engine, clock, "a", cost=0.001) for _ in range(100)]
    await asyncio.sleep(0)
    clock.held.clear()
    await publish(engine, "news", "big")
    await turns_until_delivered(links, b"data: big\n\n")
    assert max(clock.held) <= MOST


async def test_events_join_a_round_that_is_under_way(engine: Engine, clock: Clock) -> None:
    links = [await opened(engine, clock, "a", cost=1e-4) for _ in range(1000)]
    await publish(engine, "news", "first")
    while not links[300].written[-1].endswith(b"data: first\n\n"):
        await asyncio.sleep(0)
    await publish(engine, "news", "second")
    await turns_until_delivered(links, b"data: second\n\n")
    assert len(links[0].written) == 3  # two rounds
    assert len(links[-1].written) == 2  # both with one write
    assert b"".join(links[0].written).count(b"data: first") == 1


async def test_a_big_feed_does_not_starve_a_small_one(engine: Engine, clock: Clock) -> None:
    big = [await opened(engine, clock, "big", cost=1e-4) for _ in range(1000)]
    small = await opened(engine, clock, "small", cost=1e-4)
    await publish(engine, "big", "many")
    await asyncio.sleep(0)
    await publish(engine, "small", "one")
    await turns_until_delivered([small], b"data: one\n\n")
    assert not big[-1].written[-1].endswith(b"data: many\n\n")
    await turns_until_delivered(big, b"data: many\n\n")


async def test_a_herd_that_comes_back_is_given_what_it_missed_in_slices(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemoryBroker.read

    def slow_read(self: MemoryBroker, after: int, *, max_entries: int) -> Any:
        clock.now += 0.001
        return read(self, after, max_entries=max_entries)

    monkeypatch.setattr(MemoryBroker, "read", slow_read)
    [first] = await engine.publish_many([Event("0", ("news",))])
    await engine.publish_many([Event(str(number), ("news" if number % 3 else "other",)) for number in range(1, 9000)])
    await asyncio.sleep(0)
    clock.held.clear()
    herd = [await opened(engine, clock, "a", cost=1e-5, last_event_id=first) for _ in range(100)]
    await publish(engine, "news", "live")
    live = await opened(engine, clock, "b", cost=1e-5)
    await publish(engine, "b", "meanwhile")
    # Those who are up to date do not wait for the herd.
    await turns_until_delivered([live], b"data: meanwhile\n\n")
    assert any(link.replay is not None for link in herd)
    await turns_until_delivered(herd, b"data: live\n\n")
    assert max(clock.held) <= MOST
    expected = [str(number) for number in range(1, 9000) if number % 3] + ["live"]
    for link in herd:
        lines = b"".join(link.written).decode().splitlines()
        assert [line[6:] for line in lines if line.startswith("data: ") and "connection" not in line] == expected


async def test_a_herd_on_the_plain_path_is_given_what_it_missed_in_slices(engine: Engine, clock: Clock) -> None:
    [first] = await engine.publish_many([Event("0", ("news",))])
    await engine.publish_many([Event(f"{number} " + "x" * 1000, ("news",)) for number in range(1, 3000)])
    streams = [AsgiStream(engine, clock, first) for _ in range(100)]
    tasks = [asyncio.create_task(stream.run()) for stream in streams]
    await asyncio.sleep(0)
    clock.held.clear()
    async with asyncio.timeout(60):
        while not all(stream.events == 3000 for stream in streams):  # with ssepool.open
            await asyncio.sleep(0)
    assert max(clock.held) <= MOST
    for stream in streams:
        stream.left.set()
    await asyncio.gather(*tasks)


class AsgiStream:
    """A request through ASGI, whose `send` takes time and never waits."""

    def __init__(self, engine: Engine, clock: Clock, last_event_id: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "headers": [(b"last-event-id", last_event_id.encode())],
            "query_string": b"",
        }
        self.scope = scope
        self.response = EventStream(engine, Visit.of(scope, Subscription.of(["news"]), STRANGER))
        self.clock = clock
        self.left = asyncio.Event()
        self.events = 0

    async def run(self) -> None:
        await self.response(self.scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        body = message.get("body", b"")
        self.clock.now += 1e-9 * len(body) * 4  # a quarter of a megabyte in a millisecond
        self.events += body.count(b"\ndata: ")


@pytest.mark.skipif(not AVAILABLE, reason="there is no epoll")
async def test_sockets_that_have_room_again_all_at_once_are_served_in_slices(engine: Engine, clock: Clock) -> None:
    assert engine.streamer is not None
    pairs = [socket.socketpair() for _ in range(200)]
    served: set[int] = set()

    class Ready:
        """What the streamer knows of a link."""

        def __init__(self, fd: int) -> None:
            self.fd = fd

        def ready(self, mask: int) -> None:
            assert mask & select.EPOLLOUT
            clock.now += 0.001
            served.add(self.fd)
            engine.streamer.have_room(self)  # type: ignore[union-attr,arg-type]

        def end(self, reason: Reason) -> None:
            pass

    links = [Ready(pair[0].fileno()) for pair in pairs]
    for link in links:
        engine.streamer.watch(link)  # type: ignore[arg-type]
        engine.streamer.await_room(link)  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        while len(served) < len(pairs):
            await asyncio.sleep(0)
    assert max(clock.held) <= MOST
    for link in links:
        engine.streamer.forget(link)  # type: ignore[arg-type]
    for near, far in pairs:
        near.close()
        far.close()
