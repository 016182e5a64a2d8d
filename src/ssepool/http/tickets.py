"""POST /tickets: a ticket for one subscription. The EventSource of a page of another site can present nothing else."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.core.grant import STRANGER
from ssepool.core.tickets import TICKET_SECONDS, Ticket
from ssepool.core.topics import Subscription
from ssepool.errors import Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import Door
from ssepool.http.access.gate import Gate
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.budget import Budget
from ssepool.http.query import MAX_QUERY_BYTES, read_query
from ssepool.http.rates import check_rate
from ssepool.http.reply import JSONReply
from ssepool.http.wish import check_patterns
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.engine import Engine

PATH = "/tickets"
"""The path."""
MAX_WISH_BYTES = MAX_QUERY_BYTES
"""Bytes of a body at most: the query in which the wish comes back may have no more."""


class TicketWish(msgspec.Struct, forbid_unknown_fields=True):
    """What a ticket is asked for: the topics and patterns of GET /events."""

    topics: Annotated[tuple[str, ...], Meta(description="Exact topic names.")] = ()
    patterns: Annotated[tuple[str, ...], Meta(description="WHATWG URL Patterns over topic names.")] = ()


class NewTicket(msgspec.Struct):
    """The answer: a ticket, to be used once."""

    ticket: Annotated[str, Meta(description="The value of `ticket` in the query of GET /events.")]
    expires_in: Annotated[float, Meta(description="Seconds within which it has to be used.")]


WISH_DECODER = msgspec.json.Decoder(TicketWish)
"""Reads a body."""


def routes(engine: Engine, nodes: Nodes, budget: Budget, door: Door) -> list[BaseRoute]:
    """POST /tickets. It counts as a request for GET /events."""

    async def issue(request: Request) -> Response:
        read_query(request)  # first: a ticket in the query must not pay for another one
        check_rate(engine, request, "subscribe")
        media_type(request, JSON)
        async with read_body(request, MAX_WISH_BYTES, budget) as body:
            fields = TicketWish.__struct_fields__
            wish = decode(WISH_DECODER, body, root="the body", code="invalid_json", fields=fields)
        check_patterns(list(wish.patterns), allow_regexp=engine.config.allow_regexp)
        wanted = Subscription.of(wish.topics, wish.patterns, private=False, compiled=False)
        grant = await door.grant(Asking(request.scope, "subscribe", wanted))
        if grant is STRANGER:
            raise Unauthorized("this takes credentials")
        wanted.compile()
        ticket = Ticket.of(wanted, grant)
        door.reduce(wanted, ticket.grant())
        return JSONReply(NewTicket(nodes.issue(ticket), TICKET_SECONDS), 201)

    return [Gate(PATH, issue, methods=["POST"], needs="subscribe")]
