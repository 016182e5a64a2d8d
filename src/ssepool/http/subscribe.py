"""GET /events: the stream. The query string has the subscription; see `Visit` for how a client resumes."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from ssepool.config import KiB
from ssepool.core.frames import BEATING, DIALECT, Dialect
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.topics import Subscription, has_regexp, shown
from ssepool.core.visit import Scope as AnyScope
from ssepool.core.visit import Visit
from ssepool.errors import AuthorizeUnavailable, SSEPoolError, TokenExpired
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import Door
from ssepool.http.access.gate import Gate
from ssepool.http.depth import TOO_DEEP, is_too_deep
from ssepool.http.errors import APIError
from ssepool.http.query import pairs_of
from ssepool.http.wishes import Wish
from ssepool.runtime.admission.admission import is_refused
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine

PATH = "/events"
"""The path of the stream."""

MAX_DATA_BYTES = 2 * KiB
"""Bytes of a client's own data at most, as JSON in UTF-8."""
MAX_PATTERNS = 10
"""Patterns of one subscription at most."""
MAX_REGEXP_CHARACTERS = 64
"""Characters of a pattern with a regular expression at most. To compile `(\\w{100})` takes 80 ms and 20 MB, and a
stranger must not be able to demand that again and again."""

PARAMETERS = ("topic", "pattern", "last_event_id", "lastEventId", "data", "ticket", "heartbeat")
"""The query parameters of GET /events."""


def routes(engine: Engine, door: Door) -> list[BaseRoute]:
    """GET and HEAD /events."""
    return [Gate(PATH, Subscribe(engine, door), methods=["GET", "HEAD"], needs="subscribe")]


class Subscribe:
    """The endpoint GET /events.

    It is an ASGI application and no request handler, because a subscription has no use for Starlette's wrappers, which
    would stay in memory as long as its stream.
    """

    def __init__(self, engine: Engine, door: Door) -> None:
        """`engine` is the hub's, `door` the way to its streams."""
        self._engine = engine
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream to one client. Raises the errors of `read_wish` and `visit_of`, and `AccessDenied`: but who comes with
        what ran out a moment ago, or while nobody can say who it is, is told to come back, for a browser gives up at
        any other answer."""
        wish = read_wish(scope, allow_regexp=self._engine.config.allow_regexp)
        await EventStream(self._engine, await self._visit(scope, wish))(scope, receive, send)

    async def _visit(self, scope: Scope, wish: Wish) -> Visit:
        engine, door = self._engine, self._door
        asking = Asking(scope, "subscribe", wish.subscription)
        # An address that may not subscribe now must not have anybody else asked about it.
        refusal: SSEPoolError | None = engine.rates.refusal("subscribe", asking.ip, engine.now(), take=False)
        if refusal is None:
            try:
                return visit_of(engine, door, scope, wish, await door.grant(asking))
            except (AuthorizeUnavailable, TokenExpired) as error:
                refusal = error
        visit = Visit.of(scope, wish.subscription, STRANGER, dialect=wish.dialect)
        visit.stranger, visit.refusal = True, refusal
        return visit


def read_wish(scope: AnyScope, *, allow_regexp: bool) -> Wish:
    """What a request for the stream asks for, from its ASGI scope. Raises `APIError` (400) or `InvalidTopic`."""
    query = read_subscription(scope["query_string"], allow_regexp=allow_regexp)
    return Wish(
        Subscription.of(query["topic"], query["pattern"], private=True, compiled=False),
        query["data"],
        query["heartbeat"],
    )


def visit_of(engine: Engine, door: Door, scope: AnyScope, wish: Wish, grant: Grant) -> Visit:
    """The visit of a request that asks for this and has this grant.

    Nothing is compiled for a client that is turned away. Raises `AccessDenied` or `InvalidTopic`.
    """
    reduced, term = door.reduce(wish.subscription, grant), engine.term(grant, from_door=True)
    visit = Visit.of(scope, reduced, grant, data=wish.data, term=term, dialect=wish.dialect)
    visit.stranger = True
    if wish.subscription.patterns and not is_refused(engine, visit):
        wish.subscription.compile()
    return visit


def read_subscription(query_string: bytes, *, allow_regexp: bool) -> dict[str, Any]:
    """The lists `topic` and `pattern`, the value `data` and the dialect that `heartbeat` asks for, of a query string.
    Raises `APIError` (400)."""
    found: dict[str, Any] = {"topic": [], "pattern": [], "data": None, "heartbeat": DIALECT}
    try:
        pairs = pairs_of(query_string.decode("ascii"))
    except (UnicodeDecodeError, ValueError) as error:
        raise APIError(400, "invalid_query", f"the query is not percent-encoded UTF-8: {error}") from error
    for name, value in pairs:
        if name not in PARAMETERS:
            raise APIError(
                400,
                "unknown_parameter",
                f"there is no parameter {shown(name)}; GET /events takes {', '.join(PARAMETERS)}",
            )
        if name == "data":
            found["data"] = read_data(value)
        elif name == "heartbeat":
            found["heartbeat"] = read_heartbeat(value)
        elif name in found:
            found[name].append(value)
    if patterns := found["pattern"]:
        check_patterns(patterns, allow_regexp=allow_regexp)
    return found


def check_patterns(patterns: list[str], *, allow_regexp: bool) -> None:
    """Raise `APIError` (400) for too many patterns, and for a pattern that costs too much to compile."""
    if len(patterns) > MAX_PATTERNS:
        raise APIError(400, "invalid_topic", f"{len(patterns)} patterns; GET /events takes {MAX_PATTERNS} at most")
    for pattern in patterns:
        if not has_regexp(pattern):
            continue
        if not allow_regexp:
            raise APIError(
                400,
                "invalid_topic",
                f"pattern {shown(pattern)} is not allowed: it has a regular expression in it, (...), and allow_regexp "
                "is off; without that it takes '*', ':name' and '{...}'",
            )
        if len(pattern) > MAX_REGEXP_CHARACTERS or "{" in pattern:
            raise APIError(
                400,
                "invalid_topic",
                f"pattern {shown(pattern)} is not allowed: with a regular expression in it, a pattern takes "
                f"{MAX_REGEXP_CHARACTERS} characters at most and no braces",
            )


def read_heartbeat(text: str) -> Dialect:
    """The dialect with the heartbeats that a client asks for. Raises `APIError` (400) for anything but `event`."""
    if text != "event":
        raise APIError(400, "invalid_parameter", f"heartbeat={shown(text)} is not allowed; it takes 'event'")
    return BEATING


def read_data(text: str) -> Any:
    """The client's own data, from JSON. Raises `APIError` (400) for other text, for more than `MAX_DATA_BYTES` bytes,
    and for JSON that is nested too deep."""
    given = text.encode()
    if len(given) > MAX_DATA_BYTES:
        raise APIError(400, "data_too_large", f"data has {len(given)} bytes; it takes JSON of at most {MAX_DATA_BYTES}")
    if is_too_deep(given):
        raise APIError(400, "invalid_json", f"data {TOO_DEEP}")
    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError as error:
        raise APIError(400, "invalid_json", f"data is not JSON: {error}") from error
