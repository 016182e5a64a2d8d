"""/connections: list the clients, describe or kick one of them, and take a client's messages while it is connected."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.config import KiB
from ssepool.core.bans import KICK_SECONDS
from ssepool.core.grant import Grant
from ssepool.core.topics import shown
from ssepool.http.access.door import Door
from ssepool.http.access.gate import Gate, guarded, ordered
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.budget import Budget
from ssepool.http.errors import APIError
from ssepool.http.query import number, read_query, seconds
from ssepool.http.rates import check_rate
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.messages import ConnectionInfo, ConnectionState, FindConnections, KickAll, Outcome
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.engine import Engine

PAGE_CONNECTIONS = 100
"""Connections of a page, unless `limit` gives another number."""
MAX_PAGE_CONNECTIONS = 1000
"""Connections of a page at most: the largest `limit`."""
PARAMETERS = ("topic", "user", "ip", "state", "limit", "after")
"""The query parameters of GET /connections."""
FILTERS = ("topic", "user", "ip")
"""The query parameters of DELETE /connections that say whom."""
STATES: tuple[str, ...] = get_args(ConnectionState)
"""The values of the parameter `state`."""
MAX_KICK_SECONDS = 3600
"""Seconds that a kicked client is kept away at most."""
MAX_MESSAGE_BYTES = 64 * KiB
"""Bytes of a client's message at most."""
JSON_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
"""Reads a client's message, which may be any JSON."""


class ConnectionList(msgspec.Struct):
    """The answer of GET /connections: one page."""

    connections: Annotated[list[ConnectionInfo], Meta(description="In the order of nodes and slots.")]
    next: Annotated[str | None, Meta(description="`after` of the next page; null on the last one.")]
    missing: Annotated[list[str], Meta(description="Nodes that did not answer: theirs are not among them.")]


class Kicked(msgspec.Struct):
    """The answer of DELETE /connections."""

    kicked: Annotated[int, Meta(description="Clients that are sent away.", ge=0)]
    missing: Annotated[list[str], Meta(description="Nodes that did not answer: they may have more of them.")]


def routes(nodes: Nodes, door: Door) -> list[BaseRoute]:
    """GET and DELETE /connections, GET and DELETE /connections/{id}, for all nodes."""

    async def list_connections(request: Request, grant: Grant) -> Response:
        page, missing = await nodes.connections(_wanted(read_query(request, *PARAMETERS)))
        following = page.connections[-1].id if page.more else None
        return JSONReply(ConnectionList(page.connections, following, missing))

    async def get(request: Request, grant: Grant) -> Response:
        read_query(request)
        id = request.path_params["id"]
        return JSONReply(_there(id, await nodes.connection(id)))

    async def kick(request: Request, grant: Grant) -> Response:
        apart = _apart(read_query(request, "seconds"))
        id = request.path_params["id"]
        ordered(request, seconds=apart)
        _there(id, await nodes.kick(id, apart) or None)
        return Response(status_code=204)

    async def kick_all(request: Request, grant: Grant) -> Response:
        query = read_query(request, *FILTERS, "seconds")
        wanted = {name: query[name] for name in FILTERS if name in query}
        if not wanted:
            message = f"DELETE /connections takes at least one of {', '.join(FILTERS)}: it does not kick everybody"
            raise APIError(400, "invalid_parameter", message)
        order = KickAll(**wanted, seconds=_apart(query))
        ordered(request, **wanted, seconds=order.seconds)
        return JSONReply(Kicked(*await nodes.kick_all(order)))

    return [
        guarded(door, "/connections", list_connections, methods=["GET"], needs="connections"),
        guarded(door, "/connections", kick_all, methods=["DELETE"], needs="kick"),
        guarded(door, "/connections/{id}", get, methods=["GET"], needs="connections"),
        guarded(door, "/connections/{id}", kick, methods=["DELETE"], needs="kick"),
    ]


def message_routes(engine: Engine, nodes: Nodes, budget: Budget) -> list[BaseRoute]:
    """POST /connections/{id}/messages, for all nodes. Bodies count in `budget`, messages for a rate."""

    async def message(request: Request) -> Response:
        query = read_query(request, "token")
        check_rate(engine, request, "message")
        id, token = request.path_params["id"], _token(request, query)
        _check(id, nodes.expects(id, token))
        media_type(request, JSON)
        async with read_body(request, MAX_MESSAGE_BYTES, budget) as body:
            data = decode(JSON_DECODER, body, root="the body", code="invalid_json")
        _check(id, await nodes.receive(id, token, data))  # the client may have left while the body came
        return JSONReply({"accepted": True}, 202)

    return [Gate("/connections/{id}/messages", message, methods=["POST"], needs="connection")]


def _apart(query: dict[str, str]) -> float:
    """For how many seconds those who are kicked are kept away. Raises `APIError` (400)."""
    return seconds("seconds", query.get("seconds", str(KICK_SECONDS)), maximum=MAX_KICK_SECONDS)


def _there(id: str, found: Any) -> Any:
    """`found`, the connection or the outcome for it; raises `APIError` (404) for None."""
    if found is None:
        raise APIError(404, "not_found", f"there is no connection {shown(id)}, or no longer")
    return found


def _check(id: str, outcome: Outcome) -> None:
    """Raise `APIError` (401 or 404) for a message that the connection does not take."""
    if outcome == "invalid_token":
        raise _wrong_token()
    _there(id, None if outcome == "not_found" else outcome)


def _wanted(query: dict[str, str]) -> FindConnections:
    """The question that a query asks; raises `APIError` (400) for a value that is not allowed."""
    limit = number("limit", query.get("limit", str(PAGE_CONNECTIONS)), minimum=1, maximum=MAX_PAGE_CONNECTIONS)
    topic, user, ip, state = (query.get(name) for name in ("topic", "user", "ip", "state"))
    if state not in (None, *STATES):
        message = f"state={shown(state)} is not allowed; it takes {' or '.join(STATES)}"
        raise APIError(400, "invalid_parameter", message)
    return FindConnections(limit, topic, user, ip, state, _place(query["after"]) if "after" in query else None)


def _place(id: str) -> tuple[str, int]:
    """The node and the slot in a connection's id. The next page begins behind them even if that client has left."""
    parts = id.rsplit("-", 2)
    if len(parts) == 3 and re.fullmatch("[0-9]{1,18}", parts[1]):
        return parts[0], int(parts[1])
    raise APIError(400, "invalid_parameter", f"after={shown(id)} is not allowed; it takes next of the page before")


def _token(request: Request, query: dict[str, str]) -> str:
    """The token from `Authorization: Bearer` (RFC 6750, 2.1), else from the query; empty if there is none."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        given = query.get("token", "")
    elif scheme.lower() != "bearer":
        given = ""
    return given.strip()


def _wrong_token() -> APIError:
    return APIError(
        401,
        "invalid_token",
        "the token is missing or wrong; it takes the one from the ssepool.open event of this connection, "
        "as Authorization: Bearer, or as the query parameter token",
        {"WWW-Authenticate": "Bearer"},
    )
