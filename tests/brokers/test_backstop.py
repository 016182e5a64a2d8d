"""The backstop: where no hub is, publishers bound the history; where one is, or keeps more, they leave it alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import pytest

from histories import DROPPING, Open, until
from live import Stream, serve_command
from scripted_broker import Scripted
from ssepool import AsyncPublisher, BrokerError, Event
from ssepool.brokers import backstop as backstop_module
from ssepool.brokers import connect
from ssepool.brokers.backstop import BOUND, HUB, HUB_SECONDS, LOOK_EVENTS, LOOK_SECONDS, TRIM_SECONDS, Backstop
from ssepool.brokers.base import DROP_ENTRIES, Bounds
from ssepool.config import HubConfig, KiB, MiB
from ssepool.core.cut import Cut
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams.log import EventLog

LEAST = 100 * KiB
SIZE = 300
"""Bytes that an event takes in the scripted broker."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backstop_module, "LEAST_BYTES", LEAST)
    monkeypatch.setattr(backstop_module, "SPARE_BYTES", 0)
    monkeypatch.setattr(backstop_module, "BUSY_SECONDS", 10.0)
    monkeypatch.setattr(backstop_module, "MAX_SECONDS", 20.0)


# What it does, and when.


class Sized(Scripted):
    """A broker that knows its bytes and its floor, and lets others have their turn meanwhile."""

    def __init__(self) -> None:
        super().__init__(HubConfig(broker="sqlite:///scripted.db"))
        self.floor = 0
        self.trims = 0

    async def trim(self) -> None:
        self.trims += 1

    async def bounds(self) -> Bounds:
        bounds = await super().bounds()
        await asyncio.sleep(0)
        return bounds._replace(bytes=SIZE * len(self.entries))

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        assert 0 < len(positions) <= DROP_ENTRIES
        await super().drop(positions, cuts, floor)
        self.floor = max(self.floor or 0, floor)
        self.oldest = max(self.oldest, *positions)


class Setup:
    def __init__(self) -> None:
        self.time = 100.0
        self.broker = Sized()
        self.backstop = Backstop(self.broker, lambda: self.time)

    async def publish(self, count: int, seconds: float = LOOK_SECONDS[0]) -> None:
        self.time += seconds
        self.broker.put(count)
        await self.backstop.published(count)

    @property
    def size(self) -> int:
        return SIZE * len(self.broker.entries)


async def test_it_drops_the_oldest_when_there_is_far_too_much() -> None:
    setup = Setup()
    await setup.publish(2 * LEAST // SIZE)
    assert setup.broker.told == []
    await setup.publish(10 * DROP_ENTRIES)
    assert LEAST < setup.size < LEAST * 1.01 + 2000
    first = setup.broker.entries[0].position
    assert [position for positions, _ in setup.broker.told for position in positions] == list(range(1, first))
    assert setup.broker.floor == first - 1


async def test_it_looks_now_and_then_and_at_once_when_a_publisher_begins() -> None:
    setup = Setup()
    setup.broker.floor = None  # nothing is to be done, however much there is
    for count, seconds, looks in (
        (1, 0.0, 1),  # the process may end with this
        (LOOK_EVENTS - 1, 1.0, 1),
        (1, 0.0, 2),
        (LOOK_EVENTS, 0.5, 2),
        (1, 0.5, 3),
        (1, LOOK_SECONDS[1] - 0.1, 3),
        (1, 0.1, 4),
    ):
        await setup.publish(count, seconds)
        assert setup.broker.looks == looks


async def test_housekeeping_is_done_each_minute() -> None:
    setup = Setup()
    for seconds, trims in ((0.0, 0), (TRIM_SECONDS - 1, 0), (20.0, 1), (20.0, 1), (TRIM_SECONDS, 2)):
        await setup.publish(1, seconds)
        assert setup.broker.trims == trims


async def test_what_cannot_be_dropped_at_once_is_left_to_the_next_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backstop_module, "BUSY_SECONDS", 0.0)
    setup = Setup()
    await setup.publish(5 * DROP_ENTRIES)
    assert len(setup.broker.told) == 1
    while setup.size > 1.05 * LEAST:
        before = len(setup.broker.told)
        await setup.publish(1, 0.0)
        assert len(setup.broker.told) == before + 1


async def test_of_the_publishes_of_a_moment_one_does_it() -> None:
    setup = Setup()
    setup.broker.put(5 * DROP_ENTRIES)
    await asyncio.gather(*(setup.backstop.published(1) for _ in range(10)))
    dropped = [position for positions, _ in setup.broker.told for position in positions]
    assert len(dropped) == len(set(dropped)) > 0


