"""GET /events: what patterns a stranger may have, and that nothing is compiled for those who are turned away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ssepool import Hub, HubConfig, PoolConfig
from ssepool.core import topics
from ssepool.core.frames import COMPLETED_ID

Subscribe = Callable[..., Awaitable[Any]]


# Regular expressions


@pytest.mark.parametrize("pattern", ["(a)", "orders/(\\d+)", ":id(\\d+)", "a/\\\\(b)", "https://e.com/(a)", "("])
async def test_a_regular_expression_is_refused_before_anything_is_compiled(
    http: httpx.AsyncClient, compiled: list[Any], pattern: str
) -> None:
    answer = await http.get("/events", params={"pattern": ["never/seen/*", pattern]})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_topic"
    assert repr(pattern) in error["message"] and "allow_regexp" in error["message"]
    assert compiled == []


@pytest.mark.parametrize("pattern", ["orders/:id", "*", "a{/:b}?", "a\\(b\\)/*", "https://*/a"])
async def test_all_else_is_allowed(subscribe: Subscribe, hub: Hub, pattern: str) -> None:
    stream = await subscribe("pattern=" + quote(pattern))
    connection = hub.connection(stream.id)
    assert connection is not None and connection.patterns == (pattern,)


class TestAllowed:
    @pytest.fixture
    def config(self) -> HubConfig:
        return HubConfig(pool=PoolConfig(size=4), allow_regexp=True)

    async def test_a_regular_expression_is_allowed_where_the_operator_says_so(
        self, hub: Hub, subscribe: Subscribe
    ) -> None:
        stream = await subscribe("pattern=" + quote("orders/(\\d+)"))
        await hub.publish("orders/x", "no")
        await hub.publish("orders/7", "yes")
        assert (await stream.next()).data == "yes"

    @pytest.mark.parametrize("pattern", ["(" + "\\w" * 32 + ")", "(a{9})"])
    async def test_one_that_costs_too_much_is_still_refused(
        self, http: httpx.AsyncClient, compiled: list[Any], pattern: str
    ) -> None:
        answer = await http.get("/events", params={"pattern": pattern})
        assert answer.status_code == 400
        assert "64 characters at most and no braces" in answer.json()["error"]["message"]
        assert compiled == []


# Who is turned away


def kick_all(hub: Hub) -> None:
    for connection in list(hub.connections):
        hub.kick(connection)


TURNED_AWAY: dict[str, tuple[dict[str, Any], Callable[[Hub], object], int]] = {
    "drained": ({}, lambda hub: hub.drain(0), 200),
    "closed": ({}, lambda hub: hub.shutdown(), 200),
    "full": ({"on_full": "retry"}, lambda hub: hub.resize(1), 200),
    "rejected": ({"on_full": "reject"}, lambda hub: hub.resize(1), 503),
    "limited": ({"max_per_ip": 1}, lambda hub: None, 200),
    "too many patterns": ({"max_patterns": 1}, lambda hub: None, 200),
}


@pytest.mark.parametrize(("settings", "change", "status"), TURNED_AWAY.values(), ids=TURNED_AWAY)
class TestTurnedAway:
    @pytest.fixture
    def config(self, settings: dict[str, Any]) -> HubConfig:
        return HubConfig(pool=PoolConfig(size=4, **settings))

    async def test_nothing_is_compiled_for_who_is_turned_away(
        self,
        hub: Hub,
        subscribe: Subscribe,
        compiled: list[Any],
        change: Callable[[Hub], object],
        status: int,
    ) -> None:
        await subscribe("pattern=here/already/*")
        change(hub)
        del compiled[:]
        stream = await subscribe("pattern=away/1/*&pattern=%7B", opens=False)
        await stream.ended()
        assert (stream.status, compiled) == (status, [])


async def test_nothing_is_compiled_for_who_has_everything(http: httpx.AsyncClient, compiled: list[Any]) -> None:
    answer = await http.get("/events", params={"pattern": "away/2/*"}, headers={"last-event-id": COMPLETED_ID})
    assert (answer.status_code, compiled) == (204, [])


async def test_nothing_is_compiled_for_who_was_kicked(
    hub: Hub, http: httpx.AsyncClient, subscribe: Subscribe, compiled: list[Any]
) -> None:
    await subscribe("pattern=away/3/*")
    kick_all(hub)
    del compiled[:]
    topics._Program._kept.pop("away/3/*")
    answer = await http.get("/events", params={"pattern": "away/3/*"})
    assert (answer.status_code, b'"kicked"' in answer.content, compiled) == (200, True, [])


# The bound of patterns


class TestBound:
    @pytest.fixture
    def config(self) -> HubConfig:
        return HubConfig(pool=PoolConfig(size=4, max_patterns=2))

    async def test_a_pattern_too_many_is_turned_away_like_one_client_too_many(
        self, http: httpx.AsyncClient, subscribe: Subscribe
    ) -> None:
        first = await subscribe("pattern=a/*&pattern=b/:id")
        await subscribe("pattern=b/:name&topic=c")  # which is the same
        answer = await http.get("/events", params={"pattern": "c/*"})
        assert answer.status_code == 200
        assert "retry:" in answer.text and "pool_full" in answer.text
        await first.leave()
        await subscribe("pattern=c/*")

    async def test_topics_are_not_bounded(self, subscribe: Subscribe) -> None:
        await subscribe("pattern=a/*&pattern=b/*&" + "&".join(f"topic={n}" for n in range(50)))
