"""What a test may have happen to a hub: each has the true effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssepool import AccessConfig, Hub, HubConfig, PoolConfig
from ssepool.testing import (
    ANY,
    assert_all_slots_free,
    expire,
    fill,
    kick,
    make_gap,
    recorded,
    running,
    serve,
    stream,
    virtual_clock,
)

WAYS = pytest.mark.parametrize("way", ["asgi", "socket"])
TO_A = "/events?topic=a"


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    config = HubConfig(access=AccessConfig(public_topics=("*",)), pool=PoolConfig(size=5), lag_events=10)
    async with Hub(config) as hub:
        yield hub
        await assert_all_slots_free(hub)


def released(hub: Hub) -> dict[str, int]:
    return {reason: count for reason, count in hub.stats().pool.released.items() if count}


@WAYS
async def test_a_drop_is_a_lost_network_and_resume_gets_what_was_missed(hub: Hub, way: Any) -> None:
    async with virtual_clock() as clock, stream(hub.app, TO_A, way=way) as s:
        await hub.publish("a", "one")
        await s.expect(data="one")
        await s.drop()
        await assert_all_slots_free(hub)
        assert released(hub) == {"peer_dead" if way == "asgi" else "client_closed": 1}
        await hub.publish("a", "two")
        retry, began = s.reconnection_time, clock.elapsed
        assert 3 <= retry <= 6
        await s.resume()
        assert clock.elapsed - began >= retry - 0.001
        await s.expect(data="two")
        assert [str(item).partition(" ")[0] for item in s.came].count("ssepool.open") == 2


async def test_in_real_time_resume_does_not_wait(hub: Hub) -> None:
    async with stream(hub.app, TO_A) as s, asyncio.timeout(2.9):
        await s.resume()


async def test_a_client_that_pauses_lags(hub: Hub) -> None:
    async with virtual_clock() as clock, stream(hub.app, TO_A) as s:
        s.pause()
        await hub.publish("a", "on its way")
        await clock.settle()
        for number in range(20):
            await hub.publish("a", str(number))
            await clock.settle()
        s.go_on()
        await s.expect(data="on its way")
        gap = {"requested": None, "resumed": ANY, "reason": "lagged", "skipped": 19}
        await s.expect("ssepool.gap", gap)
        await s.expect(data="19")


@WAYS
async def test_a_client_that_pauses_for_long_is_sent_away(hub: Hub, way: Any) -> None:
    async with virtual_clock() as clock, stream(hub.app, TO_A, way=way) as s:
        s.pause()
        for _ in range(20):
            await hub.publish("a", "x" * 500_000)
            await clock.settle()
        await clock.advance(22)
        assert released(hub) == {"send_timeout": 1}


@WAYS
async def test_a_full_pool_has_the_next_one_wait(hub: Hub, way: Any) -> None:
    async with virtual_clock(), fill(hub, leave=1) as clients:
        assert len(clients) == 4
        async with stream(hub.app, TO_A, way=way), stream(hub.app, TO_A, way=way, wait=False) as waiter:
            await waiter.expect_no_answer()
            assert hub.stats().pool.waiting == 1
            await clients[0].drop()
            await waiter.opened()
            await waiter.expect("ssepool.open")


@WAYS
@pytest.mark.parametrize(("end", "reason"), [(expire, "token_expired"), (kick, "kicked")])
async def test_kicked_and_expired(hub: Hub, way: Any, end: Any, reason: str) -> None:
    async with stream(hub.app, TO_A, way=way) as s:
        await end(hub, s)
        await s.expect_end(reason)
        assert s.close_reason == reason
        with pytest.raises(AssertionError, match="its client has left"):
            await end(hub, s)
        await assert_all_slots_free(hub)
    assert released(hub)[reason] == 1


@WAYS
async def test_who_resumes_from_what_is_gone_is_told(hub: Hub, way: Any) -> None:
    async with stream(hub.app, TO_A, way=way) as s:
        last = await hub.publish("a", "one")
        await s.expect(data="one")
        await s.drop()
        await hub.publish("a", "two")
        await make_gap(hub)
        await s.resume()
        await s.expect("ssepool.gap", {"requested": last, "resumed": ANY, "reason": "expired"})


async def test_slots_that_stay_taken_are_told(hub: Hub) -> None:
    async with virtual_clock(), stream(hub.app, TO_A):
        with pytest.raises(AssertionError, match=r"1 of 5 slots are not free, and 0 requests wait:\n.*'a'"):
            await assert_all_slots_free(hub)


async def test_what_is_published_is_recorded_without_a_client() -> None:
    hub = Hub()
    async with virtual_clock(), recorded(hub) as events:  # which opens it
        first = await hub.publish(["a", "b"], {"n": 1}, type="count", private=True)
        hub.publish_nowait("a", "text")
        event = await events.expect("b", {"n": ANY}, type="count")
        assert (event.topics, event.data, event.id, event.private) == (("a", "b"), {"n": 1}, first, True)
        with pytest.raises(AssertionError, match="to 'b', but published was\n    a: message text\nbefore came:"):
            await events.expect("b")
        assert (await events.expect("a")).data == "text"
        with pytest.raises(AssertionError, match="but nothing was published; before came"):
            await events.expect("a")
        assert [event.data for event in events.to("a")] == [{"n": 1}, "text"]
    async with recorded(hub) as again:
        assert again == []
    assert not hasattr(hub.parts.engine.log._deliver, "__wrapped__")


async def test_an_application_is_started_once_and_stopped_with_the_last() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["name"] = "ann"
            for step in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{step}"
                told.append(step)
                await send({"type": f"lifespan.{step}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"]["name"].encode()})

    async with running(app), stream(app, "/") as s, running(app), serve(app), stream(app, "/", way="socket") as t:
        assert (await s.text(), await t.text()) == ("ann", "ann")
        assert told == ["startup"]
    assert told == ["startup", "shutdown"]
    async with stream(app, "/"):
        pass
    assert told == ["startup", "shutdown"] * 2


@pytest.mark.parametrize("step", ["startup", "shutdown"])
async def test_what_a_lifespan_raises_is_raised_in_the_test(step: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if step == "startup":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise LookupError("no database")

    with pytest.raises((RuntimeError, LookupError), match="no database"):
        async with running(app):
            assert step == "shutdown"
