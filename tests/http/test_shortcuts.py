"""Publishing without a task: what is answered at once, and that all else is left to the route."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from ssepool import Hub
from ssepool.http.publish import SLICE_EVENTS
from ssepool.runtime.streams.delivery import MAX_BACKLOG_BYTES, Delivery
from ssepool.runtime.streams.log import EventLog

Headers = list[tuple[bytes, bytes]]
Subscribe = Callable[..., Awaitable[Any]]

PATH = b"/events"
JSON = (b"content-type", b"application/json")
LINES = (b"content-type", b"application/x-ndjson")
EVENT = b'{"topic":"a","data":"x"}'

PLAIN: dict[str, tuple[Headers, bytes]] = {
    "an event": ([JSON], EVENT),
    "a batch": ([JSON], b"[" + EVENT + b"," + EVENT + b"]"),
    "lines": ([LINES], EVENT + b"\n" + EVENT),
    "with a charset": ([(b"content-type", b"application/json; charset=utf-8")], EVENT),
    "with other headers": ([(b"host", b"x"), (b"user-agent", b"y"), JSON, (b"accept", b"*/*")], EVENT),
    "as many as a slice": ([LINES], b"\n".join([EVENT] * SLICE_EVENTS)),
}

LEFT: dict[str, tuple[bytes, Headers, bytes]] = {
    "another path": (b"/pool", [JSON], EVENT),
    "a query": (b"/events?a=b", [JSON], EVENT),
    "a page's": (PATH, [(b"origin", b"http://x"), JSON], EVENT),
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
    "more than a slice": (PATH, [LINES], b"\n".join([EVENT] * (SLICE_EVENTS + 1))),
    "too long a body": (PATH, [JSON], b'{"topic":"a","data":"' + b"x" * 100_000 + b'"}'),
    "too long an event": (PATH, [JSON], b"[" + EVENT + b',{"topic":"a","data":"' + b"x" * 1000 + b'"}]'),
}


@pytest.mark.parametrize(("headers", "body"), PLAIN.values(), ids=PLAIN)
async def test_what_is_plain_is_answered_as_by_the_route(
    hub: Hub, http: httpx.AsyncClient, headers: Headers, body: bytes
) -> None:
    reply = hub.parts.shortcuts.publication(PATH, headers, body)
    assert reply is not None
    status, fields, content = reply
    published = hub.stats().events_published
    asked = await http.post("/events", content=body, headers=headers)
    assert (status, len(json.loads(content)["ids"])) == (asked.status_code, published)
    assert {*fields, (b"content-length", b"%d" % len(asked.content))} == set(asked.headers.raw)
    assert hub.stats().events_published == 2 * published


@pytest.mark.parametrize(("url", "headers", "body"), LEFT.values(), ids=LEFT)
async def test_nothing_is_done_about_all_else(hub: Hub, url: bytes, headers: Headers, body: bytes) -> None:
    assert hub.parts.shortcuts.publication(url, headers, body) is None
    assert hub.stats().events_published == 0


async def test_subscribers_get_what_is_published_at_once(hub: Hub, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    reply = hub.parts.shortcuts.publication(PATH, [JSON], EVENT)
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
    assert published * 900 <= MAX_BACKLOG_BYTES + 900
    assert hub.parts.shortcuts.publication(PATH, [JSON], EVENT) is None
    assert hub.stats().events_published == published
    monkeypatch.setattr(Delivery, "has_room", True)
    assert hub.parts.shortcuts.publication(PATH, [JSON], EVENT) is not None


async def test_a_broker_that_takes_its_time_is_left_to_the_route(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventLog, "complete", False)
    assert hub.parts.shortcuts.publication(PATH, [JSON], EVENT) is None


async def test_a_hub_that_has_closed_is_left_to_the_route(hub: Hub) -> None:
    await hub.close()
    assert hub.parts.shortcuts.publication(PATH, [JSON], EVENT) is None
