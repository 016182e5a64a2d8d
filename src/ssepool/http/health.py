"""/health: whether the process lives and whether it takes clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ssepool.http.errors import APIError
from ssepool.http.reply import JSONReply

if TYPE_CHECKING:
    from ssepool.runtime.hub import Hub


def routes(hub: Hub) -> list[BaseRoute]:
    """The routes of this file. They take any query parameters: probes like to add some."""

    async def live(request: Request) -> Response:
        return JSONReply({"status": "live"})

    async def ready(request: Request) -> Response:
        if hub.unready is not None:
            raise APIError(503, "not_ready", hub.unready)
        return JSONReply({"status": "ready"})

    return [
        Route("/health/live", live, methods=["GET"]),
        Route("/health/ready", ready, methods=["GET"]),
    ]
