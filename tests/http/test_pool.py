"""GET and PATCH /pool, POST /pool/drain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from ssepool import Hub
from ssepool.errors import ConfigError
from ssepool.runtime import engine

Subscribe = Callable[..., Awaitable[Any]]


async def test_the_numbers_are_those_of_the_hub(http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub) -> None:
    stream = await subscribe("topic=a")
    await hub.publish("a", "x")
    await stream.next()
    found = (await http.get("/pool")).json()
    assert found["node"] == hub.parts.engine.node
    pool = found["pool"]
    assert {name: pool[name] for name in ("state", "size", "free", "reserved", "open", "closing", "waiting")} == {
        "state": "open",
        "size": 4,
        "free": 3,
        "reserved": 0,
        "open": 1,
        "closing": 0,
        "waiting": 0,
    }
    assert (pool["requests"], pool["granted"], pool["refused"]) == (1, 1, 0)
    assert set(pool["released"].values()) == {0}
    assert found["events"] == {"published": 1, "delivered": hub.stats().events_delivered, "skipped": 0}
    assert found["events"]["delivered"] >= 1
    assert found["feeds"] == 1
    assert found["history"]["events"] == 1 and found["history"]["bytes"] > 0
    assert found["bytes_sent"] > 0 and found["uptime"] >= 0


async def test_a_size_that_descriptors_do_not_allow_is_refused(
    http: httpx.AsyncClient, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "max_clients", lambda: 6)
    assert (await http.patch("/pool", json={"size": 6})).status_code == 200
    answer = await http.patch("/pool", json={"size": 7})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_setting")
    assert answer.json()["error"]["message"] == (
        "size = 7 is not allowed; the limit on open files leaves this process 6 clients: raise it (ulimit -n) or set "
        "max_size"
    )
    with pytest.raises(ConfigError):
        hub.resize(7)
    monkeypatch.setattr(engine, "max_clients", lambda: 3)
    for size in (6, 4):  # what there is may stay, and go
        assert (await http.patch("/pool", json={"size": size})).status_code == 200
    monkeypatch.setattr(engine, "max_clients", lambda: None)
    assert (await http.patch("/pool", json={"size": 9})).status_code == 200


async def test_a_resize_answers_with_the_new_numbers(http: httpx.AsyncClient, hub: Hub) -> None:
    answer = await http.patch("/pool", json={"size": 7})
    assert (answer.status_code, answer.json()["pool"]["size"]) == (200, 7)
    assert hub.stats().pool.size == 7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"size": 0}, "0"),
        ({"size": -1}, "-1"),
        ({"size": 1_000_001}, "1000001"),
        ({"size": 10**30}, "size"),
        ({"size": "7"}, "pool.size is a string; it takes a whole number"),
        ({"size": 7.5}, "pool.size is a number; it takes a whole number"),
        ({"size": True}, "pool.size is true or false"),
        ({"size": None}, "pool.size is null"),
        ({}, "pool.size is missing"),
        ({"size": 7, "max_waiting": 1}, "unknown field 'max_waiting'; it takes size"),
        ([7], "pool is an array; it takes an object"),
    ],
)
async def test_a_bad_size_is_refused_and_named(http: httpx.AsyncClient, hub: Hub, body: object, message: str) -> None:
    answer = await http.patch("/pool", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert hub.stats().pool.size == 4


async def test_a_drain_takes_no_more_clients(http: httpx.AsyncClient, hub: Hub) -> None:
    answer = await http.post("/pool/drain", json={"seconds": 1})
    assert (answer.status_code, answer.json()) == (202, {"draining": True, "seconds": 1})
    assert hub.stats().pool.state == "draining"


async def test_a_drain_needs_no_body(http: httpx.AsyncClient) -> None:
    answer = await http.post("/pool/drain")
    assert (answer.status_code, answer.json()) == (202, {"draining": True, "seconds": 30})


@pytest.mark.parametrize("body", [{"seconds": -1}, {"seconds": 3601}, {"seconds": "1"}, {"minutes": 1}, 5])
async def test_a_bad_drain_is_refused(http: httpx.AsyncClient, hub: Hub, body: object) -> None:
    assert (await http.post("/pool/drain", json=body)).status_code == 400
    assert hub.stats().pool.state == "open"


async def test_a_pool_that_is_not_open_is_neither_drained_nor_resized(http: httpx.AsyncClient, hub: Hub) -> None:
    await hub.close()
    for answer in (await http.patch("/pool", json={"size": 7}), await http.post("/pool/drain")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "pool_closed")


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/pool"), ("POST", "/pool/drain"), ("GET", "/pool"), ("DELETE", "/connections/a")]
)
async def test_query_parameters_that_nobody_knows_are_refused(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, f"{path}?colour=red")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/pool"), ("POST", "/pool/drain")])
async def test_only_small_json_is_taken(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path, content="size=7", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    answer = await http.request(method, path, content=b" " * 1025, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
