"""What a request is answered with while nobody can say what it may do, and that a rate is looked at before anybody is
asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ssepool import AccessConfig, Asking, AuthorizeUnavailable, Grant, Hub, HubConfig, PoolConfig
from ssepool.core.decoder import Decoder


@contextlib.asynccontextmanager
async def client(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with hub, httpx.AsyncClient(transport=httpx.ASGITransport(hub.app), base_url="http://hub") as http:
        yield http


async def nobody_knows(asking: Asking) -> Grant | None:
    raise AuthorizeUnavailable("the application cannot be asked")


async def test_a_stream_is_told_to_come_back() -> None:
    async with client(Hub(authorize=nobody_knows)) as http:
        answer = await http.get("/events?topic=a")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    [closed] = Decoder().feed(answer.content)
    assert (closed.type, closed.data) == ("ssepool.close", '{"reason":"authorize_unavailable"}')
    assert "retry: " in answer.text


async def test_programs_get_503() -> None:
    config = HubConfig(pool=PoolConfig(on_full="reject"))
    async with client(Hub(config, authorize=nobody_knows)) as http:
        answers = [await http.get("/events?topic=a"), await http.post("/events", json={"topic": "a", "data": 1})]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "authorize_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 10


async def test_nobody_takes_a_slot_or_publishes_meanwhile() -> None:
    hub = Hub(HubConfig(access=AccessConfig(public_topics=("a",))), authorize=nobody_knows)
    async with client(hub) as http:
        assert "ssepool.open" not in (await http.get("/events?topic=a")).text
        await http.post("/events", json={"topic": "a", "data": 1})
        stats = hub.stats()
    assert stats.events_published == 0
    assert (stats.pool.open, sum(stats.pool.released.values())) == (0, 0)


@pytest.mark.parametrize("waits", [True, False])
async def test_who_has_used_up_the_rate_is_not_asked_about(waits: bool) -> None:
    asked: list[Any] = []

    def at_once(asking: Asking) -> Grant | None:
        asked.append(asking)
        return None

    async def in_time(asking: Asking) -> Grant | None:
        return at_once(asking)

    # One request in a very long time.
    hub = Hub(HubConfig(subscribe_rate=1e-6), authorize=in_time if waits else at_once)
    async with client(hub) as http:
        assert (await http.get("/events?topic=a")).status_code == 401
        before = len(asked)
        rate = hub.parts.engine.rates.subscribe
        assert rate is not None
        rate.take("127.0.0.1", hub.parts.engine.now())
        answer = await http.get("/events?topic=a")
        assert "too_many_requests" in answer.text
        assert len(asked) - before == (0 if waits else 1)  # the shortcut asks whoever answers at once
