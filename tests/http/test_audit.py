"""The audit log: who administered, whom the door refused, and what never stands in it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ssepool import Hub
from ssepool.core.grant import Grant
from ssepool.core.rates import BURST_SECONDS
from ssepool.errors import Forbidden
from ssepool.http.access.asking import Asking

OPERATOR = Grant(subject="op", issuer="me", token_id="t1", admin=["pool", "kick", "audit", "metrics"])
USER = Grant(subject="u1", issuer="me", token_id="t2", subscribe=["users/u1"], publish=["chat/1"])
SECRETS = ("hunter2", "q-secret", "d-secret", "c-secret")


def authorize(asking: Asking) -> Grant | None:
    given = asking.headers.get("authorization", "").removeprefix("Bearer ")
    return {"operator-hunter2": OPERATOR, "user-hunter2": USER}.get(given)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(authorize=authorize) as hub:
        yield hub


def client(app: Any, who: str = "", ip: str = "10.0.0.7") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {who}-hunter2"} if who else {}
    transport = httpx.ASGITransport(app, client=(ip, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.message) for record in caplog.records if record.name == "ssepool.audit"]


async def test_each_request_of_administration_is_written_down(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ssepool.audit")
    async with client(hub.admin_app, "operator") as http:
        await http.patch("/pool", json={"size": 7})
        await http.delete("/connections/x-1-1?seconds=5")
        await http.delete("/connections?user=u1&seconds=5")
        await http.patch("/pool", json={"size": 0})
        await http.get("/connections?user=u1")
        kept = (await http.get("/audit?limit=2")).json()
    found = entries(caplog)
    shared = {"ip": "10.0.0.7", "subject": "op", "issuer": "me", "token_id": "t1", "passed_over": 0}
    assert all(shared.items() <= entry.items() for entry in found)
    assert [
        (each["action"], each["method"], each["path"], each["parts"], each["allowed"], each["status"]) for each in found
    ] == [
        ("pool", "PATCH", "/pool", {"size": 7}, True, 200),
        ("kick", "DELETE", "/connections/{id}", {"id": "x-1-1", "seconds": 5.0}, True, 404),
        ("kick", "DELETE", "/connections", {"user": "u1", "seconds": 5.0}, True, 200),
        ("pool", "PATCH", "/pool", {"size": 0}, True, 400),
        ("connections", "GET", "/connections", {}, False, 403),
        ("audit", "GET", "/audit", {}, True, 200),
    ]
    assert kept == {"entries": [found[4], found[3]], "missing": []}


async def test_what_the_door_refuses_is_written_down_and_what_it_allows_is_not(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ssepool.audit")
    async with client(hub.app, "user") as http:
        assert (await http.get("/events?topic=users/u2&data=1")).status_code == 403
        assert (await http.post("/events", json={"topic": "chat/1", "data": "x"})).status_code == 201
        assert (await http.post("/events", json={"topic": "chat/2", "data": "x"})).status_code == 403
        assert (await http.get("/pool")).status_code == 404
    async with client(hub.app) as http:
        assert (await http.get("/events?topic=users/u2")).status_code == 401
    found = [(each["action"], each["path"], each["subject"], each["status"], each["why"]) for each in entries(caplog)]
    assert found == [
        ("subscribe", "/events", "u1", 403, "what this client wants is not there for it"),
        ("publish", "/events", "u1", 403, "this publisher may not publish to one of the topics"),
        ("subscribe", "/events", None, 401, "this takes credentials"),
    ]


async def test_no_secret_and_no_data_stand_in_it_and_what_a_stranger_wrote_is_escaped(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ssepool.audit")
    event = {"topic": "elsewhere", "data": "d-secret"}
    for who in ("user", "operator", "nobody", ""):
        async with client(hub.dev_app if who == "nobody" else hub.app, who) as http:
            http.headers["Cookie"] = "session=c-secret"
            await http.get("/events?topic=q-secret&data=%22d-secret%22")
            await http.post("/events?x=q-secret", json=event)
            await http.post("/events", json=event)
        async with client(hub.admin_app, who) as http:
            await http.get("/connections?user=q-secret")
            await http.patch("/pool?x=q-secret", json={"size": "d-secret"})
            await http.delete(f"/connections/%0A%1B%5B31m%E2%80%AE{'x' * 3000}")
    lines = [record.message for record in caplog.records if record.name == "ssepool.audit"]
    assert len(lines) > 10
    assert [line for line in lines if any(secret in line for secret in SECRETS)] == []
    assert all(line.isascii() and line.isprintable() and len(line) < 2500 for line in lines)
    assert any("\\u001b[31m" in line for line in lines)


async def test_a_stranger_cannot_flood_it(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ssepool.audit")
    async with client(hub.app) as http:
        for _ in range(50):
            await http.get("/events?topic=a")
    assert BURST_SECONDS <= len(entries(caplog)) <= BURST_SECONDS + 2
    async with client(hub.admin_app, "operator") as http:
        for _ in range(50):
            await http.get("/pool")
    assert sum(each["allowed"] for each in entries(caplog)) == 50


async def test_a_function_that_refuses_by_itself_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(asking: Asking) -> Grant:
        raise Forbidden("not on Sundays")

    caplog.set_level(logging.INFO, "ssepool.audit")
    async with Hub(authorize=refuse) as hub, client(hub.app) as http:
        await http.get("/events?topic=a")
    [found] = entries(caplog)
    assert (found["status"], found["why"]) == (403, "not on Sundays")


@pytest.mark.parametrize("limit", ["0", "1001", "x", ""])
async def test_a_limit_that_is_not_allowed_is_refused(hub: Hub, limit: str) -> None:
    async with client(hub.admin_app, "operator") as http:
        assert (await http.get(f"/audit?limit={limit}")).status_code == 400
