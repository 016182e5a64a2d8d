"""An application whose lifespan is its own, with a hub inside, that publishes until it ends: `uvicorn leaving_app:app`.

`/slow` is answered, with the id of what it has published, once the hub has begun to close. Where clients go the hook
publishes that, a moment later. The lifespan publishes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from ssepool import Connection, Hub
from ssepool.config import load

hub = Hub(load(env=os.environ)[0])


@hub.on_disconnect
async def gone(connection: Connection, reason: str) -> None:
    await asyncio.sleep(0.2)
    await hub.publish("ends", f"left: {reason}")


async def slow(request: Request) -> Response:
    print("slow has begun", flush=True)
    while hub.stats().pool.state == "open":
        await asyncio.sleep(0.01)
    return PlainTextResponse(await hub.publish("ends", "answered"))


async def identity(request: Request) -> Response:
    engine = hub.parts.engine
    return PlainTextResponse(f"{os.getpid()} {engine.node} {engine.connections.token('x')}")


async def uptime(request: Request) -> Response:
    return PlainTextResponse(str(hub.stats().uptime))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with hub:
        yield
        await hub.publish("ends", "lifespan")


routes = [Route("/slow", slow), Route("/identity", identity), Route("/uptime", uptime), Mount("/", hub.dev_app)]
app = Starlette(routes=routes, lifespan=lifespan)
