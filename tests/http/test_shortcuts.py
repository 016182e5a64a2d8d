"""Shortcuts: which requests are served in front of the application, and that all others are left to the routes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from parts import open_app
from ssepool import Asking, Grant, Hub, HubConfig
from ssepool.core.event import memory_of
from ssepool.core.grant import ANYBODY
from ssepool.core.topics import Subscription
from ssepool.http.access.authorize import Authorize
from ssepool.http.access.door import Door
from ssepool.http.publish import MAX_PLAIN_EVENTS
from ssepool.http.query import MAX_QUERY_BYTES
from ssepool.http.wish import MAX_DATA_BYTES, MAX_PATTERNS
from ssepool.runtime.streams.delivery import MAX_BACKLOG_BYTES, Delivery
from ssepool.runtime.streams.log import EventLog

Headers = list[tuple[bytes, bytes]]
Scope = dict[str, Any]
Subscribe = Callable[..., Awaitable[Any]]

PATH = b"/events"
JSON = (b"content-type", b"application/json")
LINES = (b"content-type", b"application/x-ndjson")
EVENT = b'{"topic":"a","data":"x"}'

# Publications

PLAIN: dict[str, tuple[Headers, bytes]] = {
    "an event": ([JSON], EVENT),
    "a batch": ([JSON], b"[" + EVENT + b"," + EVENT + b"]"),
    "lines": ([LINES], EVENT + b"\n" + EVENT),
    "with a charset": ([(b"content-type", b"application/json; charset=utf-8")], EVENT),
    "with other headers": ([(b"host", b"x"), (b"user-agent", b"y"), JSON, (b"accept", b"*/*")], EVENT),
    "as many as a slice": ([LINES], b"\n".join([EVENT] * MAX_PLAIN_EVENTS)),
}

LEFT: dict[str, tuple[bytes, Headers, bytes]] = {
    "another path": (b"/pool", [JSON], EVENT),
    "a query": (b"/events?a=b", [JSON], EVENT),
    "a page's": (PATH, [(b"origin", b"http://x"), JSON], EVENT),
    "another page's": (PATH, [(b"sec-fetch-site", b"cross-site"), JSON], EVENT),
    "one for which a proxy speaks": (PATH, [(b"x-forwarded-host", b"x"), JSON], EVENT),
    "no type": (PATH, [], EVENT),
    "another type": (PATH, [(b"content-type", b"text/plain")], EVENT),
    "another charset": (PATH, [(b"content-type", b"application/json; charset=latin-1")], EVENT),
    "two types": (PATH, [JSON, LINES], EVENT),
    "compressed": (PATH, [JSON, (b"content-encoding", b"gzip")], EVENT),
    "a form": (PATH, [(b"content-type", b"application/x-www-form-urlencoded")], b"topic=a&data=x"),
    "nothing": (PATH, [JSON], b""),
    "not JSON": (PATH, [JSON], b"{"),
    "a bad event": (PATH, [JSON], b'{"topic":"a","data":"x","id":"a b"}'),
    "a bad event among others": (PATH, [JSON], b"[" + EVENT + b',{"data":1}]'),
    "a topic of the hub's own": (PATH, [JSON], b'{"topic":"ssepool/pool","data":"x"}'),
    "an empty batch": (PATH, [JSON], b"[]"),
    "more than a slice": (PATH, [LINES], b"\n".join([EVENT] * (MAX_PLAIN_EVENTS + 1))),
    "too long a body": (PATH, [JSON], b'{"topic":"a","data":"' + b"x" * 100_000 + b'"}'),
    "too long an event": (PATH, [JSON], b"[" + EVENT + b',{"topic":"a","data":"' + b"x" * 1000 + b'"}]'),
}


@pytest.mark.parametrize(("headers", "body"), PLAIN.values(), ids=PLAIN)
async def test_what_is_plain_is_answered_as_by_the_route(
    hub: Hub, http: httpx.AsyncClient, headers: Headers, body: bytes
) -> None:
    reply = open_app(hub).shortcuts.publication(PATH, headers, body)
    assert reply is not None
    status, fields, content = reply
    published = len(json.loads(content)["ids"])
    while hub.stats().events_published < published:  # they are delivered in slices
        await asyncio.sleep(0)
    asked = await http.post("/events", content=body, headers=headers)
    assert (status, len(asked.json()["ids"])) == (asked.status_code, published)
    assert {*fields, (b"content-length", b"%d" % len(asked.content))} == set(asked.headers.raw)
    assert hub.stats().events_published == 2 * published


@pytest.mark.parametrize(("url", "headers", "body"), LEFT.values(), ids=LEFT)
async def test_nothing_is_done_about_all_else(hub: Hub, url: bytes, headers: Headers, body: bytes) -> None:
    assert open_app(hub).shortcuts.publication(url, headers, body) is None
    assert hub.stats().events_published == 0


async def test_subscribers_get_what_is_published_at_once(hub: Hub, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    reply = open_app(hub).shortcuts.publication(PATH, [JSON], EVENT)
    assert reply is not None
    event = await stream.next()
    assert (event.data, [event.id]) == ("x", json.loads(reply[2])["ids"])


async def test_with_a_full_backlog_the_route_has_to_wait(
    hub: Hub, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subscribe("topic=a")
    # In one step, so that nothing is delivered in between.
    while hub.parts.engine.delivery.has_room:
        hub.publish_nowait("a", "x" * 900)
    published = hub.stats().events_published
    assert (published - 1) * memory_of(b"x" * 900, ["a"]) <= MAX_BACKLOG_BYTES
    assert open_app(hub).shortcuts.publication(PATH, [JSON], EVENT) is None
    assert hub.stats().events_published == published
    monkeypatch.setattr(Delivery, "has_room", True)
    assert open_app(hub).shortcuts.publication(PATH, [JSON], EVENT) is not None


async def test_a_broker_that_takes_its_time_is_left_to_the_route(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventLog, "complete", False)
    assert open_app(hub).shortcuts.publication(PATH, [JSON], EVENT) is None


async def test_a_hub_that_has_closed_is_left_to_the_route(hub: Hub) -> None:
    await hub.close()
    assert open_app(hub).shortcuts.publication(PATH, [JSON], EVENT) is None


async def test_a_hub_that_is_not_open_yet_is_left_to_the_route() -> None:
    assert open_app(Hub()).shortcuts.publication(PATH, [JSON], EVENT) is None


# Subscriptions


def get(query: str = "topic=a", path: str = "/events", root: str = "", headers: Headers | None = None) -> Scope:
    """The ASGI scope of a GET request."""
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": root,
        "query_string": query.encode(),
        "headers": headers or [],
        "client": ("10.0.0.1", 1234),
    }


LEFT_GETS: dict[str, tuple[Scope, str]] = {
    "another path": (get("state=x", path="/connections"), "another route reads its query"),
    "a path below": (get(path="/events/a"), "there is nothing"),
    "no topic": (get(""), "the route says what it takes"),
    "an unknown parameter": (get("topic=a&colour=red"), "the route names it"),
    "a bad topic": (get("topic="), "the route says why"),
    "a bad pattern": (get("pattern=%7B"), "the route says why"),
    "too many patterns": (get("&".join(f"pattern=a{n}" for n in range(MAX_PATTERNS + 1))), "the route says how many"),
    "a regular expression": (get("pattern=(a)"), "the route says why"),
    "data that is not JSON": (get("topic=a&data=%7B"), "the route says why"),
    "too much data": (get(f"topic=a&data=%22{'x' * MAX_DATA_BYTES}%22"), "the route says how much"),
    "not UTF-8": (get("topic=%ff"), "the route says why"),
    "a query that is too long": (get("topic=a&data=" + "1" * MAX_QUERY_BYTES), "middleware answers 414"),
}


def test_the_visit_of_a_subscription_is_that_of_the_route(hub: Hub) -> None:
    scope = get("topic=a&topic=b&pattern=c/*&data=%7B%22n%22:1%7D", headers=[(b"last-event-id", b"x-1")])
    visit = open_app(hub).shortcuts.subscription(scope)
    assert visit is not None
    assert (visit.ip, visit.user, visit.data, visit.last_event_id) == ("10.0.0.1", None, {"n": 1}, "x-1")
    assert visit.subscription == Subscription.of(["a", "b"], ["c/*"], private=True)
    assert visit.grant is ANYBODY
    assert visit.bounded == ("c/*",)


def test_a_subscription_is_recognised_behind_the_prefix_of_a_mount(hub: Hub) -> None:
    assert open_app(hub).shortcuts.subscription(get(path="/sse/events", root="/sse")) is not None
    assert open_app(hub).shortcuts.subscription(get(path="/sse/events")) is None


@pytest.mark.parametrize(("scope", "reason"), LEFT_GETS.values(), ids=LEFT_GETS)
async def test_a_request_that_is_no_plain_subscription_is_left_to_the_route(
    hub: Hub, http: httpx.AsyncClient, scope: Scope, reason: str
) -> None:
    assert open_app(hub).shortcuts.subscription(scope) is None, reason
    answer = await http.get(f"{scope['path']}?{scope['query_string'].decode()}")
    assert answer.status_code in (400, 404, 414), reason


async def test_no_subscription_is_taken_before_the_hub_is_open() -> None:
    hub = Hub()
    assert open_app(hub).shortcuts.subscription(get()) is None  # the route says why
    async with hub:
        assert open_app(hub).shortcuts.subscription(get()) is not None


async def test_a_hub_that_drains_or_has_closed_turns_its_clients_away_itself(hub: Hub) -> None:
    hub.drain(0)
    assert open_app(hub).shortcuts.subscription(get()) is not None
    await hub.close()
    assert open_app(hub).shortcuts.subscription(get()) is not None


@pytest.mark.parametrize(
    ("origins", "headers", "taken"),
    [
        ((), [(b"origin", b"http://other")], True),  # without CORS the browser keeps the stream from that page
        (("http://other",), [(b"origin", b"http://other")], False),  # CORSMiddleware adds its header fields
        (("http://other",), [(b"host", b"hub")], True),
    ],
)
async def test_a_page_of_another_site_gets_the_header_fields_of_cors(
    origins: tuple[str, ...], headers: Headers, taken: bool
) -> None:
    async with Hub(HubConfig(allow_origins=origins)) as hub:
        assert (open_app(hub).shortcuts.subscription(get(headers=headers)) is not None) == taken


# What the application's own function does.


async def test_a_function_that_fails_is_left_to_the_route_which_answers_it(hub: Hub) -> None:
    def fails(asking: Asking) -> Grant:
        raise RuntimeError(f"{asking.url} is nothing for me")

    door = Door([Authorize(fails)], wall_clock=time.time)
    app = open_app(hub, door)
    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"topic=a", "headers": []}
    assert app.shortcuts.subscription(scope) is None
    assert app.shortcuts.publication(PATH, [JSON], EVENT) is None
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as http:
        for answer in await http.get("/events?topic=a"), await http.post("/events", content=EVENT, headers=[JSON]):
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
            assert "nothing for me" not in answer.text


async def test_a_function_is_told_where_a_publisher_comes_from(hub: Hub) -> None:
    def by_address(asking: Asking) -> Grant | None:
        return None if asking.ip == "10.0.0.9" else ANYBODY

    shortcuts = open_app(hub, Door([Authorize(by_address)], wall_clock=time.time)).shortcuts
    assert shortcuts.publication(PATH, [JSON], EVENT, ("10.0.0.9", 1)) is None
    assert shortcuts.publication(PATH, [JSON], EVENT, ("10.0.0.1", 1)) is not None
