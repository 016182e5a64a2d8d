"""The plain path without a server: what belongs to whom when a client is cut off in the middle of a `send`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request

from ssepool.config import HubConfig, PoolConfig
from ssepool.core.states import Reason
from ssepool.runtime.hub import Hub


class Client:
    """A client that takes what it is sent as long as it wants to."""

    def __init__(self, hub: Hub, data: str) -> None:
        self.hub, self.data = hub, data
        self.takes = asyncio.Event()
        self.takes.set()
        self.received = b""
        self.scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": [], "query_string": b""}
        self.response = hub.response(Request(self.scope), topics=["news"], data=data)
        self.task = asyncio.create_task(self.response(self.scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.received += message.get("body", b"")

    @property
    def connection(self) -> Any:
        return next((found for found in self.hub.connections if found.data == self.data), None)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(HubConfig(pool=PoolConfig(size=1), detach=False)) as hub:
        yield hub


@pytest.mark.parametrize("fails", [False, True], ids=["cut off", "failing"])
async def test_a_write_that_ends_late_is_not_counted_for_the_next_client(hub: Hub, fails: bool) -> None:
    first = Client(hub, "first")
    await until(lambda: b"ssepool.open" in first.received)
    second = Client(hub, "second")
    await until(lambda: hub.pool.waiting)
    slot = hub.pool.slots[0]

    first.takes.clear()
    await hub.publish("news", "never taken")
    await until(lambda: slot.holder.stalled)
    if fails:

        async def broken(message: Any) -> None:
            raise ConnectionResetError

        slot.holder._send = broken  # for what comes after this write
        first.takes.set()
        await hub.publish("news", "into the void")
    else:
        slot.holder.end(Reason.SEND_TIMEOUT)
    await until(lambda: b"ssepool.open" in second.received)
    await asyncio.wait_for(first.task, 10)
    assert second.connection.bytes_sent == len(second.received)
    await hub.publish("news", "taken")
    await until(lambda: b"data: taken\n\n" in second.received)
    assert second.connection.bytes_sent == len(second.received)
    assert b"never taken" not in second.received
    assert hub.stats().bytes_sent == len(first.received) + len(second.received)


async def test_a_cancelled_request_frees_its_slot(hub: Hub) -> None:
    client = Client(hub, "cancelled by its server")
    await until(lambda: b"ssepool.open" in client.received)
    waiting = Client(hub, "waits")
    await until(lambda: hub.pool.waiting)
    waiting.task.cancel()
    client.task.cancel()
    for task in (waiting.task, client.task):
        with pytest.raises(asyncio.CancelledError):
            await task
    stats = hub.pool.stats()
    assert (stats.free, stats.waiting, stats.cancelled, stats.released["error"]) == (1, 0, 1, 1)
