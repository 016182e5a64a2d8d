"""GET /audit: the last of what operators did, and of what was refused for want of rights."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.core.audit import Entry
from ssepool.core.grant import Grant
from ssepool.http.access.door import Door
from ssepool.http.access.gate import guarded
from ssepool.http.query import number, read_query
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.nodes import Nodes

PAGE_ENTRIES = 100
"""Entries of an answer, unless `limit` gives another number."""
MAX_PAGE_ENTRIES = 1000
"""Entries of an answer at most: the largest `limit`."""


class AuditLog(msgspec.Struct):
    """The answer of GET /audit."""

    entries: Annotated[list[Entry], Meta(description="The newest first.")]
    missing: Annotated[list[str], Meta(description="Workers that did not answer: theirs are not among them.")]


def routes(nodes: Nodes, door: Door) -> list[BaseRoute]:
    """GET /audit, for all workers of this port."""

    async def get(request: Request, grant: Grant) -> Response:
        limit = read_query(request, "limit").get("limit", str(PAGE_ENTRIES))
        count = number("limit", limit, minimum=1, maximum=MAX_PAGE_ENTRIES)
        return JSONReply(AuditLog(*await nodes.audit(count)))

    return [guarded(door, "/audit", get, methods=["GET"], needs="audit")]
