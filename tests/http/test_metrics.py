"""GET /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ssepool import Event, Hub, HubConfig
from ssepool.core.window import STEP_ENTRIES

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


@pytest.mark.parametrize("broker", ["memory://", "sqlite:///{}/events.db"])
async def test_the_history_tells_how_many_topics_it_has_and_why_events_left_it(broker: str, tmp_path: Path) -> None:
    rules = ["one/* events=1", "cursor/* events=0"]
    config = HubConfig(broker=broker.format(tmp_path), history_events=5, topic_rules=rules)
    async with (
        Hub(config) as hub,
        httpx.AsyncClient(transport=httpx.ASGITransport(hub.dev_app), base_url="http://hub") as http,
    ):
        for topic in ("one/a", "one/a", "cursor/a", *["many"] * 7, "few"):
            await hub.publish(topic, "x")
        for _ in range(2):
            await hub.publish("few", "x", key="k")
        async with asyncio.timeout(5):
            while hub.stats().events_published < 13:
                await asyncio.sleep(0.01)
        found = samples((await http.get("/metrics")).text)
        reasons = ("age", "events", "bytes", "topic", "replaced", "live_only")
        dropped = {reason: found[f"ssepool_history_dropped_total{{{reason}}}"] for reason in reasons}
        assert dropped == {"age": 0, "events": 4, "bytes": 0, "topic": 1, "replaced": 1, "live_only": 1}
        assert (found["ssepool_topics"], found["ssepool_history_events"]) == (3, 6)
        history = (await http.get("/pool")).json()["history"]
        assert (history["topics"], history["dropped"]) == (3, dropped)
        assert hub.stats().history_dropped == dropped


async def test_no_metric_has_a_label_for_a_topic(http: httpx.AsyncClient, hub: Hub) -> None:
    before = samples((await http.get("/metrics")).text)
    for number in range(100):
        await hub.publish(f"t/{number}", "x")
    found = samples((await http.get("/metrics")).text)
    assert found.keys() == before.keys()
    assert found["ssepool_topics"] == 100


async def test_a_long_history_is_counted_whole(http: httpx.AsyncClient, hub: Hub) -> None:
    await hub.publish_many([Event("", [f"t/{number}"]) for number in range(2 * STEP_ENTRIES)])
    assert not hub._engine.log.window.is_indexed
    assert samples((await http.get("/metrics")).text)["ssepool_topics"] == 2 * STEP_ENTRIES


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
