"""GET /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ssepool import Hub

Subscribe = Callable[..., Awaitable[Any]]


def samples(text: str) -> dict[str, float]:
    """Values by name and label."""
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_metrics_are_the_numbers_of_the_hub(http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub) -> None:
    stream, other = await subscribe("topic=a"), await subscribe("topic=b")
    await hub.publish("a", "x")
    await stream.next()
    await other.leave()
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found, stats = samples(answer.text), hub.stats()
    assert [found[f"ssepool_slots{{{state}}}"] for state in ("free", "reserved", "open", "closing")] == [3, 0, 1, 0]
    assert found["ssepool_pool_state{open}"] == 1 and found["ssepool_pool_state{draining}"] == 0
    assert found["ssepool_size"] == 4
    assert found["ssepool_saturation"] == 0.25
    assert found["ssepool_waiting"] == 0
    assert found["ssepool_requests_total"] == found["ssepool_granted_total"] == 2
    assert found["ssepool_timed_out_total"] == found["ssepool_cancelled_total"] == found["ssepool_refused_total"] == 0
    assert {reason: found[f"ssepool_released_total{{{reason}}}"] for reason in stats.pool.released} == {
        **dict.fromkeys(stats.pool.released, 0),
        "client_closed": 1,
    }
    assert found["ssepool_events_published_total"] == 1
    assert found["ssepool_events_delivered_total"] == stats.events_delivered
    assert found["ssepool_events_skipped_total"] == 0
    assert found["ssepool_bytes_sent_total"] == stats.bytes_sent
    assert found["ssepool_wait_seconds_total"] == 0


async def test_saturation_is_one_when_the_pool_is_full_and_goes_on_with_the_queue(
    http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub
) -> None:
    async def saturation() -> float:
        return samples((await http.get("/metrics")).text)["ssepool_saturation"]

    streams = [await subscribe(f"topic={number}") for number in range(3)]
    assert await saturation() == 0.75
    await subscribe("topic=last")
    assert await saturation() == 1
    waiters = [asyncio.ensure_future(subscribe("topic=late")) for _ in range(2)]
    async with asyncio.timeout(5):
        while hub.stats().pool.waiting < 2:
            await asyncio.sleep(0)
    assert await saturation() == 1.5
    for stream in streams:
        await stream.leave()
    await asyncio.gather(*waiters)
    assert await saturation() == 0.75


async def test_a_hub_that_is_not_open_yet_is_not_saturated() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(Hub().dev_app), base_url="http://hub") as http:
        assert samples((await http.get("/metrics")).text)["ssepool_saturation"] == 0


async def test_every_metric_explains_itself(http: httpx.AsyncClient) -> None:
    families = list(text_string_to_metric_families((await http.get("/metrics")).text))
    assert families
    assert [
        family.name for family in families if not family.documentation or not family.name.startswith("ssepool_")
    ] == []


async def test_openmetrics_is_spoken_to_who_asks_for_it(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_two_hubs_do_not_mix(http: httpx.AsyncClient, hub: Hub) -> None:
    await hub.publish("a", "x")
    async with Hub() as second:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(second.dev_app), base_url="http://hub") as other:
            assert samples((await other.get("/metrics")).text)["ssepool_events_published_total"] == 0
        assert samples((await http.get("/metrics")).text)["ssepool_events_published_total"] == 1
