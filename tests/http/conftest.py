"""A real hub, its HTTP surface without a socket, and streams of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import ASGIApp

from parts import open_app
from ssepool import Hub, HubConfig, PoolConfig
from ssepool.core.decoder import Decoder
from ssepool.core.decoder import Message as Event

Subscribe = Callable[..., Awaitable["Stream"]]


@pytest.fixture
def config() -> HubConfig:
    return HubConfig(pool=PoolConfig(size=4), max_body=100_000, max_event_size=1000)


@pytest.fixture
async def hub(config: HubConfig) -> AsyncIterator[Hub]:
    async with Hub(config) as hub:
        yield hub


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `hub.dev_app`; what is raised through the application is raised here."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.dev_app), base_url="http://hub") as http:
        yield http


@pytest.fixture
async def subscribe(hub: Hub) -> AsyncIterator[Subscribe]:
    """Opens a stream: `await subscribe("topic=a", ip="10.0.0.1")`. With `opens=False` it is only asked for. All are
    left when the test ends."""
    app = open_app(hub)
    async with AsyncExitStack() as streams:

        async def subscribe(query: str, ip: str = "127.0.0.1", *, opens: bool = True) -> Stream:
            stream = Stream(app, query, ip)
            streams.push_async_callback(stream.leave)
            if opens:
                await stream.opened()
            return stream

        yield subscribe


class Stream:
    """A client of GET /events that reads as an EventSource would."""

    def __init__(self, app: ASGIApp, query: str, ip: str) -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET",
            "path": "/events",
            "raw_path": b"/events",
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"hub")],
            "client": (ip, 1234),
            "server": ("hub", 80),
        }
        self.id = self.token = ""
        self.status = 0
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._decoder = Decoder()
        self._left = asyncio.Event()
        self._requests = [{"type": "http.request", "body": b"", "more_body": False}]
        self._task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._requests:
            return self._requests.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        for event in self._decoder.feed(message.get("body", b"")):
            self._events.put_nowait(event)

    async def opened(self) -> None:
        first = await self.next("ssepool.open")
        opened = msgspec.json.decode(first.data)
        self.id, self.token = opened["connection"], opened["token"]

    async def next(self, type: str = "message") -> Event:
        """The next event, which must be of this type."""
        async with asyncio.timeout(5):
            event = await self._events.get()
        assert event.type == type, event
        return event

    async def leave(self) -> None:
        """Disconnect, and wait until the hub has noticed."""
        self._left.set()
        await self.ended()

    async def ended(self) -> None:
        """Wait until the request is over."""
        async with asyncio.timeout(5):
            await self._task
