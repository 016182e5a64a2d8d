"""A FastAPI application with middleware of both kinds around its streams: `uvicorn middleware_app:app`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware

from ssepool import Hub
from ssepool.config import load

hub = Hub(load(env=os.environ)[0])
app = FastAPI(lifespan=hub.lifespan)
app.add_middleware(GZipMiddleware, minimum_size=1)
app.add_middleware(
    CORSMiddleware,
    allow_origins=["https://friend.example"],
    allow_credentials=True,
    allow_headers=["last-event-id"],
    expose_headers=["x-seen"],
)


@app.middleware("http")
async def wraps(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    if "x-stop" in request.headers:
        return Response("not you", 403)
    response = await call_next(request)
    if "x-replace" in request.headers:
        return Response("something else", 418)
    response.headers["x-seen"] = request.url.path
    response.set_cookie("visited", "yes")
    return response


@app.get("/topics/{topic}")
async def listen(request: Request, topic: str) -> Response:
    return hub.response(request, topics=[topic])


ended: list[str] = []
"""The generators of `/fails` that are over, by their names."""


@app.get("/fails/{name}")
async def fails(request: Request, name: str) -> Response:
    async def broken() -> AsyncIterator[str]:
        try:
            yield "0"
            await asyncio.sleep(0)
            raise ValueError("the model is away")
        finally:
            ended.append(name)

    return hub.stream(request, broken(), own_events="own" not in name)


@app.get("/ended")
async def which() -> list[str]:
    return ended


@app.get("/count")
async def count(request: Request) -> Response:
    async def numbers() -> AsyncIterator[str]:
        for number in range(5):
            yield str(number)
            await asyncio.sleep(0)

    return hub.stream(request, numbers())


app.mount("/", hub.dev_app)
