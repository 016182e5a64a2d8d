"""Rates over HTTP: on each way in, what one address is told that asks for too much, and that nobody else is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from parts import open_app
from ssepool import Hub, HubConfig, PoolConfig
from ssepool.core.decoder import Decoder
from ssepool.http.operations import PATHS
from ssepool.http.rates import FailureLimit

Subscribe = Callable[..., Awaitable[Any]]

JSON = (b"content-type", b"application/json")
EVENT = b'{"topic":"a","data":"x"}'


def batch(count: int) -> bytes:
    return b"[" + b",".join([EVENT] * count) + b"]"


@pytest.fixture
def config(request: pytest.FixtureRequest) -> HubConfig:
    """With rates that allow 10 at once."""
    rates = dict.fromkeys(("subscribe_rate", "publish_rate", "message_rate", "failure_rate"), 1.0)
    return HubConfig(**({"pool": PoolConfig(size=100)} | rates | getattr(request, "param", {})))


@pytest.fixture(autouse=True)
def clock(hub: Hub) -> Clock:
    """The clock of the hub, which stands still."""
    clock = Clock()
    hub.parts.engine.now = clock
    return clock


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def ask(hub: Hub, ip: str = "10.0.0.1", query: str = "topic=a", method: str = "GET") -> tuple[int, bytes]:
    """Status and body of a request for the stream, whose client has left before it opens."""
    scope: dict[str, Any] = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "path": "/events"},
        **{"root_path": "", "query_string": query.encode(), "headers": [(b"host", b"hub")], "client": (ip, 1)},
    }
    found: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        found.append(message)

    await open_app(hub)(scope, receive, send)
    return found[0]["status"] if found else 0, b"".join(message.get("body", b"") for message in found)


# Subscriptions.


async def test_a_subscription_beyond_the_rate_gets_a_stream_that_says_when_to_come_back(hub: Hub, clock: Clock) -> None:
    for _ in range(10):
        assert b"too_many_requests" not in (await ask(hub))[1]
    status, body = await ask(hub)
    [event] = (decoder := Decoder()).feed(body)
    assert (status, event.type, json.loads(event.data)) == (200, "ssepool.close", {"reason": "too_many_requests"})
    assert 4000 <= (decoder.retry or 0) <= 7000  # a second for the rate, and the usual time with jitter
    assert hub.stats().rate_refused == {"subscribe": 1, "publish": 0, "message": 0, "failure": 0}
    assert hub.stats().pool.requests == 10  # the pool was not asked
    assert b"too_many_requests" not in (await ask(hub, ip="10.0.0.2"))[1]
    clock.now += 1
    assert b"too_many_requests" not in (await ask(hub))[1]
    assert b"too_many_requests" in (await ask(hub))[1]


@pytest.mark.parametrize("config", [{"pool": PoolConfig(size=100, on_full="reject")}], indirect=True)
async def test_programs_get_429_and_retry_after(hub: Hub) -> None:
    for _ in range(10):
        await ask(hub)
    status, body = await ask(hub)
    assert status == 429
    assert json.loads(body)["error"]["code"] == "too_many_requests"


async def test_a_subscription_through_the_routes_counts_as_well(hub: Hub, http: httpx.AsyncClient) -> None:
    engine = hub.parts.engine
    assert engine.rates.allows("subscribe", "127.0.0.1", engine.now(), 10, take=True)
    answer = await http.get("/events?topic=a&data=%22" + "x" * 2000 + "%22")
    assert (answer.status_code, b"too_many_requests" in answer.content) == (200, True)


async def test_no_pattern_is_compiled_beyond_the_rate(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = hub.parts.engine
    engine.rates.allows("subscribe", "10.0.0.1", engine.now(), 10, take=True)
    monkeypatch.setattr("ssepool.core.topics.URLPattern", None)
    assert b"too_many_requests" in (await ask(hub, query="pattern=never/seen/*"))[1]


async def test_head_takes_no_slot_and_does_not_count(hub: Hub) -> None:
    for _ in range(30):
        assert await ask(hub, method="HEAD") == (200, b"")
    assert b"too_many_requests" not in (await ask(hub))[1]


async def test_who_is_kept_away_is_told_that_and_not_of_a_rate(hub: Hub, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a", ip="10.0.0.1")
    hub.kick(next(hub.connections))
    await stream.leave()
    engine = hub.parts.engine
    engine.rates.allows("subscribe", "10.0.0.1", engine.now(), 9, take=True)
    assert b'"kicked"' in (await ask(hub))[1]


async def test_an_application_decides_by_itself(hub: Hub) -> None:
    engine = hub.parts.engine
    engine.rates.allows("subscribe", "10.0.0.1", engine.now(), 10, take=True)
    for make in (
        lambda request: hub.response(request, topics=["a"]),
        lambda request: hub.stream(request, numbers()),
    ):
        scope = {"type": "http", "method": "GET", "headers": [], "client": ("10.0.0.1", 1), "query_string": b""}
        found = await answered(make(Request(scope)), scope)
        assert b"too_many_requests" not in b"".join(message.get("body", b"") for message in found)
    assert hub.stats().pool.granted == 2


async def numbers() -> Any:
    yield "1"


async def answered(response: Response, scope: Any) -> list[Message]:
    found: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        found.append(message)

    await response(scope, receive, send)
    return found


# Publications.


async def test_a_publish_counts_its_events(hub: Hub, http: httpx.AsyncClient, clock: Clock) -> None:
    assert (await http.post("/events", content=batch(7), headers=[JSON])).status_code == 201
    refused = await http.post("/events", content=batch(4), headers=[JSON])
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert refused.json()["error"]["message"].startswith("publish_rate = 1 is used up by 127.0.0.1")
    assert (await http.post("/events", content=batch(3), headers=[JSON])).status_code == 201
    assert hub.stats().events_published == 10
    clock.now += 2
    assert (await http.post("/events", content=batch(2), headers=[JSON])).status_code == 201
    assert hub.stats().rate_refused["publish"] == 1


async def test_an_empty_bucket_refuses_before_the_body(hub: Hub) -> None:
    engine = hub.parts.engine
    engine.rates.allows("publish", "10.0.0.1", engine.now(), 10, take=True)
    for length, closes in ((b"24", False), (b"8000000", True), (None, True)):
        scope: dict[str, Any] = {
            **{"type": "http", "http_version": "1.1", "scheme": "http", "method": "POST", "path": "/events"},
            **{"root_path": "", "query_string": b"", "client": ("10.0.0.1", 1)},
            "headers": [
                (b"host", b"hub"),
                JSON,
                (b"content-length", length) if length else (b"transfer-encoding", b"chunked"),
            ],
        }
        found: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("the body was asked for")

        async def send(message: Message, found: list[Message] = found) -> None:
            found.append(message)

        await open_app(hub)(scope, receive, send)
        headers = dict(found[0]["headers"])
        assert (found[0]["status"], headers[b"retry-after"]) == (429, b"1")
        assert (b"connection" in headers) is closes


async def test_a_batch_that_could_never_go_at_once_is_too_large(http: httpx.AsyncClient, hub: Hub) -> None:
    refused = await http.post("/events", content=batch(11), headers=[JSON])
    assert (refused.status_code, refused.json()["error"]) == (
        413,
        {
            "code": "batch_too_large",
            "message": "the batch has 11 events; publish_rate = 1 allows 10 at once",
        },
    )
    assert (await http.post("/events", content=batch(10), headers=[JSON])).status_code == 201  # nothing was taken


async def test_the_shortcut_counts_and_leaves_a_refusal_to_the_route(hub: Hub, clock: Clock) -> None:
    publication = open_app(hub).shortcuts.publication
    assert open_app(hub).shortcuts.asks_who_publishes
    assert publication(b"/events", [JSON], b"[{}]", ("10.0.0.1", 9)) is None  # a bad event: nothing is taken
    for _ in range(2):
        assert publication(b"/events", [JSON], batch(5), ("10.0.0.1", 9)) is not None
    assert publication(b"/events", [JSON], EVENT, ("10.0.0.1", 9)) is None
    assert publication(b"/events", [JSON], batch(11), ("10.0.0.2", 9)) is None
    assert publication(b"/events", [JSON], batch(10), ("10.0.0.2", 9)) is not None
    clock.now += 1
    assert publication(b"/events", [JSON], batch(2), ("10.0.0.1", 9)) is None
    assert publication(b"/events", [JSON], EVENT, ("10.0.0.1", 9)) is not None
    assert hub.stats().rate_refused["publish"] == 0  # the route says and counts it
    assert hub.stats().events_published == 21


async def test_without_rates_and_where_everything_is_open_nobody_has_to_know_who_publishes() -> None:
    assert not open_app(Hub()).shortcuts.asks_who_publishes
    assert not Hub().dev_app.shortcuts.asks_who_publishes
    assert Hub(authorize=lambda asking: None).app.shortcuts.asks_who_publishes


# Messages.


async def test_messages_beyond_the_rate_are_refused_before_their_body(
    hub: Hub, http: httpx.AsyncClient, subscribe: Subscribe
) -> None:
    stream = await subscribe("topic=a")
    path, headers = f"/connections/{stream.id}/messages", {"Authorization": f"Bearer {stream.token}"}
    for _ in range(10):
        assert (await http.post(path, json=1, headers=headers)).status_code == 202
    refused = await http.post(path, content=b"{", headers=headers)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert hub.stats().rate_refused["message"] == 1
    assert b'ssepool_rate_refused_total{rate="message"} 1.0' in (await http.get("/metrics")).content
    assert (await http.get("/pool")).json()["rate_refused"] == {
        "subscribe": 0,
        "publish": 0,
        "message": 1,
        "failure": 0,
    }


# Failures.

BAD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "400": ("POST", "/events", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "401": ("POST", "/connections/{id}/messages", {"json": 1}),
    "403": ("POST", "/events", {"json": {"topic": "ssepool/x", "data": ""}}),
    "404": ("GET", "/wp-login.php", {}),
    "405": ("PUT", "/pool", {}),
    "415": ("POST", "/events", {"content": b"x"}),
    "a bad subscription": ("GET", "/events?topik=a", {}),
}


@pytest.mark.parametrize("config", [{"publish_rate": None, "message_rate": None}], indirect=True)
@pytest.mark.parametrize(("method", "path", "more"), BAD.values(), ids=BAD)
async def test_who_is_refused_too_often_is_refused_everything_but_streams_and_health_for_a_while(
    hub: Hub, http: httpx.AsyncClient, subscribe: Subscribe, clock: Clock, method: str, path: str, more: dict[str, Any]
) -> None:
    stream = await subscribe("topic=a")
    for _ in range(10):
        answer = await http.request(method, path.format(id=stream.id), **more)
        assert 400 <= answer.status_code < 429
    refused = await http.get("/pool")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["message"].startswith("failure_rate = 1 is used up by 127.0.0.1")
    assert open_app(hub).shortcuts.publication(b"/events", [JSON], EVENT, ("127.0.0.1", 9)) is None
    assert open_app(hub).shortcuts.publication(b"/events", [JSON], EVENT, ("10.0.0.2", 9)) is not None
    assert (await http.get("/health/live")).status_code == 200
    assert (await http.get("/events")).status_code == 400  # not 429; and no EventSource survives either
    await subscribe("topic=a")
    assert hub.stats().rate_refused["failure"] == 1
    clock.now += 2
    assert (await http.get("/pool")).status_code == 200


@pytest.mark.parametrize("config", [{"on_duplicate": "refuse", "publish_rate": 0}], indirect=True)
async def test_a_publisher_that_tries_again_does_not_fail(http: httpx.AsyncClient) -> None:
    event = {"topic": "a", "data": "x", "id": "mine"}
    statuses = [(await http.post("/events", json=event)).status_code for _ in range(20)]
    assert statuses == [201] + [409] * 19


async def test_without_a_rate_there_is_no_middleware() -> None:
    assert FailureLimit not in [each.cls for each in Hub().dev_app.user_middleware]


def test_the_document_has_the_refusals() -> None:
    assert "429" in PATHS["/events"]["post"]["responses"]
    assert "429" in PATHS["/connections/{id}/messages"]["post"]["responses"]
