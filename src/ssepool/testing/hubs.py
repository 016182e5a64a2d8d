"""What may happen to a hub and its clients, at a test's word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from ssepool.core.states import Reason
from ssepool.hub import Hub
from ssepool.testing.client import WITHIN_SECONDS, Stream, stream
from ssepool.testing.lifespan import running

TOPIC = "ssepool-testing/fill"
"""What the clients of `fill` follow."""

TURNS = 200
"""Turns of the event loop that slots have to become free before time passes."""


@contextlib.asynccontextmanager
async def fill(hub: Hub, *, leave: int = 0) -> AsyncIterator[list[Stream]]:
    """Take all free slots of a hub but `leave`, with clients that leave when the block ends. One that is to leave
    earlier may `drop`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hub.response(Request(scope), topics=[TOPIC])(scope, receive, send)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(app))
        clients: list[Stream] = []
        while hub.stats().pool.free > leave:
            client = await stack.enter_async_context(stream(app, "/"))
            await client.connection_id()  # else it was turned away
            clients.append(client)
        yield clients


async def kick(hub: Hub, client: Stream) -> None:
    """Send a client away, as `Hub.kick` does."""
    hub.kick(await _connection_of(hub, client))


async def expire(hub: Hub, client: Stream, reason: str = Reason.TOKEN_EXPIRED) -> None:
    """End a client's stream as if its time were up: `token_expired`, or `lifetime`, `idle` or another reason. With a
    virtual clock, `clock.advance` brings the true thing about."""
    (await _connection_of(hub, client)).close(reason)


async def _connection_of(hub: Hub, client: Stream) -> Any:
    id = await client.connection_id()
    connection = hub.connection(id)
    if connection is None:
        raise AssertionError(f"{hub!r} has no connection {id}: its client has left, or is another hub's")
    return connection


async def make_gap(hub: Hub) -> None:
    """Have the hub forget all that it kept, as if `history_age` had passed: who resumes gets `ssepool.gap`.

    Raises `NotImplementedError` for a broker that is not `memory://`: there `clock.advance` of a virtual clock lets a
    history grow old.
    """
    log = hub.parts.engine.log
    if not log.complete:
        raise NotImplementedError("make_gap is for the broker memory://; let time pass with virtual_clock instead")
    log.window.clear()


async def assert_all_slots_free(hub: Hub, *, within: float = WITHIN_SECONDS) -> None:
    """Fail unless all slots of a hub are free, and nobody waits, within so many seconds."""
    loop = asyncio.get_running_loop()
    deadline, turns = loop.time() + within, 0
    while (pool := hub.stats().pool).free < pool.size or pool.waiting:
        turns += 1
        if loop.time() >= deadline:
            held = "".join(f"\n    {connection!r} {connection.topics}" for connection in hub.connections)
            raise AssertionError(
                f"after {within:g} s {pool.size - pool.free} of {pool.size} slots are not free, and {pool.waiting} "
                f"requests wait:{held}"
            )
        await asyncio.sleep(0 if turns < TURNS else 0.01)
