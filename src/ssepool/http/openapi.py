"""GET /openapi.json: a surface as an OpenAPI 3.2 document.

The paths are written in `operations/`, and a test compares them with the routes of the application. Which of them a
surface has, and what they take, is read off its routes. The schemas are derived (`schemas.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.http.access.gate import Gate
from ssepool.http.needs import SCHEMES, described
from ssepool.http.operations import MAX_QUERY, PATHS
from ssepool.http.reply import JSONReply
from ssepool.http.schemas import Schema, schemas


def routes() -> list[BaseRoute]:
    """GET /openapi.json."""

    async def openapi(request: Request) -> Response:
        paths = paths_of(request.app.routes)
        # Where the surface is mounted, its paths count from the prefix.
        return JSONReply(
            {**document(), "paths": paths, "servers": [{"url": request.scope.get("root_path", "") or "/"}]}
        )

    return [Gate("/openapi.json", openapi, methods=["GET"], needs="nothing")]


def paths_of(routes: Sequence[BaseRoute]) -> Schema:
    """The operations of these routes, each with what it takes and how it refuses those who have not that."""
    found: Schema = {}
    for route in routes:
        if not isinstance(route, Gate) or route.path not in PATHS:
            continue  # the files that make up the pages
        written = PATHS[route.path]
        item = found.setdefault(route.path, {key: written[key] for key in ("parameters",) if key in written})
        for method in {name.lower() for name in route.methods or ()} & written.keys():
            # Where a method is for two things, by what its request accepts, the later gate is for whoever says nothing.
            operation = written.get(f"{method} {route.needs}") or written[method]
            item[method] = described(operation, route.needs)
    return found


@cache
def document() -> Schema:
    """The document of everything, without `servers` and what the routes say. Made when it is first asked for: no server
    has to wait for it."""
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "ssepool",
            "version": "1",
            "description": (
                "Server-Sent Events from one managed, bounded pool of connections. Every refusal is JSON: "
                f'`{{"error": {{"code": "...", "message": "..."}}}}`. A query string takes {MAX_QUERY} at most (414). '
                "A request whose `Host` is not allowed is answered 421. With `failure_rate` everything but streams and "
                "health is answered 429 to an address of which too much was refused. Credentials twice are a 400."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": PATHS,
        "components": {"schemas": schemas(), "securitySchemes": SCHEMES},
    }
