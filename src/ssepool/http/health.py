"""/health: whether the process lives, and whether it takes clients."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.http.access.gate import Gate
from ssepool.http.errors import APIError
from ssepool.http.reply import JSONReply
from ssepool.runtime.engine import Engine


def routes(engine: Engine, *, explained: bool) -> list[BaseRoute]:
    """GET /health/live and /health/ready, which is `explained` to operators. They take any query parameter, because
    probes like to add some."""

    async def live(request: Request) -> Response:
        return JSONReply({"status": "live"})

    async def ready(request: Request) -> Response:
        if engine.unready is not None:
            raise APIError(503, "not_ready", engine.unready if explained else "the hub takes no clients at the moment")
        return JSONReply({"status": "ready"})

    return [
        Gate("/health/live", live, methods=["GET"], needs="nothing"),
        Gate("/health/ready", ready, methods=["GET"], needs="nothing"),
    ]
