"""An application that a hub is part of, with hooks, streams of its own and middleware; for `live_hub`."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ssepool import Connection, Event, Hub


def build(hub: Hub) -> Starlette:
    """`/` is the hub's own surface; the other routes are an application's."""
    connects: collections.Counter[str] = collections.Counter()
    disconnects: collections.Counter[str] = collections.Counter()
    steps: dict[str, asyncio.Semaphore] = collections.defaultdict(lambda: asyncio.Semaphore(0))
    runs: collections.Counter[str] = collections.Counter()
    closed: collections.Counter[str] = collections.Counter()

    @hub.on_connect
    async def connected(connection: Connection) -> None:
        connects["all"] += 1
        if connection.data == "greet me":
            await connection.send({"hello": connection.id}, type="greeting")
        elif connection.data == "kick me":
            hub.kick(connection, seconds=0)
        elif connection.data == "fail":
            raise RuntimeError("a hook of the test fails")

    @hub.on_disconnect
    def disconnected(connection: Connection, reason: str) -> None:
        disconnects[reason] += 1

    @hub.on_message
    async def received(connection: Connection, data: Any) -> None:
        if data == "flood me":
            for number in range(1000):
                await connection.send(number, type="own")
        else:
            await connection.send({"echo": data, "topics": connection.topics}, type="echo")
            await hub.publish("messages", {"from": connection.id, "data": data})

    async def mine(request: Request) -> Response:
        return hub.response(
            request, topics=[f"of/{request.path_params['user']}"], user=request.path_params["user"], data={"page": 3}
        )

    async def counts(request: Request) -> Response:
        return JSONResponse({"connects": connects["all"], "disconnects": disconnects, "runs": runs, "closed": closed})

    async def tokens(name: str) -> AsyncIterator[Any]:
        runs[name] += 1
        try:
            for number in range(10):
                await steps[name].acquire()
                yield Event(f"token {number}", type="token")
            if name.startswith("failing"):
                raise RuntimeError("a generator of the test fails")
        finally:
            closed[name] += 1

    async def answer(request: Request) -> Response:
        name = request.path_params["name"]
        return hub.stream(request, tokens(name), topic=f"answers/{name}" if "resumable" in name else None)

    async def step(request: Request) -> Response:
        for _ in range(int(request.query_params["by"])):
            steps[request.path_params["name"]].release()
        return Response(status_code=204)

    async def tag(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-middleware"] = "was here"
        return response

    routes = [
        Route("/mine/{user}", mine),
        Route("/counts", counts),
        Route("/answers/{name}", answer),
        Route("/answers/{name}/steps", step, methods=["POST"]),
    ]
    wrapped = [Middleware(BaseHTTPMiddleware, dispatch=tag), Middleware(GZipMiddleware)]
    return Starlette(
        routes=[*routes, Mount("/wrapped", routes=routes, middleware=wrapped), Mount("/", app=hub.app)],
        lifespan=hub.lifespan,
    )
