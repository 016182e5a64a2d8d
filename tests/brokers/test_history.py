"""What is kept of each topic, and who is told of a gap: the same with each kind of broker, also after a restart."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from histories import DROPPING, until
from ssepool.brokers import connect
from ssepool.brokers.base import InstantBroker
from ssepool.config import HubConfig
from ssepool.core.beginning import Beginning
from ssepool.core.event import Event
from ssepool.core.topics import Subscription
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams import sweeper as sweeper_module
from ssepool.runtime.streams.log import EventLog

pytestmark = pytest.mark.parametrize("kind", [*dict.fromkeys(["memory", *DROPPING])])

RULES: dict[str, Any] = {
    "history_events": 30,
    "topic_rules": ("answers/* events=50", "live events=0", "price events=1"),
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "SPARE_SECONDS", 0.0)
    monkeypatch.setattr(follower_module, "CHECK_SECONDS", 0.05)


async def _room() -> None: ...


@asynccontextmanager
async def node(url: str, **settings: Any) -> AsyncIterator[EventLog]:
    """A node's log of the history of this URL."""
    loop = asyncio.get_running_loop()
    broker = connect(HubConfig(broker=url, **{**RULES, **settings}))
    log = EventLog(broker, lambda entries: None, lambda missed: None, _room, loop.time)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def publish(log: EventLog, *topics: str) -> None:
    """An event for each of these topics, and for several if there is a space between them."""
    for topic in topics:
        await log.store([Event("x", tuple(topic.split()))])
    newest = (await log.broker.bounds()).newest
    await log.reached(newest)


def kept(log: EventLog, topic: str) -> list[int]:
    """The positions of what is kept of a topic."""
    while not log.window.is_indexed:
        log.window.index()
    found, _ = log.window.select([topic], after=0, until=log.position, max_entries=1000)
    return [entry.position for entry in found]


def missed(log: EventLog, place: int, *topics: str, **fields: Any) -> bool:
    return bool(log.lost(Subscription.of(topics, **fields), place))


async def swept(log: EventLog) -> None:
    """Wait until the broker has what the window keeps, and nothing else."""
    if isinstance(log.broker, InstantBroker):
        return

    async def is_swept() -> bool:
        entries = []
        while page := await log.broker.read(entries[-1].position if entries else 0, max_entries=1000):
            entries += page
        return [entry.position for entry in entries] == [one.position for one in log.window.read(0, max_entries=10**6)]

    await until(is_swept)


async def test_a_noisy_topic_evicts_nobody_else_and_gaps_are_told_where_they_are(url: str) -> None:
    async with node(url) as log:
        await publish(log, "quiet", "quiet other", "empty", *["noise"] * 100, *["price"] * 3, *["live"] * 5)
        await swept(log)

        def check(log: EventLog) -> None:
            assert kept(log, "quiet") == [1, 2]
            assert kept(log, "other") == [2]
            assert kept(log, "noise") == list(range(77, 104))
            assert kept(log, "price") == [106]
            assert kept(log, "live") == []
            for place in range(112):
                assert missed(log, place, "quiet", "other", "empty", "live", "nobody's") is False
                assert missed(log, place, "noise") is (place < 76)
                assert missed(log, place, "price", "quiet") is (place < 105)

        check(log)
        if isinstance(log.broker, InstantBroker):
            return
        async with node(url) as other:
            check(other)
        epoch = log.window.epoch
    async with node(url) as later:  # a node that opens alone: a new timeline, and the places of the old one are good
        check(later)
        assert later.window.epoch != epoch
        for place in (0, 50, 111):
            found = later.find(Beginning(epoch, place).id, Subscription.of(["quiet"]))
            assert found is not None
            assert (found.position, found.complete) == (place, True)


async def test_four_answers_at_once_are_kept_whole_beside_each_other(url: str) -> None:
    async with node(url, history_events=20, topic_rules=("answers/* events=5000 age=86400",)) as log:
        await publish(log, *["noise", "answers/1", "answers/2", "answers/3", "answers/4"] * 60)
        assert {len(kept(log, f"answers/{number}")) for number in (1, 2, 3, 4)} == {60}
        assert len(kept(log, "noise")) == 20


async def test_a_node_that_opens_decides_again_what_nobody_has_dropped(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SPARE_SECONDS", 1000.0)
    async with node(url) as log:
        await publish(log, "quiet", *["noise"] * 100)
        if isinstance(log.broker, InstantBroker):
            return
        assert len(await log.broker.read(0, max_entries=1000)) == 101  # as if it had been killed now
    monkeypatch.setattr(sweeper_module, "SPARE_SECONDS", 0.0)
    async with node(url) as later:
        assert kept(later, "noise") == list(range(73, 102))
        assert kept(later, "quiet") == [1]
        assert missed(later, 71, "noise")
        assert not missed(later, 72, "noise")
        assert not missed(later, 0, "quiet")
        await swept(later)


async def test_who_comes_from_before_a_tombstone_that_has_gone_is_told(url: str) -> None:
    row, forever = {"key": "row"}, {"history_age": 10.0**9}
    async with node(url, **forever) as log:
        await log.store([Event("1", ("rows",), **row), Event("2", ("rows",), **row)])
        await log.store([Event("row", ("rows",), removed=True, **row), Event("x", ("other",))])
        await log.reached(4)
        assert kept(log, "rows") == [3]
        assert not missed(log, 0, "rows")
        log.window.expire(asyncio.get_running_loop().time() + 86_401)
        assert (kept(log, "rows"), missed(log, 2, "rows"), missed(log, 3, "rows")) == ([], True, False)
        assert not missed(log, 0, "other")
        if isinstance(log.broker, InstantBroker):
            return
        log.window.drops = deque((0.0, entry, is_missed) for _, entry, is_missed in log.window.drops or ())
        await swept(log)
    async with node(url, **forever) as later:
        assert (kept(later, "rows"), missed(later, 2, "rows"), missed(later, 3, "rows")) == ([], True, False)
        assert not missed(later, 0, "other")


async def test_what_was_published_last_may_be_kept_no_longer(url: str) -> None:
    async with node(url) as log:
        await publish(log, "quiet", *["live"] * 5)
        await swept(log)
        if isinstance(log.broker, InstantBroker):
            return
    async with asyncio.timeout(5), node(url) as later:
        assert later.position == 6
        assert kept(later, "quiet") == [1]
        await publish(later, "quiet")
        assert kept(later, "quiet") == [1, 7]
