"""An application that a hub is part of, for `test_servers`: it says of which process it is, and how many are there."""

from __future__ import annotations

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from ssepool import AccessConfig, Hub, HubConfig

hub = Hub(
    HubConfig(
        broker=os.environ.get("SERVED_BROKER", "memory://"),
        access=AccessConfig(public_topics=("pattern:*",)),
    )
)


async def publish(request: Request) -> Response:
    """`POST /say?a=text`"""
    return JSONResponse({"id": await hub.publish("a", request.query_params["text"], private=False)})


async def who(request: Request) -> Response:
    return JSONResponse({"pid": os.getpid(), "open": hub.stats().pool.open})


app = Starlette(
    routes=[Route("/say", publish, methods=["POST"]), Route("/who", who), Mount("/", app=hub.app)],
    lifespan=hub.lifespan,
)


opening: asyncio.Future[None] | None = None


async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """The same for a server that sends no lifespan, as docs/servers.md has it."""
    global opening
    if opening is None:
        opening = asyncio.ensure_future(hub.open())
    await asyncio.shield(opening)
    await app(scope, receive, send)