async def test_where_a_hub_drops_publishers_do_not() -> None:
    setup = Setup()
    await backstop_module.tell(setup.broker)
    await setup.publish(100 * DROP_ENTRIES)
    await setup.publish(1, HUB_SECONDS - 0.1)
    assert setup.broker.told == []
    await setup.publish(1, 20.0)
    assert setup.broker.told == []  # as much as that one kept, and far less than twice that
    setup.broker.put(3 * setup.broker.config.history_bytes // SIZE - len(setup.broker.entries))
    await backstop_module.tell(setup.broker)
    await setup.publish(1, 20.0)
    assert setup.broker.told == []


async def test_a_hub_that_comes_in_between_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backstop_module, "BUSY_SECONDS", 0.0)
    setup = Setup()
    await setup.publish(5 * DROP_ENTRIES)
    await backstop_module.tell(setup.broker)
    await setup.publish(1)
    await setup.publish(1, 20.0)
    assert len(setup.broker.told) == 1


@pytest.mark.parametrize("error", [BrokerError("away"), ValueError("a defect")], ids=repr)
async def test_what_fails_is_logged_once(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    setup = Setup()
    setup.broker.blind = error
    with caplog.at_level(logging.WARNING, "ssepool"):
        for _ in range(3):
            await setup.publish(LOOK_EVENTS, 20.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    setup.broker.blind = None
    await setup.publish(LOOK_EVENTS, 20.0)
    assert setup.broker.told


async def test_a_broker_that_does_not_answer_holds_no_publish_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backstop_module, "MAX_SECONDS", 0.01)
    setup = Setup()
    setup.broker.answers.clear()
    await setup.publish(5 * DROP_ENTRIES)
    assert setup.broker.told == []


# With each kind of broker.

each = pytest.mark.parametrize("kind", DROPPING)


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backstop_module, "LOOK_SECONDS", (0.0, 0.0))


def texts(first: int, count: int = 250) -> list[str]:
    return [f"{number:<500}." for number in range(first, first + count)]


async def publish(publisher: AsyncPublisher, first: int) -> list[str]:
    return await publisher.publish_many([Event(text, ("news",)) for text in texts(first)])


@each
@pytest.mark.usefixtures("_often")
async def test_without_a_hub_the_history_stays_bounded_and_who_missed_something_is_told(url: str, make: Open) -> None:
    looking = await make()
    ids: list[str] = []
    async with AsyncPublisher(url) as publisher:
        for first in range(1, 2001, 250):
            ids += await publish(publisher, first)
            await looking.trim()  # what others have dropped is known for sure then
            assert (await looking.bounds()).bytes <= 2 * LEAST
    bounds = await looking.bounds()
    assert bounds.bytes > LEAST // 2
    assert 1000 < bounds.oldest == bounds.floor
    left = texts(1, 2000)[bounds.oldest :]
    with serve_command("--broker", url) as server:
        with Stream(server, "news", last_event_id=ids[10]) as late:
            late.wait_data(*left)
            (gap,) = late.of_type("ssepool.gap")
            assert gap["reason"] == "expired"
        with Stream(server, "news", last_event_id=ids[bounds.oldest + 4]) as near:
            near.wait_data(*left[5:])
            assert near.of_type("ssepool.gap") == []


@each
@pytest.mark.usefixtures("_often")
async def test_what_a_hub_keeps_no_publisher_drops(url: str, make: Open) -> None:
    broker = await make()
    await broker.keep(f"{BOUND}{MiB}", b"", 60)
    await broker.keep("revocation-x", b"", 60)
    async with AsyncPublisher(url) as publisher:
        for first in range(1, 2001, 250):
            await publish(publisher, first)
    assert (await broker.bounds()).oldest == 0


@each
@pytest.mark.usefixtures("_often")
async def test_a_hub_that_was_there_a_moment_ago_is_left_to_drop(
    url: str, make: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "CHECK_SECONDS", 0.05)
    looking = await make()

    async def room() -> None: ...

    async def is_told() -> bool:
        return {fact.name for fact in await looking.kept()} == {HUB, f"{BOUND}{KiB}"}

    hub = connect(HubConfig(broker=url, history_bytes=KiB))
    log = EventLog(hub, lambda entries: None, lambda missed: None, room, asyncio.get_running_loop().time)
    await log.open()
    try:
        await until(is_told)
    finally:
        await log.close()
    async with AsyncPublisher(url) as publisher:
        for first in range(1, 2001, 250):
            await publish(publisher, first)
    assert (await looking.bounds()).oldest == 0
