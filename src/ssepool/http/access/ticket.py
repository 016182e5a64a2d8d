"""Ticketed: grants from tickets, which a page of another site brings in the query of its EventSource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from ssepool.core.grant import Grant
from ssepool.core.tickets import Ticket
from ssepool.errors import BadCredentials, Forbidden, Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import LATER, _Later

PARAMETER = "ticket"
"""The query parameter of GET /events."""

Use = Callable[[str], Awaitable[Ticket | None]]
"""Uses a ticket up, on whichever node it is; None for one that does not count."""


class Ticketed:
    """A source: lets a ticket in, once, to exactly the wish that it was asked for with."""

    def __init__(self, use: Use) -> None:
        """`use` may raise what reaching another node raises."""
        self._use = use

    def at_once(self, asking: Asking) -> Literal[_Later.LATER] | None:
        """See `Source`. Never a grant: a request may be asked about several times at once, and is once in time."""
        return LATER if asking.wanted is not None and b"ticket=" in asking.scope["query_string"] else None

    async def in_time(self, asking: Asking) -> Grant | None:
        """See `Source`. Raises `BadCredentials` for two tickets, `Unauthorized` for one that does not count (any more),
        and `Forbidden` for one of another wish, which is used up too."""
        given = asking.query_params.getlist(PARAMETER)
        if not given or asking.wanted is None:
            return None
        if len(given) > 1:
            raise BadCredentials(f"there are {len(given)} tickets; it takes one")
        ticket = await self._use(given[0])
        if ticket is None:
            raise Unauthorized(
                "the ticket does not count: it has been used, is too old, or never was one", presented=True
            )
        if not ticket.is_for(asking.wanted):
            raise Forbidden("the ticket is for other topics and patterns than these")
        return ticket.grant()
