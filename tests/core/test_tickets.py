"""Tickets: one wish, once, and no more than the grant that they come from."""

from __future__ import annotations

import pytest

from ssepool.core.grant import ANYBODY, Grant, effect
from ssepool.core.rights import Rights
from ssepool.core.tickets import MAX_TICKETS, TICKET_SECONDS, Ticket, Tickets
from ssepool.core.topics import Subscription
from ssepool.errors import Forbidden, InvalidGrant

WISH = Subscription.of(["room:blue", "news"], ["orders/:id"], private=False)
ORDERS = {"match": "orders/:id", "match_type": "urlpattern"}
ANN = Grant(
    subject="ann",
    issuer="me",
    subscribe=["room:blue", "room:red", ORDERS],
    publish=["room:blue"],
    publish_parts=["id"],
    admin=["kick"],
    data={"name": "Ann"},
    expires_at=99.0,
    issued_at=9.0,
    token_id="t1",
)


def used(ticket: Ticket) -> Ticket:
    tickets = Tickets()
    tickets.add("a", ticket, 0.0)
    found = tickets.use("a", 1.0)
    assert found is not None
    return found


def test_a_ticket_has_what_the_grant_says_of_its_wish_and_nothing_else() -> None:
    grant = used(Ticket.of(WISH, ANN)).grant()
    assert grant == Grant(
        subject="ann",
        issuer="me",
        subscribe=["room:blue", ORDERS],
        data={"name": "Ann"},
        expires_at=99.0,
        issued_at=9.0,
        token_id="t1",
    )


def test_its_effect_is_that_of_the_grant() -> None:
    public = Rights("news")
    assert effect(WISH, Ticket.of(WISH, ANN).grant(), public) == effect(WISH, ANN, public)
    with pytest.raises(Forbidden):  # nothing is public any more
        effect(WISH, Ticket.of(WISH, ANN).grant(), Rights())


def test_a_right_to_all_is_none_to_the_hubs_own_topics() -> None:
    own = Subscription.of(["ssepool/pool"])
    with pytest.raises(Forbidden):
        effect(own, Ticket.of(own, ANYBODY).grant(), Rights())


@pytest.mark.parametrize(
    ("topics", "patterns"),
    [
        (["room:blue"], ["orders/:id"]),
        (["room:blue", "news"], []),
        (["room:blue", "news", "more"], ["orders/:id"]),
        (["room:blue", "news"], ["orders/:number"]),
    ],
)
def test_it_is_for_exactly_its_wish(topics: list[str], patterns: list[str]) -> None:
    ticket = Ticket.of(WISH, ANN)
    assert ticket.is_for(Subscription.of(["news", "room:blue"], ["orders/:id"]))
    assert not ticket.is_for(Subscription.of(topics, patterns))


def test_it_counts_once() -> None:
    tickets = Tickets()
    tickets.add("a", Ticket.of(WISH, ANN), 0.0)
    assert tickets.use("a", 1.0) is not None
    assert tickets.use("a", 1.0) is None


def test_it_counts_for_thirty_seconds() -> None:
    tickets = Tickets()
    for name in "ab":
        tickets.add(name, Ticket.of(WISH, ANN), 0.0)
    assert tickets.use("a", TICKET_SECONDS - 0.1) is not None
    assert tickets.use("b", TICKET_SECONDS) is None


def test_too_many_push_the_oldest_out() -> None:
    tickets = Tickets()
    for n in range(MAX_TICKETS + 1):
        tickets.add(str(n), Ticket.of(WISH, ANN), 0.0)
    assert len(tickets) == MAX_TICKETS
    assert tickets.use("0", 1.0) is None
    assert tickets.use("1", 1.0) is not None


def test_data_that_is_no_json_has_no_ticket() -> None:
    with pytest.raises(InvalidGrant, match="not JSON"):
        Tickets().add("a", Ticket.of(WISH, Grant(subject="ann", data=object())), 0.0)
