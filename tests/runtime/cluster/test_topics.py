"""Topics: what is listed of each, for all nodes, and that a long history stops nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channel import Channel, Port, member, met
from channel import opened as opened_nodes
from parts import opened, running
from ssepool.core.event import Event
from ssepool.core.grant import ANYBODY
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.runtime.cluster import topics as module
from ssepool.runtime.cluster.messages import FindTopics, TopicNames
from ssepool.runtime.cluster.topics import TopicInfo, Topics, fitting, merged
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams import slices
from virtual import in_virtual_time, now


def node(engine: Engine, channel: Channel | None = None) -> Topics:
    return Topics(engine, member(engine.node, Port(channel or Channel()), now=engine.now))


async def subscribed(engine: Engine, *topics: str, patterns: Any = ()) -> None:
    await opened(engine, Visit(grant=ANYBODY, subscription=Subscription.of(topics, patterns)))


async def listed(topics: Topics, **wanted: Any) -> list[TopicInfo]:
    found, _, missing = await topics.page(FindTopics(**{"limit": 100, **wanted}))
    assert missing == []
    return found


async def test_a_topic_tells_what_is_kept_of_it_and_who_listens() -> None:
    async with running() as engine:
        await subscribed(engine, "a", "quiet")
        await subscribed(engine, "a", patterns=["a", "*"])
        await subscribed(engine, patterns=["*"])
        await subscribed(engine, "ssepool/pool")
        await engine.publish_many([Event("x", ["a"]), Event("y", ["a", "b"])])
        a, b, quiet = await listed(node(engine))
        assert (a.topic, a.events, a.subscribers, a.by_pattern) == ("a", 2, 2, 1)
        assert (b.topic, b.events, b.subscribers, b.by_pattern) == ("b", 1, 0, 2)
        assert a.bytes > b.bytes > 0
        assert a.oldest is not None
        assert a.newest is not None
        assert 0 <= a.newest <= a.oldest < 60
        assert (a.rate, b.rate) == (0.2, 0.1)
        assert quiet == TopicInfo("quiet", 0, 0, None, None, 0.0, 1, 2)


async def test_pages_follow_each_other_by_name() -> None:
    async with running() as engine:
        topics = node(engine)
        names = sorted(f"t/{number}" for number in range(3000))
        await engine.publish_many([Event("", [name]) for name in names])
        await engine.publish_many([Event("", ["other"])])
        seen: list[str] = []
        more = True
        while more:
            page, more, _ = await topics.page(FindTopics(1000, prefix="t/", after=seen[-1] if seen else ""))
            seen += [info.topic for info in page]
        assert seen == names


@pytest.mark.parametrize(
    ("sort", "first"), [("events", "many"), ("rate", "many"), ("bytes", "big"), ("subscribers", "liked")]
)
async def test_those_that_have_most_come_first(sort: Any, first: str) -> None:
    async with running() as engine:
        await subscribed(engine, "liked")
        await subscribed(engine, "liked", "many")
        events = [Event("", ["many"])] * 5 + [Event("x" * 5000, ["big"]), Event("", ["liked"])]
        await engine.publish_many([*events, *(Event("", [f"other/{number}"]) for number in range(500))])
        found, more, _ = await node(engine).page(FindTopics(2, sort))
        assert found[0].topic == first
        assert (len(found), more) == (2, False)


@in_virtual_time
async def test_subscribers_of_all_nodes_are_counted() -> None:
    channel = Channel()
    async with running(now=now()) as one, running(now=now()) as two:
        clusters = [member(engine.node, Port(channel), now=engine.now) for engine in (one, two)]
        here, _ = (Topics(engine, cluster) for engine, cluster in zip((one, two), clusters, strict=True))
        async with opened_nodes(*clusters):
            await met(*clusters)
            await subscribed(one, "a", patterns=["*"])
            await subscribed(two, "a", "there")
            await subscribed(two, patterns=["*"])
            found = {info.topic: (info.subscribers, info.by_pattern) for info in await listed(here)}
            assert found == {"a": (2, 1), "there": (1, 2)}
            most = await listed(here, sort="subscribers", limit=1)
            assert [(info.topic, info.subscribers) for info in most] == [("a", 2)]
            channel.fate = lambda message: () if message.kind == "answer" else (0.0,)
            found_here, _, missing = await here.page(FindTopics(10))
            assert [(info.topic, info.subscribers) for info in found_here] == [("a", 1)]
            assert missing == [two.node]


def test_behind_the_end_of_one_nodes_page_nothing_is_listed() -> None:
    pages = [TopicNames(["a", "c"], more=True), TopicNames(["b", "d", "e"])]
    assert merged(pages, FindTopics(10)) == (["a", "b", "c"], True)
    assert merged([TopicNames(["a"]), TopicNames(["a", "b"])], FindTopics(10)) == (["a", "b"], False)
    assert merged([TopicNames(["a"]), TopicNames(["a", "b"])], FindTopics(1)) == (["a"], True)


def test_names_are_as_many_as_fit_into_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 10)
    assert fitting(["aaaa", "b", "c"]) == ["aaaa"]
    assert fitting(["a" * 100, "b"]) == ["a" * 100]


async def test_others_have_their_turn_while_a_long_history_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as engine:
        for start in range(0, 9000, 1000):
            await engine.publish_many([Event("", [f"t/{number}"]) for number in range(start, start + 1000)])
        monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
        asked = asyncio.create_task(listed(node(engine), sort="bytes"))
        turns = 0
        while not asked.done():
            await engine.publish_many([Event("", [f"new/{turns}"])])  # what is looked through changes meanwhile
            await asyncio.sleep(0)
            turns += 1
        assert len(await asked) == 100
        assert turns > 20
