"""/events: the stream. GET has the subscription in its query, QUERY (RFC 10008) and POST in their body; see `Visit` for
how a client resumes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from ssepool.core.grant import STRANGER, Grant
from ssepool.core.visit import Scope as AnyScope
from ssepool.core.visit import Visit
from ssepool.errors import AuthorizeUnavailable, SSEPoolError, TokenExpired
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import Door
from ssepool.http.access.gate import Gate
from ssepool.http.body import FORM, JSON, media_type, read_body
from ssepool.http.budget import Budget
from ssepool.http.errors import APIError
from ssepool.http.query import Ignored
from ssepool.http.wish import MAX_WISH_BYTES, asks_for_stream, check_beside_body, read_body_wish, read_wish
from ssepool.http.wishes import Wish
from ssepool.runtime.admission.admission import is_refused
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine

PATH = "/events"
"""The path of the stream."""

ACCEPT_QUERY = {"Accept-Query": f"{JSON}, {FORM}"}
"""What the body of a QUERY may be (RFC 10008, section 3)."""


def routes(engine: Engine, budget: Budget, door: Door) -> list[BaseRoute]:
    """GET, HEAD, QUERY and POST of /events. A body counts in `budget` until it has been read."""
    endpoint = Subscribe(engine, budget, door)
    return [
        StreamGate(PATH, endpoint, methods=["GET", "HEAD", "QUERY"], needs="subscribe"),
        StreamGate(PATH, endpoint, methods=["POST"], needs="subscribe"),
    ]


class StreamGate(Gate):
    """The gate of those who want the stream. A POST that does not say so is for others."""

    headers = ACCEPT_QUERY

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `Route`: whether a request is for this."""
        if scope["type"] == "http" and scope["method"] == "POST" and not asks_for_stream("POST", scope["headers"]):
            return Match.NONE, {}
        return super().matches(scope)


class Subscribe:
    """The endpoint of the stream.

    It is an ASGI application and no request handler, because a subscription has no use for Starlette's wrappers, which
    would stay in memory as long as its stream.
    """

    def __init__(self, engine: Engine, budget: Budget, door: Door) -> None:
        """`engine` and `budget` are the hub's, `door` the way to its streams."""
        self._engine = engine
        self._budget = budget
        self._door = door
        self._ignored = Ignored(engine.config.ignore_parameters)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream to one client. Raises the errors of `read_wish`, `read_body_wish` and `visit_of`, and `AccessDenied`:
        but who comes with what ran out a moment ago, or while nobody can say who it is, is told to come back, for a
        browser gives up at any other answer."""
        if scope["method"] in ("GET", "HEAD"):
            wish = read_wish(scope, allow_regexp=self._engine.config.allow_regexp, ignored=self._ignored)
            visit = await self._visit(scope, wish)
        else:
            visit = await self._visit_by_body(Request(scope, receive))
        await EventStream(self._engine, visit)(scope, receive, send)

    async def _visit_by_body(self, request: Request) -> Visit:
        check_beside_body(request.scope["query_string"], self._ignored)
        if "content-type" not in request.headers:
            allowed = ", ".join((JSON, FORM))
            raise APIError(400, "invalid_body", f"there is no Content-Type; it takes {allowed}", ACCEPT_QUERY)
        try:
            kind = media_type(request, JSON, FORM)
        except APIError as error:
            error.headers = ACCEPT_QUERY
            raise
        # Who may not subscribe now has the body thrown away unread.
        if (refusal := self._rate_refusal(Asking(request.scope, "subscribe"))) is not None:
            return _refused(request.scope, None, refusal)
        async with read_body(request, MAX_WISH_BYTES, self._budget) as body:
            config = self._engine.config
            wish = read_body_wish(kind, body, allow_regexp=config.allow_regexp, ignored=self._ignored)
        return await self._visit(request.scope, wish)

    async def _visit(self, scope: Scope, wish: Wish) -> Visit:
        engine, door = self._engine, self._door
        asking = Asking(scope, "subscribe", wish.subscription)
        # An address that may not subscribe now must not have anybody else asked about it.
        refusal = self._rate_refusal(asking)
        if refusal is None:
            try:
                return visit_of(engine, door, scope, wish, await door.grant(asking))
            except (AuthorizeUnavailable, TokenExpired) as error:
                refusal = error
        return _refused(scope, wish, refusal)

    def _rate_refusal(self, asking: Asking) -> SSEPoolError | None:
        return self._engine.rates.refusal("subscribe", asking.ip, self._engine.now(), take=False)


def _refused(scope: AnyScope, wish: Wish | None, refusal: SSEPoolError) -> Visit:
    visit = Visit.of(scope, None if wish is None else wish.subscription, STRANGER)
    if wish is not None:
        visit.dialect = wish.dialect
    visit.stranger, visit.refusal = True, refusal
    return visit


def visit_of(engine: Engine, door: Door, scope: AnyScope, wish: Wish, grant: Grant) -> Visit:
    """The visit of a request that asks for this and has this grant.

    Nothing is compiled for a client that is turned away. Raises `AccessDenied` or `InvalidTopic`.
    """
    reduced, term = door.reduce(wish.subscription, grant), engine.term(grant, from_door=True)
    last = wish.last_event_id
    visit = Visit.of(scope, reduced, grant, data=wish.data, last_event_id=last, term=term, dialect=wish.dialect)
    visit.stranger = True
    if wish.subscription.patterns and not is_refused(engine, visit):
        wish.subscription.compile()
    return visit
