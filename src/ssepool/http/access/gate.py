"""Gate: a route together with what it takes to pass it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from ssepool.core.grant import AdminPart, Grant
from ssepool.core.refusal import DEFECT, status_and_code
from ssepool.errors import SSEPoolError
from ssepool.http.access.asking import Action, Asking
from ssepool.http.access.door import Door

Need = Literal["nothing", "subscribe", "publish", "connection", AdminPart]
"""What a route takes: nothing, as for pages and probes; a right to what is subscribed or published to; the token of an
open connection, which its grant has paid for; or a part of administration."""

GATE = "ssepool.gate"
"""In the scope of a request: the gate that it came to."""
ORDERED = "ssepool.ordered"
"""In the scope of a request: what it orders, by names, for the audit log."""

Guarded = Callable[[Request, Grant], Awaitable[Response]]
"""An endpoint that is given the grant of whoever asks."""

PARTS: tuple[str, ...] = get_args(AdminPart)
"""The needs that are parts of administration."""


class Gate(Route):
    """A route that says what it needs. The tests read that off each route of each surface, and try to pass without."""

    headers: Mapping[str, str] = {}
    """Fields that tell what the path takes, for who asks that, or has sent something else."""

    def __init__(self, path: str, endpoint: Any, *, methods: Sequence[str], needs: Need) -> None:
        """`endpoint` asks the door itself; `guarded` makes one of an endpoint that does not."""
        super().__init__(path, endpoint, methods=list(methods))
        self.needs = needs
        """What it takes to pass."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `Route`: whether a request is for this."""
        match, found = super().matches(scope)
        if match is Match.FULL:
            found[GATE] = self
        return match, found


def ordered(request: Request, **parts: Any) -> None:
    """Have the audit log say what a request of administration orders: words that an operator chose, and no data."""
    request.scope[ORDERED] = parts


def guarded(door: Door, path: str, endpoint: Guarded, *, methods: Sequence[str], needs: AdminPart) -> Gate:
    """A route whose endpoint is called with the grant of whoever has this part of administration. The application's
    `audit` writes it down."""

    async def enter(request: Request) -> Response:
        grant = await grant_of(door, request, "administer")
        door.check_may_administer(needs, grant)
        status = DEFECT[0]
        try:
            response = await endpoint(request, grant)
            status = response.status_code
            return response
        except SSEPoolError as error:
            status = status_and_code(error)[0]
            raise
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            request.app.audit.administered(request, grant, status)

    return Gate(path, enter, methods=methods, needs=needs)


async def grant_of(door: Door, request: Request, action: Action) -> Grant:
    """The grant of a request. Raises `AccessDenied`."""
    return await door.grant(Asking(request.scope, action))
