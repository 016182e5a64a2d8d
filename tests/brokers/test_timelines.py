"""The names under which histories go on, with each kind of `DROPPING` on a real server. What becomes of a real backup
and a real failover is in the tests of each broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from histories import DEADLINE, DROPPING, Open, batch, data, page_of, positions, read_all, take
from ssepool import AsyncPublisher, HubConfig
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.core.cut import Cut
from ssepool.core.timelines import MAX_TIMELINES, Timeline
from ssepool.errors import BrokerError

shared = pytest.mark.parametrize("kind", [kind for kind in DROPPING if kind != "memory"])


@pytest.fixture(params=DROPPING)
def kind(request: pytest.FixtureRequest) -> str:
    """For the fixtures `url` and `make`."""
    kind: str = request.param
    return kind


async def epoch_of(broker: Broker) -> str:
    return (await broker.bounds()).epoch


async def ids(broker: Broker) -> list[str | None]:
    return [entry.id for entry in await read_all(broker)]


OPENER = """
import asyncio, sys
from ssepool.brokers import connect
from ssepool.brokers.record import Record
from ssepool.config import HubConfig

async def main(url):
    broker = connect(HubConfig(broker=url))
    await broker.open()
    await broker.append([Record(b"data: another\\n\\n", ("news",))])
    print((await broker.bounds()).epoch, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def opener(url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process that has the history open and has appended one event; and the name that the history has there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OPENER, url, stdout=subprocess.PIPE, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            epoch = (await process.stdout.readline()).decode().strip()
        yield process, epoch
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# When a timeline begins.


@shared
async def test_who_opens_a_history_alone_goes_on_under_another_name(make: Open) -> None:
    broker = await make()
    first = await broker.append(batch("a", "b", "c", ids=[None, "mine"]))
    before = await broker.bounds()
    await broker.close()
    later = await make()
    bounds = await later.bounds()
    assert bounds == before._replace(epoch=bounds.epoch, timelines=(Timeline(before.epoch, 3),))
    assert bounds.epoch != before.epoch
    second = await later.append(batch("d", "e"))
    assert second == [(f"{bounds.epoch}-4", 4), (f"{bounds.epoch}-5", 5)]
    assert await ids(later) == [one.id for one in first + second]
    assert [entry.id for entry in await take(later, 0, 5)] == [one.id for one in first + second]
    assert [entry.id for entry in await later.fetch([3, 4])] == [first[2].id, second[0].id]


async def test_what_only_publishes_begins_no_timeline(make: Open, url: str) -> None:
    hub = await make()
    await hub.append(batch("a"))
    before = await hub.bounds()
    await hub.close()
    for number in range(3):
        async with AsyncPublisher(url) as publisher:
            await publisher.publish("news", str(number))
    publisher_broker = connect(HubConfig(broker=url))
    publisher_broker.follows = False
    await publisher_broker.open()
    after = await publisher_broker.bounds()
    await publisher_broker.close()
    assert (after.epoch, after.timelines, after.newest) == (before.epoch, before.timelines, 4)
    assert (await (await make()).bounds()).timelines == (*before.timelines, Timeline(before.epoch, 4))


@shared
async def test_a_history_in_which_nothing_is_has_no_name_before(make: Open) -> None:
    for _ in range(2):
        broker = await make()
        assert (await broker.bounds())[1:] == (0, 0, 0, (), 0)
        await broker.close()
    broker = await make()
    await broker.append(batch("a"))
    assert (await broker.bounds()).timelines == ()


@shared
async def test_a_history_that_somebody_has_open_goes_on_as_it_is(make: Open, url: str) -> None:
    broker = await make()
    await broker.append(batch("a"))
    before = await broker.bounds()
    other = await make()
    assert await other.bounds() == before
    await broker.close()
    assert await (await make()).bounds() == before
    async with opener(url) as (_, epoch):
        assert epoch == before.epoch
    assert await epoch_of(await make()) == before.epoch


@shared
async def test_a_process_that_is_killed_has_it_open_no_longer(make: Open, url: str) -> None:
    async with opener(url) as (process, epoch):
        one = await make()
        assert await epoch_of(one) == epoch
        await one.close()
        process.kill()
        await process.wait()
        later = await make()
        bounds = await later.bounds()
        assert bounds.epoch != epoch
        assert bounds.timelines == (Timeline(epoch, 1),)
        assert await later.find(f"{epoch}-1") == 1


@shared
async def test_those_who_open_it_at_once_make_one_timeline(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a"))
    before = await epoch_of(broker)
    await broker.close()
    brokers = await asyncio.gather(*(make() for _ in range(4)))
    bounds = [await broker.bounds() for broker in brokers]
    assert len({one.epoch for one in bounds}) == 1
    assert {one.timelines for one in bounds} == {(Timeline(before, 1),)}
    stored = [await broker.append(batch("b")) for broker in brokers]
    assert [one[0].id for one in stored] == [f"{bounds[0].epoch}-{position}" for position in (2, 3, 4, 5)]


@shared
async def test_everything_may_have_been_dropped_before(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a", "b"))
    before = await epoch_of(broker)
    await broker.drop([1, 2], {"news": Cut(2)}, 1)
    await broker.close()
    later = await make()
    bounds = await later.bounds()
    assert bounds[1:] == (2, 2, 0, (Timeline(before, 2),), 1)
    assert await later.append(batch("c")) == [(f"{bounds.epoch}-3", 3)]
    assert list(await later.cuts()) == [("news", Cut(2))]


# When it is told to.


async def test_a_new_timeline_begins_when_it_is_told_to(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a", "b"))
    before = await broker.bounds()
    bounds = await broker.renew(before.epoch)
    assert bounds == before._replace(epoch=bounds.epoch, timelines=(Timeline(before.epoch, 2),))
    assert await broker.bounds() == bounds
    assert await broker.append(batch("c")) == [(f"{bounds.epoch}-3", 3)]
    assert await ids(broker) == [f"{before.epoch}-1", f"{before.epoch}-2", f"{bounds.epoch}-3"]
    assert (await broker.renew(before.epoch))[:1] == (bounds.epoch,)  # it has been done


@shared
async def test_of_those_who_renew_at_once_one_does(make: Open) -> None:
    brokers = [await make() for _ in range(4)]
    await brokers[0].append(batch("a"))
    before = await epoch_of(brokers[0])
    bounds = await asyncio.gather(*(broker.renew(before) for broker in brokers))
    assert len({one.epoch for one in bounds}) == 1
    assert {one.timelines for one in bounds} == {(Timeline(before, 1),)}
    for _ in range(3):  # nobody takes it for a loss
        for broker in brokers:
            await broker.append(batch("b"))
            assert await epoch_of(broker) == bounds[0].epoch


@shared
async def test_who_reads_the_one_before_is_told(make: Open) -> None:
    one, two = await make(), await make()
    await one.append(batch("a", "b"))
    before = await epoch_of(two)
    async with aclosing(two.tail(0)) as tail:  # type: ignore[type-var]
        await page_of(tail)
        bounds = await one.renew(before)
        await one.append(batch("c"))
        with pytest.raises(BrokerError):
            async with asyncio.timeout(DEADLINE):
                await page_of(tail)
    for question in (
        two.read(0, max_entries=5),
        two.fetch([1]),
        two.drop([1], {"news": Cut(1)}, 0),
        take(two, 0, 1),
    ):
        with pytest.raises(BrokerError):
            await question
    assert (await two.append(batch("d")))[0].id == f"{bounds.epoch}-4"
    with pytest.raises(BrokerError):
        await two.read(0, max_entries=5)
    assert await epoch_of(two) == bounds.epoch
    assert data(await read_all(two)) == data(await take(two, 0, 4)) == ["a", "b", "c", "d"]
    assert list(await two.cuts()) == []


# Ids.


async def test_ids_of_the_timelines_before_are_known_up_to_their_ends(make: Open) -> None:
    broker = await make()
    names: list[str] = []
    for _ in range(3):
        names.append(await epoch_of(broker))
        await broker.append(batch("x", "mine", ids=[None, f"own-{len(names)}"]))
        await broker.renew(names[-1])
    names.append(await epoch_of(broker))
    await broker.append(batch("y"))
    a, b, c, d = names
    assert (await broker.bounds()).timelines == ((a, 2), (b, 4), (c, 6))
    assert await ids(broker) == [f"{a}-1", "own-1", f"{b}-3", "own-2", f"{c}-5", "own-3", f"{d}-7"]
    for id, position in (
        (f"{a}-1", 1),
        (f"{a}-2", 2),
        (f"{a}-3", None),
        (f"{b}-3", 3),
        (f"{b}-5", None),
        (f"{c}-6", 6),
        (f"{c}-7", None),
        (f"{d}-7", 7),
        (f"{d}-8", None),
        ("own-2", 4),
        ("00000000-1", None),
    ):
        assert (id, await broker.find(id)) == (id, position)
    await broker.drop([3], {"news": Cut(3)}, 0)
    assert await broker.find(f"{b}-3") is None


async def test_a_repetition_of_what_an_earlier_timeline_has_is_left_out(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a", "b", ids=[None, "mine"]))
    before = await epoch_of(broker)
    epoch = (await broker.renew(before)).epoch
    assert await broker.append(batch("b", "c", ids=["mine"])) == [("mine", 2), (f"{epoch}-3", 3)]


@shared
async def test_no_more_timelines_are_kept_than_are_allowed(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a"))
    names = [await epoch_of(broker)]
    for number in range(MAX_TIMELINES + 2):
        names.append((await broker.renew(names[-1])).epoch)
        if number % 10 == 0:
            await broker.append(batch("b"))
    for one in (broker, await make()):
        bounds = await one.bounds()
        assert bounds.epoch == names[-1]
        assert [timeline.epoch for timeline in bounds.timelines] == names[2:-1]
        assert len(bounds.timelines) == MAX_TIMELINES
        ends = [timeline.end for timeline in bounds.timelines]
        assert ends == sorted(ends)
        assert positions(await read_all(one)) == list(range(1, bounds.newest + 1))
        assert await one.find(f"{names[0]}-1") in (None, 1)  # some keep the id beside the event
    await broker.close()
