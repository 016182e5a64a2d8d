"""/pool and /cluster: the numbers of this node and of all nodes, resize, drain."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ssepool.config import KiB
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.errors import APIError
from ssepool.http.query import read_query
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.nodes import Nodes

MOST_BODY = KiB
MOST_DRAIN = 3600


class Resize(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PATCH /pool."""

    size: int


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /pool/drain."""

    seconds: float = 30.0


RESIZE = msgspec.json.Decoder(Resize)
DRAIN = msgspec.json.Decoder(Drain)


def routes(nodes: Nodes) -> list[BaseRoute]:
    """The routes of this file."""

    async def get(request: Request) -> Response:
        read_query(request)
        return JSONReply(await nodes.here())

    async def resize(request: Request) -> Response:
        read_query(request)
        media_type(request, JSON)
        body = await read_body(request, MOST_BODY)
        new = decode(RESIZE, body, root="pool", code="invalid_setting", fields=Resize.__struct_fields__)
        await nodes.resize(new.size)
        return JSONReply(await nodes.here())

    async def cluster(request: Request) -> Response:
        read_query(request)
        reports, missing = await nodes.reports()
        return JSONReply({"nodes": reports, "missing": missing})

    async def drain(request: Request) -> Response:
        read_query(request)
        body = await read_body(request, MOST_BODY)
        order = Drain()
        if body:
            media_type(request, JSON)
            order = decode(DRAIN, body, root="drain", code="invalid_setting", fields=Drain.__struct_fields__)
        if not 0 <= order.seconds <= MOST_DRAIN:
            message = f"drain.seconds is {order.seconds:g}; it takes a number from 0 to {MOST_DRAIN}"
            raise APIError(400, "invalid_setting", message)
        await nodes.drain(order.seconds)
        return JSONReply({"draining": True, "seconds": order.seconds}, 202)

    return [
        Route("/pool", get, methods=["GET"]),
        Route("/pool", resize, methods=["PATCH"]),
        Route("/pool/drain", drain, methods=["POST"]),
        Route("/cluster", cluster, methods=["GET"]),
    ]
