"""/connections: who is connected, one of them, kick one, and what a client sends while its stream is open."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ssepool.runtime.connection import Connection
    from ssepool.runtime.hub import Hub

PAGE = 100
"""Connections in an answer, unless `limit` says otherwise."""
MOST_PAGE = 1000
STATES = ("open", "closing")
SLICE = 250
"""Connections that are looked at in one go; other work of the event loop gets its turn in between."""
KICK = 30.0
"""Seconds that a kicked client stays away, unless `seconds` says otherwise."""
MOST_KICK = 3600
MOST_MESSAGE = 64 * KiB
"""Bytes of a client's message."""
ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def routes(hub: Hub) -> list[BaseRoute]:
    """The routes of this file."""

    def find(request: Request) -> Connection:
        name = request.path_params["id"]
        connection = hub.connection(name)
        if connection is None or not connection.is_open:
            raise APIError(404, "not_found", f"there is no connection {shown(name)}, or no longer")
        return connection

    async def list_connections(request: Request) -> Response:
        query = read_query(request, "topic", "user", "ip", "state", "limit", "after")
        limit = number("limit", query.get("limit", str(PAGE)), least=1, most=MOST_PAGE)
        wanted = _filter(query)
        found: list[dict[str, Any]] = []
        for place, connection in enumerate(hub.connections):
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if connection.is_open and wanted(connection):
                if len(found) == limit:
                    return JSONReply({"connections": found, "next": found[-1]["id"]})
                found.append(_describe(connection))
        return JSONReply({"connections": found, "next": None})

    async def get(request: Request) -> Response:
        read_query(request)
        return JSONReply(_describe(find(request)))

    async def kick(request: Request) -> Response:
        query = read_query(request, "seconds")
        hub.kick(find(request), seconds("seconds", query.get("seconds", str(KICK)), most=MOST_KICK))
        return Response(status_code=204)

    async def message(request: Request) -> Response:
        query = read_query(request, "token")
        connection = find(request)
        _check_token(request, query, connection)
        media_type(request, JSON)
        body = await read_body(request, MOST_MESSAGE)
        data = decode(ANYTHING, body, root="the body", code="invalid_json")
        find(request)  # it may have left while the body came
        await hub.receive(connection, data)
        return JSONReply({"accepted": True}, 202)

    return [
        Route("/connections", list_connections, methods=["GET"]),
        Route("/connections/{id}", get, methods=["GET"]),
        Route("/connections/{id}", kick, methods=["DELETE"]),
        Route("/connections/{id}/messages", message, methods=["POST"]),
    ]


def _filter(query: dict[str, str]) -> Callable[[Connection], bool]:
    """What a query asks for; raises `APIError` (400) for a value that is not allowed."""
    topic, user, ip, state = (query.get(name) for name in ("topic", "user", "ip", "state"))
    after = _slot(query["after"]) if "after" in query else -1
    if state not in (None, *STATES):
        message = f"state={shown(state)} is not allowed; it takes {' or '.join(STATES)}"
        raise APIError(400, "invalid_parameter", message)

    def wanted(connection: Connection) -> bool:
        return (
            (after < 0 or _slot(connection.id) > after)
            and (state is None or connection.state == state)
            and (user is None or connection.user == user)
            and (ip is None or connection.ip == ip)
            and (topic is None or topic in connection.topics or topic in connection.patterns)
        )

    return wanted


def _slot(id: str) -> int:
    """The index of the slot that an id names. It goes on counting where its connection has left meanwhile."""
    parts = id.rsplit("-", 2)
    if len(parts) == 3 and re.fullmatch("[0-9]{1,18}", parts[1]):
        return int(parts[1])
    raise APIError(400, "invalid_parameter", f"after={shown(id)} is not allowed; it takes next of the page before")


def _describe(connection: Connection) -> dict[str, Any]:
    """What others may know of a connection: everything but its token."""
    return {
        "id": connection.id,
        "state": connection.state,
        "user": connection.user,
        "ip": connection.ip,
        "topics": connection.topics,
        "patterns": connection.patterns,
        "data": _as_json(connection.data),
        "opened_at": connection.opened_at,
        "events_sent": connection.events_sent,
        "bytes_sent": connection.bytes_sent,
        "events_skipped": connection.events_skipped,
    }


def _as_json(data: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(data))
    except (TypeError, ValueError, RecursionError):
        # An application may keep whatever it likes on a connection.
        return msgspec.Raw(msgspec.json.encode(ascii(data)))


def _check_token(request: Request, query: dict[str, str], connection: Connection) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        given = query.get("token", "")
    elif scheme.lower() != "bearer":
        given = ""
    if not hmac.compare_digest(given.strip().encode(), connection.token.encode()):
        raise APIError(
            401,
            "invalid_token",
            "the token is missing or wrong; it takes the one from the ssepool.open event of this connection, "
            "as Authorization: Bearer, or as the query parameter token",
            {"WWW-Authenticate": "Bearer"},
        )
