"""/connections: who is connected, one of them, kick one, and what a client sends while its stream is open."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ssepool.config import KiB
from ssepool.core.topics import shown
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.errors import APIError
from ssepool.http.query import number, read_query, seconds
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.messages import FindConnections, Outcome
from ssepool.runtime.cluster.nodes import Nodes

PAGE = 100
"""Connections in an answer, unless `limit` says otherwise."""
MOST_PAGE = 1000
PARAMETERS = ("topic", "user", "ip", "state", "limit", "after")
STATES = ("open", "closing")
KICK = 30.0
"""Seconds that a kicked client stays away, unless `seconds` says otherwise."""
MOST_KICK = 3600
MOST_MESSAGE = 64 * KiB
"""Bytes of a client's message."""
ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def routes(nodes: Nodes) -> list[BaseRoute]:
    """The routes of this file. They reach the connections of all nodes."""

    async def list_connections(request: Request) -> Response:
        page, missing = await nodes.connections(_wanted(read_query(request, *PARAMETERS)))
        following = page.connections[-1].id if page.more else None
        return JSONReply({"connections": page.connections, "next": following, "missing": missing})

    async def get(request: Request) -> Response:
        read_query(request)
        id = request.path_params["id"]
        return JSONReply(_there(id, await nodes.connection(id)))

    async def kick(request: Request) -> Response:
        query = read_query(request, "seconds")
        id = request.path_params["id"]
        apart = seconds("seconds", query.get("seconds", str(KICK)), most=MOST_KICK)
        _there(id, await nodes.kick(id, apart) or None)
        return Response(status_code=204)

    async def message(request: Request) -> Response:
        query = read_query(request, "token")
        id, token = request.path_params["id"], _token(request, query)
        _check(id, nodes.expects(id, token))
        media_type(request, JSON)
        body = await read_body(request, MOST_MESSAGE)
        data = decode(ANYTHING, body, root="the body", code="invalid_json")
        _check(id, await nodes.receive(id, token, data))  # it may have left while the body came
        return JSONReply({"accepted": True}, 202)

    return [
        Route("/connections", list_connections, methods=["GET"]),
        Route("/connections/{id}", get, methods=["GET"]),
        Route("/connections/{id}", kick, methods=["DELETE"]),
        Route("/connections/{id}/messages", message, methods=["POST"]),
    ]


def _there(id: str, found: Any) -> Any:
    if found is None:
        raise APIError(404, "not_found", f"there is no connection {shown(id)}, or no longer")
    return found


def _check(id: str, outcome: Outcome) -> None:
    if outcome == "invalid_token":
        raise _wrong_token()
    _there(id, None if outcome == "not_found" else outcome)


def _wanted(query: dict[str, str]) -> FindConnections:
    """What a query asks for; raises `APIError` (400) for a value that is not allowed."""
    limit = number("limit", query.get("limit", str(PAGE)), least=1, most=MOST_PAGE)
    topic, user, ip, state = (query.get(name) for name in ("topic", "user", "ip", "state"))
    if state not in (None, *STATES):
        message = f"state={shown(state)} is not allowed; it takes {' or '.join(STATES)}"
        raise APIError(400, "invalid_parameter", message)
    return FindConnections(limit, topic, user, ip, state, _place(query["after"]) if "after" in query else None)


def _place(id: str) -> tuple[str, int]:
    """The node and the slot that an id names. They go on counting where its connection has left meanwhile."""
    parts = id.rsplit("-", 2)
    if len(parts) == 3 and re.fullmatch("[0-9]{1,18}", parts[1]):
        return parts[0], int(parts[1])
    raise APIError(400, "invalid_parameter", f"after={shown(id)} is not allowed; it takes next of the page before")


def _token(request: Request, query: dict[str, str]) -> str:
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
