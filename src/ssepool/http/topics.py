"""GET /topics: what is kept of each topic, who listens to it, and how often is published to it."""

from __future__ import annotations

from typing import Annotated, cast, get_args

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.core.grant import Grant
from ssepool.core.topics import shown
from ssepool.http.access.door import Door
from ssepool.http.access.gate import guarded
from ssepool.http.errors import APIError
from ssepool.http.query import number, read_query
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.messages import FindTopics, TopicOrder
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.cluster.topics import TopicInfo

PAGE_TOPICS = 100
"""Topics of a page, unless `limit` gives another number."""
MAX_PAGE_TOPICS = 1000
"""Topics of a page at most: the largest `limit`."""
ORDERS: tuple[str, ...] = get_args(TopicOrder)
"""The values of the parameter `sort`."""


class TopicList(msgspec.Struct):
    """The answer of GET /topics: one page."""

    topics: Annotated[list[TopicInfo], Meta(description="In the order of their names, or those that have most first.")]
    next: Annotated[str | None, Meta(description="`after` of the next page; null on the last one.")]
    missing: Annotated[list[str], Meta(description="Nodes that did not answer: their subscribers are not counted.")]


def routes(nodes: Nodes, door: Door) -> list[BaseRoute]:
    """GET /topics, for all nodes."""

    async def list_topics(request: Request, grant: Grant) -> Response:
        topics, more, missing = await nodes.topics.page(_wanted(read_query(request, *PARAMETERS)))
        return JSONReply(TopicList(topics, topics[-1].topic if more else None, missing))

    # Names of topics often say whose they are: who reads numbers alone need not see them.
    return [guarded(door, "/topics", list_topics, methods=["GET"], needs="connections")]


PARAMETERS = ("prefix", "sort", "limit", "after")
"""The query parameters of GET /topics."""


def _wanted(query: dict[str, str]) -> FindTopics:
    """The question that a query asks; raises `APIError` (400) for a value that is not allowed."""
    limit = number("limit", query.get("limit", str(PAGE_TOPICS)), minimum=1, maximum=MAX_PAGE_TOPICS)
    sort = query.get("sort", "name")
    if sort not in ORDERS:
        message = f"sort={shown(sort)} is not allowed; it takes {', '.join(ORDERS[:-1])} or {ORDERS[-1]}"
        raise APIError(400, "invalid_parameter", message)
    if "after" in query and sort != "name":
        message = f"after is not allowed with sort={sort}: pages follow each other by name alone"
        raise APIError(400, "invalid_parameter", message)
    return FindTopics(limit, cast(TopicOrder, sort), query.get("prefix", ""), query.get("after", ""))
