"""POST /tickets, and what a ticket opens: one stream, once, for exactly its wish."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ssepool import AccessConfig, Asking, Grant, Hub, HubConfig, PoolConfig

SHOP = "https://shop.example"
KEY = {"Authorization": "Key ann"}


def who(asking: Asking) -> Grant | None:
    if asking.headers.get("authorization") != KEY["Authorization"]:
        return None
    data = object() if "x-odd" in asking.headers else {"name": "Ann"}
    return Grant(subject="ann", subscribe=["users/ann", {"match": "orders/*", "match_type": "urlpattern"}], data=data)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    config = HubConfig(pool=PoolConfig(size=4), access=AccessConfig(public_topics=("news",)), allow_origins=(SHOP,))
    async with Hub(config, authorize=who) as hub:
        yield hub


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.app), base_url="http://hub") as http:
        yield http


async def issue(http: httpx.AsyncClient, wish: Any, **headers: str) -> httpx.Response:
    return await http.post("/tickets", json=wish, headers={**KEY, **headers})


async def use(hub: Hub, http: httpx.AsyncClient, query: dict[str, Any]) -> int:
    """The status of GET /events. A stream is ended once it is open, for httpx waits for the end."""
    seen: list[tuple[Any, ...]] = []

    @hub.on_connect
    def end(connection: Any) -> None:
        seen.append((connection.user, connection.topics, connection.patterns, connection.data))
        connection.close()

    status = (await http.get("/events", params=query)).status_code
    assert seen == ([("ann", ("users/ann",), (), {"name": "Ann"})] if status == 200 else [])
    return status


async def test_a_ticket_opens_one_stream_without_another_credential(hub: Hub, http: httpx.AsyncClient) -> None:
    answer = await issue(http, {"topics": ["users/ann"]})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    ticket = answer.json()
    assert ticket["expires_in"] == 30
    query = {"topic": "users/ann", "ticket": ticket["ticket"]}
    assert await use(hub, http, {"topic": "users/ann"}) == 401
    assert await use(hub, http, query) == 200
    assert await use(hub, http, query) == 401


@pytest.mark.parametrize(
    "query",
    [
        {"topic": "news"},
        {"topic": ["users/ann", "news"]},
        {"topic": "users/ann", "pattern": "orders/:id"},
        {"pattern": "orders/:id"},
    ],
)
async def test_it_opens_no_other(hub: Hub, http: httpx.AsyncClient, query: dict[str, Any]) -> None:
    ticket = (await issue(http, {"topics": ["users/ann"]})).json()["ticket"]
    assert await use(hub, http, {**query, "ticket": ticket}) == 403
    assert await use(hub, http, {"topic": "users/ann", "ticket": ticket}) == 401  # it was used


async def test_a_made_up_one_opens_nothing(hub: Hub, http: httpx.AsyncClient) -> None:
    ticket = (await issue(http, {"topics": ["users/ann"]})).json()["ticket"]
    node = hub.parts.engine.node
    for made_up in ("", "x", node, f"{node}-", f"{node}-x.y", ticket[:-1], f"{ticket}0", ticket.partition(".")[0]):
        assert await use(hub, http, {"topic": "users/ann", "ticket": made_up}) == 401
    both = {"topic": "users/ann", "ticket": [ticket, ticket]}
    assert await use(hub, http, both) == 400


@pytest.mark.parametrize(
    ("wish", "headers", "status", "code"),
    [
        ({"topics": ["users/ben"]}, {}, 403, "forbidden"),
        ({"topics": ["ssepool/pool"]}, {}, 403, "forbidden"),
        ({"patterns": ["users/:id"]}, {}, 403, "forbidden"),
        ({"topics": ["users/ann"]}, {"Authorization": "Key ben"}, 401, "unauthorized"),
        ({"topics": ["news"]}, {"Authorization": ""}, 401, "unauthorized"),
        ({}, {}, 400, "invalid_topic"),
        ({"topics": [""]}, {}, 400, "invalid_topic"),
        ({"patterns": ["orders/{"]}, {}, 400, "invalid_topic"),
        ({"patterns": ["orders/(a)"]}, {}, 400, "invalid_topic"),
        ({"topics": ["a"] * 200}, {}, 403, "forbidden"),
        ({"topics": [str(n) for n in range(200)]}, {}, 400, "invalid_topic"),
        ({"topics": "users/ann"}, {}, 400, "invalid_json"),
        ({"topic": ["users/ann"]}, {}, 400, "unknown_field"),
        ({"topics": ["x" * 9000]}, {}, 413, "body_too_large"),
        ({"topics": ["users/ann"]}, {"X-Odd": "1"}, 500, "invalid_grant"),
        ({"topics": ["users/ann"]}, {"Origin": "https://evil.example"}, 403, "forbidden_origin"),
    ],
)
async def test_who_has_no_right_to_a_stream_has_none_to_a_ticket(
    http: httpx.AsyncClient, wish: Any, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await issue(http, wish, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_who_is_nobody_needs_no_ticket_for_what_is_public(http: httpx.AsyncClient) -> None:
    answer = await http.post("/tickets", json={"topics": ["news"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


async def test_a_ticket_does_not_pay_for_another_one(http: httpx.AsyncClient) -> None:
    ticket = (await issue(http, {"topics": ["users/ann"]})).json()["ticket"]
    answer = await http.post(f"/tickets?ticket={ticket}", json={"topics": ["users/ann"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


async def test_pages_of_other_sites_that_may_stream_may_have_tickets(http: httpx.AsyncClient) -> None:
    answer = await issue(http, {"topics": ["users/ann"]}, Origin=SHOP)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, SHOP)
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = await http.options("/tickets", headers=asked)
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]


async def test_tickets_count_as_requests_for_the_stream() -> None:
    async with (
        Hub(HubConfig(subscribe_rate=0.01), authorize=who) as hub,
        httpx.AsyncClient(transport=httpx.ASGITransport(hub.app), base_url="http://hub") as http,
    ):
        assert [(await issue(http, {"topics": ["users/ann"]})).status_code for _ in range(2)] == [201, 429]
