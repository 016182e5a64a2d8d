"""POST and GET /revocations."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from ssepool import AccessConfig, Hub, HubConfig
from ssepool.core.revocations import MIN_KEPT_SECONDS


async def revoke(http: httpx.AsyncClient, body: Any, status: int = 201) -> dict[str, Any]:
    answer = await http.post("/revocations", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_what_is_revoked_is_answered_and_listed(hub: Hub, http: httpx.AsyncClient) -> None:
    assert (await http.get("/revocations")).json() == {"revocations": [], "next": None}
    began = time.time()
    made = await revoke(http, {"subject": "u1", "issuer": "me", "issued_before": 5})
    assert began <= made["until"] - MIN_KEPT_SECONDS <= time.time()
    expected = {"subject": "u1", "issuer": "me", "token_id": None, "issued_before": 5.0, "until": made["until"]}
    assert made == expected
    assert (await http.get("/revocations")).json()["revocations"] == [made]


async def test_now_is_the_time_of_the_hub(hub: Hub, http: httpx.AsyncClient) -> None:
    began = time.time()
    made = await revoke(http, {"subject": "u1", "issued_before": "now"})
    assert began <= made["issued_before"] <= time.time()


async def test_the_list_has_pages(hub: Hub, http: httpx.AsyncClient) -> None:
    for number in range(5):
        await revoke(http, {"token_id": f"t{number}"})
    seen: list[str] = []
    query = "limit=2"
    while query:
        page = (await http.get(f"/revocations?{query}")).json()
        seen += [one["token_id"] for one in page["revocations"]]
        query = f"limit=2&after={page['next']}" if page["next"] else ""
    assert seen == [f"t{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "a revocation takes a subject or a token_id: it says whose grants are taken back"),
        ({"issuer": "me"}, "a revocation takes a subject or a token_id: it says whose grants are taken back"),
        ({"subject": ""}, "subject '' is not allowed: it takes 1 to 256 characters"),
        ({"subject": "u1", "issued_before": -1}, "issued_before -1.0 is not allowed"),
        ({"subject": "u1", "issued_before": "then"}, "issued_before"),
        ({"subject": 7}, "subject"),
        ([], "revocation"),
    ],
)
async def test_what_is_not_well_formed_is_refused(hub: Hub, http: httpx.AsyncClient, body: Any, message: str) -> None:
    error = (await revoke(http, body, 400))["error"]
    assert error["code"] == "invalid_revocation"
    assert message in error["message"]
    assert list(hub.parts.engine.revocations) == []


async def test_what_is_not_known_is_refused(hub: Hub, http: httpx.AsyncClient) -> None:
    assert (await revoke(http, {"subject": "u1", "user": "u1"}, 400))["error"]["code"] == "unknown_field"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=nobody", "user=u1"])
async def test_what_the_list_does_not_take_is_refused(hub: Hub, http: httpx.AsyncClient, query: str) -> None:
    assert (await http.get(f"/revocations?{query}")).status_code == 400


async def test_they_are_no_part_of_what_the_world_may_reach(hub: Hub) -> None:
    async with Hub(HubConfig(access=AccessConfig(public_topics=("news",)))) as world:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.get("/revocations")).status_code == 404
        transport = httpx.ASGITransport(world.admin_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.get("/revocations")).status_code == 401
            assert (await http.post("/revocations", json={"subject": "u1"})).status_code == 401
