"""/revocations: take grants back, and list what is taken back."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.config import KiB
from ssepool.core.grant import Grant
from ssepool.core.revocations import Revocation
from ssepool.core.topics import shown
from ssepool.http.access.door import Door
from ssepool.http.access.gate import guarded
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.budget import Budget
from ssepool.http.errors import APIError
from ssepool.http.query import number, read_query
from ssepool.http.reply import JSONReply
from ssepool.runtime.cluster.revoking import Revoking
from ssepool.runtime.engine import Engine

MAX_BODY_BYTES = 8 * KiB
"""Bytes of the body of POST /revocations at most."""
PAGE_REVOCATIONS = 100
"""Revocations of a page, unless `limit` gives another number."""
MAX_PAGE_REVOCATIONS = 1000
"""Revocations of a page at most: the largest `limit`."""


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /revocations. All that is said must be true of a grant that is taken back."""

    subject: Annotated[str | None, Meta(description="Only grants of this subject.")] = None
    issuer: Annotated[str | None, Meta(description="Only grants of this issuer.")] = None
    token_id: Annotated[str | None, Meta(description="Only those that come from this token.")] = None
    issued_before: Annotated[
        float | Literal["now"] | None,
        Meta(description="Only those issued before this time, in seconds since the epoch, or before `now`."),
    ] = None


class RevocationList(msgspec.Struct):
    """The answer of GET /revocations: one page."""

    revocations: Annotated[list[Revocation], Meta(description="In the order in which this node came to know them.")]
    next: Annotated[str | None, Meta(description="`after` of the next page; null on the last one.")]


DECODER = msgspec.json.Decoder(Revoke)
"""Reads the body of POST /revocations."""


def routes(engine: Engine, revoking: Revoking, budget: Budget, door: Door) -> list[BaseRoute]:
    """POST and GET /revocations. Bodies count in `budget`."""

    async def revoke(request: Request, grant: Grant) -> Response:
        read_query(request)
        media_type(request, JSON)
        async with read_body(request, MAX_BODY_BYTES, budget) as body:
            wish = decode(DECODER, body, root="revocation", code="invalid_revocation", fields=Revoke.__struct_fields__)
        return JSONReply(
            await revoking.revoke(_revocation(wish, engine.wall_clock(), engine.config.access.max_token_age)), 201
        )

    async def get(request: Request, grant: Grant) -> Response:
        query = read_query(request, "limit", "after")
        limit = number("limit", query.get("limit", str(PAGE_REVOCATIONS)), minimum=1, maximum=MAX_PAGE_REVOCATIONS)
        page = engine.revocations.page(query.get("after"), limit + 1)
        if page is None:
            message = f"after={shown(query['after'])} is not allowed; it takes next of the page before"
            raise APIError(400, "invalid_parameter", message)
        return JSONReply(RevocationList(page[:limit], page[limit - 1].id if len(page) > limit else None))

    return [
        guarded(door, "/revocations", revoke, methods=["POST"], needs="kick"),
        guarded(door, "/revocations", get, methods=["GET"], needs="kick"),
    ]


def _revocation(wish: Revoke, now: float, max_token_age: float) -> Revocation:
    """What a body asks for. Raises `APIError` (400)."""
    try:
        return Revocation.of(
            subject=wish.subject,
            issuer=wish.issuer,
            token_id=wish.token_id,
            issued_before=now if wish.issued_before == "now" else wish.issued_before,
            now=now,
            max_token_age=max_token_age,
        )
    except ValueError as error:
        raise APIError(400, "invalid_revocation", str(error)) from None
