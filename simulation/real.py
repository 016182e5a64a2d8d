"""A real hub in real time, to see whether the model of replays tells the truth.

Clients come back within three seconds, each with an id from some seconds ago, while events go on that none of them
wants. The hub streams to them on detached sockets, as under `ssepool serve`; no network is
involved.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from starlette.requests import Request

from ssepool import Hub, HubConfig, PoolConfig

CLIENTS = 2_000
BEFORE_SECONDS = 3.0
"""How long events are published before the first client comes back: that is what it has missed."""
RETURN_SECONDS = 3.0
"""The time over which the clients come back, evenly."""
WATCH_SECONDS = 18.0
"""How long the clients are counted, from the moment that the first one comes back."""
RATES = (200, 400, 600, 800, 1000)


def main() -> None:
    """Print, for each rate of events, how many clients were live some seconds after they began to come back."""
    print(f"{CLIENTS} clients; live after seconds:")
    for rate in RATES:
        live = asyncio.run(_play(rate))
        print(f"  {rate:>5} events/s: " + ", ".join(f"{second}: {count}" for second, count in live.items()), flush=True)


class Handed:
    """What a server would hand over: one end of a pair of sockets."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.sink: Any = None

    def gone(self) -> None:
        """There is no server to tell."""


async def _play(rate: int) -> dict[int, int]:
    async with Hub(HubConfig(pool=PoolConfig(size=CLIENTS))) as hub:
        first = await hub.publish("others", "x" * 100)
        publisher = asyncio.create_task(_publish(hub, rate))
        await asyncio.sleep(BEFORE_SECONDS)
        clients = [
            asyncio.create_task(_client(hub, first, RETURN_SECONDS * place / CLIENTS)) for place in range(CLIENTS)
        ]
        live: dict[int, int] = {}
        began = time.monotonic()
        for second in range(3, int(WATCH_SECONDS) + 1, 3):
            await asyncio.sleep(began + second - time.monotonic())
            feeds = hub.parts.engine.feeds.listeners("quiet")
            live[second] = sum(len(feed.members) for feed in feeds)
        publisher.cancel()
        for client in clients:
            client.cancel()
        await asyncio.gather(publisher, *clients, return_exceptions=True)
        return live


async def _publish(hub: Hub, rate: int) -> None:
    began, count = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * rate)
        for _ in range(due - count):
            hub.publish_nowait("others", "x" * 100)
        count = due
        await asyncio.sleep(0.01)


async def _client(hub: Hub, last: str, later: float) -> None:
    await asyncio.sleep(later)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def receive() -> dict[str, Any]:
        await asyncio.Future()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and handover.sink is not None:
            handover.sink.head(b"HTTP/1.1 200 OK\r\n\r\n")

    handover = Handed(ours.detach())
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"last-event-id", last.encode())],
        "query_string": b"",
        "client": None,
        "extensions": {"ssepool.detach": lambda: handover},
    }
    try:
        await hub.response(Request(scope), topics=["quiet"])(scope, receive, send)
        await asyncio.Future()
    finally:
        theirs.close()
