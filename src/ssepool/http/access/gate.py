"""Gate: a route together with what it takes to pass it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssepool.core.grant import AdminPart, Grant
from ssepool.http.access.asking import Action, Asking
from ssepool.http.access.door import Door

Need = Literal["nothing", "subscribe", "publish", "connection", AdminPart]
"""What a route takes: nothing, as for pages and probes; a right to what is subscribed or published to; the token of an
open connection, which its grant has paid for; or a part of administration."""

Guarded = Callable[[Request, Grant], Awaitable[Response]]
"""An endpoint that is given the grant of whoever asks."""

PARTS: tuple[str, ...] = get_args(AdminPart)
"""The needs that are parts of administration."""


class Gate(Route):
    """A route that says what it needs. The tests read that off each route of each surface, and try to pass without."""

    def __init__(self, path: str, endpoint: Any, *, methods: Sequence[str], needs: Need) -> None:
        """`endpoint` asks the door itself; `guarded` makes one of an endpoint that does not."""
        super().__init__(path, endpoint, methods=list(methods))
        self.needs = needs
        """What it takes to pass."""


def guarded(door: Door, path: str, endpoint: Guarded, *, methods: Sequence[str], needs: AdminPart) -> Gate:
    """A route whose endpoint is called with the grant of whoever has this part of administration."""

    async def enter(request: Request) -> Response:
        grant = await grant_of(door, request, "administer")
        door.check_may_administer(needs, grant)
        return await endpoint(request, grant)

    return Gate(path, enter, methods=methods, needs=needs)


async def grant_of(door: Door, request: Request, action: Action) -> Grant:
    """The grant of a request. Raises `AccessDenied`."""
    return await door.grant(Asking(request.scope, action))
