"""The plain path without a server: what belongs to whom when a client is cut off in the middle of a `send`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parts import running, until
from ssepool.config import HubConfig, PoolConfig
from ssepool.core.event import Event
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine


class Client:
    """A client that takes what it is sent as long as it wants to."""

    def __init__(self, engine: Engine, data: str) -> None:
        self.engine, self.data = engine, data
        self.takes = asyncio.Event()
        self.takes.set()
        self.received = b""
        self.scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": [], "query_string": b""}
        self.response = EventStream(engine, Visit.of(self.scope, Subscription.of(["news"]), data=data))
        self.task = asyncio.create_task(self.response(self.scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.received += message.get("body", b"")

    @property
    def connection(self) -> Any:
        return next((found for found in self.engine.connections if found.data == self.data), None)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running(HubConfig(pool=PoolConfig(size=1), detach=False)) as engine:
        yield engine


async def publish(engine: Engine, data: str) -> None:
    await engine.publish_many([Event.of("news", data)])


@pytest.mark.parametrize("fails", [False, True], ids=["cut off", "failing"])
async def test_a_write_that_ends_late_is_not_counted_for_the_next_client(engine: Engine, fails: bool) -> None:
    first = Client(engine, "first")
    await until(lambda: b"ssepool.open" in first.received)
    second = Client(engine, "second")
    await until(lambda: engine.pool.waiting)
    slot = engine.pool.slots[0]

    first.takes.clear()
    await publish(engine, "never taken")
    await until(lambda: slot.holder.stalled)
    if fails:

        async def broken(message: Any) -> None:
            raise ConnectionResetError

        slot.holder._send = broken  # for what comes after this write
        first.takes.set()
        await publish(engine, "into the void")
    else:
        slot.holder.end(Reason.SEND_TIMEOUT)
    await until(lambda: b"ssepool.open" in second.received)
    await asyncio.wait_for(first.task, 10)
    assert second.connection.bytes_sent == len(second.received)
    await publish(engine, "taken")
    await until(lambda: b"data: taken\n\n" in second.received)
    assert second.connection.bytes_sent == len(second.received)
    assert b"never taken" not in second.received
    assert engine.stats().bytes_sent == len(first.received) + len(second.received)


async def test_a_cancelled_request_frees_its_slot(engine: Engine) -> None:
    client = Client(engine, "cancelled by its server")
    await until(lambda: b"ssepool.open" in client.received)
    waiting = Client(engine, "waits")
    await until(lambda: engine.pool.waiting)
    waiting.task.cancel()
    client.task.cancel()
    for task in (waiting.task, client.task):
        with pytest.raises(asyncio.CancelledError):
            await task
    stats = engine.pool.stats()
    assert (stats.free, stats.waiting, stats.cancelled, stats.released["error"]) == (1, 0, 1, 1)
