"""/pool and /cluster: the numbers of this port and of all nodes, resize, drain."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.config import KiB, PoolConfig
from ssepool.core.grant import Grant
from ssepool.core.pool import DRAIN_SECONDS
from ssepool.core.report import ClusterReport
from ssepool.http.access.door import Door
from ssepool.http.access.gate import guarded, ordered
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.budget import Budget
from ssepool.http.errors import APIError
from ssepool.http.query import read_query
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.nodes import Nodes

MAX_BODY_BYTES = KiB
"""Bytes of the body of PATCH /pool and POST /pool/drain at most."""
MAX_DRAIN_SECONDS = 3600
"""Seconds that a drain takes at most."""

_SIZE = PoolConfig.__dataclass_fields__["size"].metadata


class Resize(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PATCH /pool."""

    size: Annotated[
        int,
        Meta(
            description="The new number of slots.",
            extra_json_schema={"minimum": _SIZE["min"], "maximum": _SIZE["max"]},
        ),
    ]


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /pool/drain."""

    seconds: Annotated[
        float,
        Meta(
            description="The time over which the clients are sent away.",
            extra_json_schema={"minimum": 0, "maximum": MAX_DRAIN_SECONDS},
        ),
    ] = DRAIN_SECONDS


RESIZE_DECODER = msgspec.json.Decoder(Resize)
"""Reads the body of PATCH /pool."""
DRAIN_DECODER = msgspec.json.Decoder(Drain)
"""Reads the body of POST /pool/drain."""


def routes(nodes: Nodes, budget: Budget, door: Door) -> list[BaseRoute]:
    """GET and PATCH /pool, POST /pool/drain, and GET /cluster. Bodies count in `budget`."""

    async def get(request: Request, grant: Grant) -> Response:
        read_query(request)
        return JSONReply(await nodes.here())

    async def resize(request: Request, grant: Grant) -> Response:
        read_query(request)
        media_type(request, JSON)
        async with read_body(request, MAX_BODY_BYTES, budget) as body:
            new = decode(RESIZE_DECODER, body, root="pool", code="invalid_setting", fields=Resize.__struct_fields__)
        ordered(request, size=new.size)
        await nodes.resize(new.size)
        return JSONReply(await nodes.here())

    async def cluster(request: Request, grant: Grant) -> Response:
        read_query(request)
        return JSONReply(ClusterReport(*await nodes.reports()))

    async def drain(request: Request, grant: Grant) -> Response:
        read_query(request)
        async with read_body(request, MAX_BODY_BYTES, budget) as body:
            order = _drain_order(request, body)
        ordered(request, seconds=order.seconds)
        await nodes.drain(order.seconds)
        return JSONReply({"draining": True, "seconds": order.seconds}, 202)

    return [
        guarded(door, "/pool", get, methods=["GET"], needs="metrics"),
        guarded(door, "/pool", resize, methods=["PATCH"], needs="pool"),
        guarded(door, "/pool/drain", drain, methods=["POST"], needs="pool"),
        guarded(door, "/cluster", cluster, methods=["GET"], needs="metrics"),
    ]


def _drain_order(request: Request, body: bytes) -> Drain:
    """The body of POST /pool/drain; an empty one stands for the default. Raises `APIError` (400 or 415)."""
    if not body:
        return Drain()
    media_type(request, JSON)
    order = decode(DRAIN_DECODER, body, root="drain", code="invalid_setting", fields=Drain.__struct_fields__)
    if not 0 <= order.seconds <= MAX_DRAIN_SECONDS:
        message = f"drain.seconds is {order.seconds:g}; it takes a number from 0 to {MAX_DRAIN_SECONDS}"
        raise APIError(400, "invalid_setting", message)
    return order
