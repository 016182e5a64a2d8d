"""The source of tickets: once a request, for the wish that it was made for."""

from __future__ import annotations

import pytest

from ssepool.core.grant import Grant
from ssepool.core.tickets import Ticket
from ssepool.core.topics import Subscription
from ssepool.errors import AccessDenied, BadCredentials, Forbidden, Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import LATER
from ssepool.http.access.ticket import Ticketed

NEWS = Subscription.of(["news"])
ANN = Grant(subject="ann", subscribe=["news"])


class Kept:
    def __init__(self) -> None:
        self.tickets = {"t1": Ticket.of(NEWS, ANN)}
        self.asked: list[str] = []

    async def use(self, presented: str) -> Ticket | None:
        self.asked.append(presented)
        return self.tickets.pop(presented, None)


def asking(query: bytes, wanted: Subscription | None = NEWS) -> Asking:
    return Asking({"type": "http", "headers": [], "query_string": query}, "subscribe", wanted)


async def test_a_ticket_is_good_for_its_grant_once() -> None:
    source = Ticketed(Kept().use)
    assert await source.in_time(asking(b"topic=news&ticket=t1")) == ANN
    with pytest.raises(Unauthorized) as error:
        await source.in_time(asking(b"topic=news&ticket=t1"))
    assert error.value.presented


def test_looking_does_not_use_it_up() -> None:
    kept = Kept()
    source = Ticketed(kept.use)
    assert source.at_once(asking(b"topic=news&ticket=t1")) is LATER
    assert kept.asked == []


async def test_who_has_none_is_not_asked_for_any() -> None:
    source = Ticketed(Kept().use)
    for query in (b"", b"topic=news", b"topic=ticket"):
        assert source.at_once(asking(query)) is None
    for query in (b"topic=news", b"notticket=t1"):
        assert await source.in_time(asking(query)) is None
    assert source.at_once(asking(b"ticket=t1", wanted=None)) is None  # a publish, whose route refuses the parameter


@pytest.mark.parametrize(
    ("query", "wanted", "kind"),
    [
        (b"ticket=t1&ticket=t1", NEWS, BadCredentials),
        (b"ticket=", NEWS, Unauthorized),
        (b"ticket=%00", NEWS, Unauthorized),
        (b"ticket=t1", Subscription.of(["other"]), Forbidden),
        (b"ticket=t1", Subscription.of(["news", "other"]), Forbidden),
    ],
)
async def test_anything_else_is_refused(query: bytes, wanted: Subscription, kind: type[AccessDenied]) -> None:
    with pytest.raises(kind):
        await Ticketed(Kept().use).in_time(asking(query, wanted))


async def test_a_ticket_of_another_wish_is_used_up_too() -> None:
    kept = Kept()
    with pytest.raises(Forbidden):
        await Ticketed(kept.use).in_time(asking(b"ticket=t1", Subscription.of(["other"])))
    assert kept.tickets == {}
