"""An application that a hub is part of, with hooks, a stream of its own and middleware; for `live_hub`."""

from __future__ import annotations

import asyncio
import collections
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssepool import Connection, Hub


def build(hub: Hub) -> Starlette:
    """`/` is the hub's own surface, `/mine/{user}` the application's stream, `/counts` what the hooks have seen."""
    connects: collections.Counter[Any] = collections.Counter()
    disconnects: collections.Counter[str] = collections.Counter()

    @hub.on_connect
    async def connected(connection: Connection) -> None:
        connects[str(connection.data)] += 1
        if connection.data == "greet me":
            await connection.send({"hello": connection.id}, type="greeting")
        elif connection.data == "kick me":
            hub.kick(connection, seconds=0)
        elif connection.data == "fail":
            raise RuntimeError("this hook fails on purpose")

    @hub.on_disconnect
    def disconnected(connection: Connection, reason: str) -> None:
        disconnects[reason] += 1

    @hub.on_message
    async def received(connection: Connection, data: Any) -> None:
        if isinstance(data, dict) and "flood" in data:
            for number in range(data["flood"]):
                await connection.send(f"{number} " + "x" * 1000, type="own")
        else:
            await connection.send({"echo": data, "topics": connection.topics}, type="echo")
            await hub.publish("messages", {"from": connection.id, "data": data})

    async def mine(request: Request) -> Response:
        user = request.path_params["user"]
        begin = request.query_params.get("begin")
        return hub.response(request, topics=[f"of/{user}"], user=user, data={"page": 3}, last_event_id=begin)

    async def counts(request: Request) -> Response:
        return JSONResponse({"connects": connects, "disconnects": disconnects})

    async def tag(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-middleware"] = "was here"
        return response

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=tag), Middleware(GZipMiddleware)]
    wrapped = Mount("/wrapped", routes=[Route("/mine/{user}", mine)], middleware=middleware)
    watched = Mount("/watched", routes=[Route("/mine/{user}", mine)], middleware=[Middleware(Watchful)])
    routes = [Route("/mine/{user}", mine), Route("/counts", counts), wrapped, watched, Mount("/", app=hub.dev_app)]
    return Starlette(routes=routes, lifespan=hub.lifespan)


class Watchful:
    """Middleware that cancels the application when the client leaves, as some servers' and frameworks' does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        application = asyncio.create_task(self.app(scope, messages.get, send))

        async def watch() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                messages.put_nowait(message)
            application.cancel()

        watcher = asyncio.create_task(watch())
        await asyncio.wait([application])
        watcher.cancel()
