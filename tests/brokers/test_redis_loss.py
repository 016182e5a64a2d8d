"""Redis that comes back with less than it had: real backups, and real failovers to replicas that lack the newest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from histories import DEADLINE, Open, batch, data, opening, positions, read_all, until
from live import LiveServer, Stream, serve, wait_for
from proxy import Proxy, proxy_to
from services.redis import Redis
from ssepool.brokers.base import Broker
from ssepool.brokers.record import Record
from ssepool.core.timelines import Timelines
from ssepool.errors import BrokerError
from tools import require

T = TypeVar("T")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A server whose whole history is in the snapshot that `SAVE` writes."""
    yield from started(tmp_path / "one")


@pytest.fixture
def replica(tmp_path: Path, server: Redis) -> Iterator[Redis]:
    """Another one, which is its replica and has all of it."""
    for other in started(tmp_path / "two"):
        other.ask(f"REPLICAOF 127.0.0.1 {server.port}")
        deadline = time.monotonic() + DEADLINE
        while b"master_link_status:up" not in other.ask("INFO replication"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield other


def started(directory: Path) -> Iterator[Redis]:
    require("redis-server")
    service = Redis(directory)
    service.options = ("--appendonly", "no", "--save", "", "--repl-diskless-sync-delay", "0")
    service.start()
    yield service
    service.kill()


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of a server that may have been away: connections that broke are made again."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(BrokerError):
                return await ask()
            await asyncio.sleep(0.02)


class Seen:
    """All ids that any broker has ever given out, and what they named."""

    def __init__(self) -> None:
        self.named: dict[str | None, str] = {}

    async def append(self, broker: Broker, *texts: str) -> None:
        """Append events, again until it succeeds."""
        stored = await answered(lambda: broker.append(batch(*texts)))
        for one, text in zip(stored, texts, strict=True):
            assert one.id not in self.named, f"{one.id} names {self.named[one.id]} and {text}"
            self.named[one.id] = text

    async def check(self, broker: Broker) -> None:
        """Check that what there is has the id that it had when it was published, and that ids are placed exactly."""
        bounds = await broker.bounds()
        timelines = Timelines(bounds.epoch, bounds.timelines)
        kept = {entry.id: entry.position for entry in await read_all(broker)}
        for entry in await read_all(broker):
            assert data([entry]) == [self.named[entry.id]]
            assert entry.id == f"{timelines.epoch_at(entry.position)}-{entry.position}"
        for id in self.named:
            assert await broker.find(str(id)) == kept.get(id)
            place = timelines.place(str(id), bounds.newest)
            assert place is not None
            assert place.complete == (id in kept)


def back_up(server: Redis) -> Path:
    server.ask("SAVE")
    return Path(shutil.copy(server.directory / "dump.rdb", server.directory / "backup.rdb"))


def restore(server: Redis, backup: Path) -> None:
    server.kill()
    shutil.copy(backup, server.directory / "dump.rdb")
    server.start()


@pytest.mark.parametrize("more", [0, 1, 30])
async def test_a_backup_restored_while_hubs_are_up(server: Redis, more: int) -> None:
    seen = Seen()
    async with opening(server.url("test")) as opened:
        brokers = [await opened() for _ in range(3)]
        await seen.append(brokers[0], *(f"kept {number}" for number in range(20)))
        backup = back_up(server)
        for number in range(30):
            await seen.append(brokers[number % 2], f"lost {number}")
        restore(server, backup)
        for number in range(more):  # in which none of them has looked yet
            await seen.append(brokers[number % 2], f"new {number}")
        bounds = [await answered(broker.bounds) for broker in brokers]
        if not more:  # as hubs do that see less than they had
            bounds = [await broker.renew(bounds[0].epoch) for broker in brokers]
        assert all(one == bounds[0] for one in bounds)
        assert {one.end for one in bounds[0].timelines} == {20}
        for broker in brokers:
            await seen.append(broker, "more")
            await seen.check(broker)


@pytest.mark.parametrize("kept", [0, 20])
async def test_a_backup_restored_while_hubs_are_down(server: Redis, kept: int) -> None:
    seen = Seen()
    async with opening(server.url("test")) as opened:
        first = await opened()
        await seen.append(first, "first", *(f"kept {number}" for number in range(kept)))
        backup = back_up(server)
        await seen.append(first, *(f"lost {number}" for number in range(30)))
        await first.close()
        for turn in range(3):  # each time the same backup, with its own list
            restore(server, backup)
            later = await opened()
            await seen.append(later, *(f"new {turn} {number}" for number in range(10 * turn)))
            await later.close()
        last = await opened()
        assert sorted({one.end for one in (await last.bounds()).timelines}) == [kept + 1, kept + 21]
        await seen.append(last, "last")
        kept_then = {entry.id for entry in await read_all(last)}
        assert {id for id, text in seen.named.items() if text.startswith(("kept", "new 2", "last"))} <= kept_then


async def test_who_has_never_seen_what_is_lost_does_not_give_its_ids_to_others(server: Redis) -> None:
    seen = Seen()
    async with opening(server.url("test")) as opened:
        one, other = await opened(), await opened()
        await seen.append(one, "kept")
        backup = back_up(server)
        await seen.append(one, "lost", "lost too")
        restore(server, backup)
        await seen.append(other, "new", "new too")  # it has seen no more than there is
        await seen.append(one, "more")
        for broker in (one, other):
            await answered(broker.bounds)
            await seen.check(broker)


@asynccontextmanager
async def before(server: Redis) -> AsyncIterator[tuple[Proxy, Open]]:
    """A wire to the server, with brokers behind it: it can be laid to another one."""
    with proxy_to(server.port) as proxy:
        async with opening(f"redis://127.0.0.1:{proxy.port}?name=test") as opened:
            yield proxy, opened


async def test_a_failover_to_a_replica_that_lacks_the_newest(server: Redis, replica: Redis) -> None:
    seen = Seen()
    async with before(server) as (wire, opened):
        brokers = [await opened() for _ in range(3)]
        await seen.append(brokers[0], *(f"kept {number}" for number in range(20)))
        await until(lambda: has_all(replica, 20))
        replica.ask("REPLICAOF 127.0.0.1 1")  # its link is cut, it keeps what it has
        for number in range(30):
            await seen.append(brokers[number % 3], f"lost {number}")
        server.kill()
        replica.ask("REPLICAOF NO ONE")
        wire.lead_to(replica.port)
        for number in range(30):
            await seen.append(brokers[number % 3], f"new {number}")
        for broker in brokers:
            await seen.check(broker)
            assert [one.end for one in (await broker.bounds()).timelines] == [20]


async def has_all(replica: Redis, newest: int) -> bool:
    return b"$%d\r\n%d\r\n" % (len(str(newest)), newest) == replica.ask("HGET {test}:state newest")


def test_nobody_misses_anything_untold_in_a_failover(server: Redis, replica: Redis) -> None:
    with proxy_to(server.port) as wire:
        url = f"redis://127.0.0.1:{wire.port}?name=test"
        with serve("detached", broker=url, broker_timeout=1.0) as hub, Stream(hub, "news").opened() as stream:
            kept = [publish(hub, f"kept {number}") for number in range(5)]
            stream.wait_data(*(f"kept {number}" for number in range(5)))
            wait_for(lambda: replica.ask("HGET {test}:state newest") == b"$1\r\n5\r\n", what="the replica to have them")
            replica.ask("REPLICAOF 127.0.0.1 1")
            lost = [publish(hub, f"lost {number}") for number in range(5)]
            stream.until(lambda s: s.data[-1] == "lost 4")
            server.kill()
            replica.ask("REPLICAOF NO ONE")
            wire.lead_to(replica.port)
            new = [publish(hub, f"new {number}") for number in range(5)]
            assert len({*kept, *lost, *new}) == 15
            stream.until(lambda s: s.data[-1] == "new 4")
            assert len(stream.of_type("ssepool.gap")) == 1
            for place, texts, gaps in ((kept[2], ["kept 3", "kept 4"], 0), (lost[3], [], 1), (new[0], [], 0)):
                with Stream(hub, "news", last_event_id=place) as late:
                    late.until(lambda s: s.data[-1:] == ["new 4"])
                    more = [f"new {number}" for number in range(1 if place == new[0] else 0, 5)]
                    assert (late.data, len(late.of_type("ssepool.gap"))) == (texts + more, gaps)


def publish(hub: LiveServer, text: str) -> str:
    """Publish an event, again until it succeeds, and return its id."""
    answers: list[Any] = []

    def is_published() -> bool:
        status, answer = hub.request("POST", "/events", {"topic": "news", "data": text})
        answers.append(answer)
        return status == 201

    wait_for(is_published, what=f"{text} published")
    [id] = answers[-1]["ids"]
    return str(id)


# What replicas have.


async def test_what_is_acknowledged_has_come_to_the_replica(server: Redis, replica: Redis) -> None:
    async with opening(f"{server.url('test')}&wait=1") as opened:
        broker = await opened()
        for number in range(1, 51):
            await broker.append(batch(str(number), ids=(f"id{number}",)))
            assert await has_all(replica, number)
        server.ask("SCRIPT FLUSH")
        assert positions(await broker.append(batch("more"))) == [51]
        assert await has_all(replica, 51)


async def test_what_has_not_come_to_the_replica_is_not_acknowledged(server: Redis, replica: Redis) -> None:
    async with opening(f"{server.url('test')}&wait=1") as opened:
        broker = await opened(broker_timeout=3.0)
        await broker.append(batch("a", ids=("one",)))
        replica.suspend()
        said = r": 0 of 1 replicas have what was written; the events may be published or not$"
        for _ in range(2):  # a repetition neither: it is not there until the replica has it
            with pytest.raises(BrokerError, match=said):
                await broker.append(batch("b", ids=("two",)))
        replica.resume()
        assert positions(await broker.append(batch("b", ids=("two",)))) == [2]
        assert await has_all(replica, 2)


# Descriptors.


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def connections(server: Redis) -> int:
    return int(server.ask("INFO clients").partition(b"connected_clients:")[2].partition(b"\r")[0]) - 1


async def test_connections_are_as_many_after_a_failover_as_before(server: Redis, replica: Redis) -> None:
    async with before(server) as (wire, opened):
        broker = await opened(broker_timeout=1.0)
        await broker.append(batch("a"))
        await until(lambda: has_all(replica, 1))
        tasks = [asyncio.create_task(follow(broker)), asyncio.create_task(listen(broker))]
        await ask_much(broker)
        full = connections(server)
        assert full <= 3 + 3  # one for an append, two for questions; tail, messages and presence
        server.kill()
        for _ in range(3):
            await ask_much(broker)
        replica.ask("REPLICAOF NO ONE")
        wire.lead_to(replica.port)

        async def is_as_before() -> bool:
            await ask_much(broker)
            return connections(replica) == full

        await until(is_as_before)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await broker.close()
        await until(lambda: no_connections(replica))


async def no_connections(server: Redis) -> bool:
    return connections(server) == 0


async def ask_much(broker: Broker) -> None:
    """As many questions at once as a hub has whose clients all come back."""
    await asyncio.gather(
        broker.append([Record(b"data: x\n\n", ("news",))]),
        broker.bounds(),
        broker.send(b"x"),
        *(broker.find("nobody") for _ in range(16)),
        return_exceptions=True,
    )


async def follow(broker: Broker) -> None:
    while True:
        with contextlib.suppress(BrokerError):
            async for page in broker.tail(0):
                assert page is not None
        await asyncio.sleep(0.02)


async def listen(broker: Broker) -> None:
    while True:
        with contextlib.suppress(BrokerError):
            async for message in broker.messages():
                assert message
        await asyncio.sleep(0.02)
