"""GET /events: the stream. The subscription stands in the query; see `Visit` for what resumes it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from ssepool.config import KiB
from ssepool.core.topics import Subscription, shown
from ssepool.core.visit import Scope as AnyScope
from ssepool.core.visit import Visit
from ssepool.http.errors import APIError
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine

PATH = "/events"

MOST_DATA = 2 * KiB
"""Bytes of the client's own data at the most."""

MOST_PATTERNS = 10
MOST_REGEXP = 64
"""Patterns of a subscription from outside, and characters of one that has a regular expression in it: compiling
`(\\w{100})` takes 80 ms and 20 MB, which a stranger must not be able to ask for again and again."""

PARAMETERS = ("topic", "pattern", "last_event_id", "lastEventId", "data")


def routes(engine: Engine) -> list[BaseRoute]:
    """The route of this file."""
    return [Route(PATH, Subscribe(engine), methods=["GET", "HEAD"])]


class Subscribe:
    """An ASGI application, not a request handler: a subscription needs nothing that Starlette would wrap around it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await EventStream(self._engine, read_visit(scope))(scope, receive, send)


def read_visit(scope: AnyScope) -> Visit:
    """What a request for the stream asks for. Raises `APIError` or `InvalidTopic`.

    A stranger has no right to private events.
    """
    query = read_subscription(scope["query_string"])
    subscription = Subscription.of(query["topic"], query["pattern"], private=False)
    return Visit.of(scope, subscription, data=query["data"])


def read_subscription(query_string: bytes) -> dict[str, Any]:
    """Topics, patterns and data of a query. Raises `APIError`."""
    found: dict[str, Any] = {"topic": [], "pattern": [], "data": None}
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise APIError(400, "invalid_query", f"the query is not percent-encoded UTF-8: {error}") from error
    for name, value in pairs:
        if name not in PARAMETERS:
            raise APIError(
                400, "unknown_parameter", f"there is no parameter {name!r}; GET /events takes {', '.join(PARAMETERS)}"
            )
        if name == "data":
            found["data"] = read_data(value)
        elif name in found:
            found[name].append(value)
    check_patterns(found["pattern"])
    return found


def check_patterns(patterns: list[str]) -> None:
    """Raise `APIError` for patterns that would cost too much."""
    if len(patterns) > MOST_PATTERNS:
        raise APIError(400, "invalid_topic", f"{len(patterns)} patterns; GET /events takes {MOST_PATTERNS} at most")
    for pattern in patterns:
        if "(" in pattern and (len(pattern) > MOST_REGEXP or "{" in pattern):
            raise APIError(
                400,
                "invalid_topic",
                f"pattern {shown(pattern)} is not allowed: with a regular expression in it, a pattern takes "
                f"{MOST_REGEXP} characters at most and no braces",
            )


def read_data(text: str) -> Any:
    if len(text.encode()) > MOST_DATA:
        raise APIError(
            400, "data_too_large", f"data has {len(text.encode())} bytes; it takes JSON of at most {MOST_DATA}"
        )
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise APIError(400, "invalid_json", f"data is not JSON: {error}") from error
