"""httpx-sse and httpx2's `client.sse`, plain and async: they receive, and resume with `Last-Event-ID`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import httpx_sse
import pytest

from live import LiveServer, serve_command

EVENTS = [(None, "plain"), ("update", '{"of":"a type"}'), (None, "two\nlines, Umläute 🦫"), ("last", "")]
Received = list[tuple[str, str, str]]
"""Type, data and id of each event."""
Collect = Callable[[LiveServer, str, str | None, Callable[[], Any], int], Received]


def request(server: LiveServer, topic: str, last_event_id: str | None) -> dict[str, Any]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    return {"url": f"{server.url}/events", "params": {"topic": topic}, "headers": headers}


def take(received: Received, event: Any, then: Callable[[], Any], most: int) -> bool:
    """Keep an event; after the opening do what the test wants done then. True when there are enough."""
    if event.event == "ssepool.open":
        then()
    else:
        received.append((event.event, event.data, event.id))
    return len(received) == most


def with_httpx_sse(server: LiveServer, topic: str, since: str | None, then: Callable[[], Any], most: int) -> Received:
    received: Received = []
    options = request(server, topic, since)
    with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", **options) as source:
        for event in source.iter_sse():
            if take(received, event, then, most):
                break
    return received


def with_httpx_sse_async(
    server: LiveServer, topic: str, since: str | None, then: Callable[[], Any], most: int
) -> Received:
    async def collect() -> Received:
        received: Received = []
        options = request(server, topic, since)
        async with httpx.AsyncClient() as client, httpx_sse.aconnect_sse(client, "GET", **options) as source:
            async for event in source.aiter_sse():
                if take(received, event, then, most):
                    break
        return received

    return asyncio.run(collect())


def with_httpx2(server: LiveServer, topic: str, since: str | None, then: Callable[[], Any], most: int) -> Received:
    received: Received = []
    with httpx2.Client() as client, client.sse(**request(server, topic, since)) as source:
        for event in source:
            if take(received, event, then, most):
                break
    return received


def with_httpx2_async(
    server: LiveServer, topic: str, since: str | None, then: Callable[[], Any], most: int
) -> Received:
    async def collect() -> Received:
        received: Received = []
        async with httpx2.AsyncClient() as client, client.sse(**request(server, topic, since)) as source:
            async for event in source:
                if take(received, event, then, most):
                    break
        return received

    return asyncio.run(collect())


@pytest.fixture(params=[with_httpx_sse, with_httpx_sse_async, with_httpx2, with_httpx2_async])
def collect(request: pytest.FixtureRequest) -> Collect:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["--detach", "--no-detach"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_command(request.param) as server:
        yield server


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of the test's own."""
    return str(request.node.name)


def test_it_receives_what_is_published_and_resumes(server: LiveServer, collect: Collect, topic: str) -> None:
    ids: list[str] = []

    def publish() -> None:
        ids.extend(server.publish(topic, data, type=type) for type, data in EVENTS)

    received = collect(server, topic, None, publish, len(EVENTS))
    assert received == [(type or "message", data, id) for (type, data), id in zip(EVENTS, ids, strict=True)]
    assert collect(server, topic, ids[0], lambda: None, len(EVENTS) - 1) == received[1:]


def test_it_receives_a_thousand_events_in_order(server: LiveServer, collect: Collect, topic: str) -> None:
    events = [{"topic": topic, "data": f"number {number}"} for number in range(1000)]
    received = collect(server, topic, None, lambda: server.request("POST", "/events", events), len(events))
    assert [data for _, data, _ in received] == [event["data"] for event in events]


def test_an_id_that_is_not_kept_is_told_as_a_gap(server: LiveServer, collect: Collect, topic: str) -> None:
    [(type, data, _)] = collect(server, topic, "of-another-server", lambda: None, 1)
    assert type == "ssepool.gap"
    assert '"requested":"of-another-server"' in data
