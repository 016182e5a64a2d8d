"""A FastAPI application behind middleware that compresses all that it can: `uvicorn compressed_app:app`, by the header
`X-Middleware`."""

from __future__ import annotations

import os
import zlib
from typing import Any

from brotli_asgi import BrotliMiddleware
from fastapi import FastAPI, Request, Response
from starlette.middleware.gzip import GZipMiddleware

from ssepool import Hub
from ssepool.config import load

hub = Hub(load(env=os.environ)[0])
inner = FastAPI()


@inner.get("/topics/{topic}")
async def listen(request: Request, topic: str) -> Response:
    return hub.response(request, topics=[topic])


class GzipsAll:
    """Compresses whatever comes, each part at once, and sends the head without waiting for a body."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        coder = zlib.compressobj(wbits=31)

        async def coded(message: Any) -> None:
            if message["type"] == "http.response.start":
                fields = [field for field in message["headers"] if field[0] != b"content-length"]
                message = {**message, "headers": [*fields, (b"Content-Encoding", b"gzip")]}
            elif message["type"] == "http.response.body":
                body = coder.compress(message.get("body", b"")) + coder.flush(zlib.Z_SYNC_FLUSH)
                if not message.get("more_body", False):
                    body += coder.flush()
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, coded)


class Measures(GzipsAll):
    """Says how long all is going to be, which it cannot know."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def measured(message: Any) -> None:
            if message["type"] == "http.response.start" and "ssepool.detach" in (scope.get("extensions") or {}):
                message = {**message, "headers": [*message["headers"], (b"Content-Length", b"0")]}
            await send(message)

        await self.app(scope, receive, measured)


APPS = {
    "brotli": BrotliMiddleware(inner, minimum_size=1),
    "gzip": GZipMiddleware(inner, minimum_size=1),
    "home-made": GzipsAll(inner),
    "measuring": Measures(inner),
}


async def coding(scope: Any, receive: Any, send: Any) -> None:
    """Send a request through the middleware that it names."""
    chosen = dict(scope["headers"]).get(b"x-middleware", b"").decode()
    await APPS.get(chosen, inner)(scope, receive, send)


app = FastAPI(lifespan=hub.lifespan)
app.mount("/coded", coding)
app.mount("/", hub.dev_app)
