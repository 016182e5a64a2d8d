"""Records that cannot be read, on real servers: somebody else has written them, or a version with another layout."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import pytest
from nats.aio.client import Client
from redis.asyncio import Redis

from histories import DEADLINE, Open, batch, data, positions, read_all, take
from service_fixtures import Get
from services.kinds import SERVICES
from services.postgres import USER
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.brokers.nats.batch import Part
from ssepool.brokers.record import pack, unreadable
from ssepool.brokers.sqlite.broker import path_of
from ssepool.config import HubConfig
from ssepool.core.event import Entry
from ssepool.core.topics import Subscription
from ssepool.runtime.streams.log import EventLog

NEWS = Subscription.of(["news"])

pytestmark = pytest.mark.parametrize("kind", ("sqlite", *SERVICES))


async def append_unreadable(broker: Broker, services: Get) -> None:
    """Put a record at the end of the history that is no event."""
    url = broker.config.broker
    scheme, _, name = url.partition(":")[0], "", url.partition("name=")[2]
    if scheme == "nats":
        await _publish(url, name, broker)
        return
    await broker.append(batch("broken"))
    newest = (await broker.bounds()).newest
    if scheme == "sqlite":
        connection = sqlite3.connect(path_of(url))
        with connection:
            connection.execute("UPDATE events SET topics = CAST(x'ff' AS TEXT) WHERE position = ?", (newest,))
        connection.close()
    elif scheme == "redis":
        async with Redis.from_url(url.partition("?")[0]) as client:
            key = f"{{{name}}}:log"
            entries: Any = await client.xrange(key)
            entries[-1][1][b"record"] = b"\x94\xc1"
            await client.delete(key)
            for id, fields in entries:
                await client.xadd(key, fields, id)
    else:
        services("postgres").execute(  # type: ignore[attr-defined]
            f'UPDATE "{name}_events" SET topics = ARRAY[NULL] WHERE position = {newest}', database=USER
        )


async def _publish(url: str, name: str, broker: Broker) -> None:
    epoch, _, newest, *_ = await broker.bounds()
    async with Client() as client:
        await client.connect(url.partition("?")[0])
        js: Any = client.jetstream()
        info = await js.stream_info(name)
        [subjects] = info.config.subjects
        part = Part(epoch, newest, 100, 1, 10, 0, 1, 0, pack([["no event", "of ours"]]))
        headers = {"Nats-Expected-Last-Sequence": str(info.state.last_seq)}  # as the hubs of all versions
        await js.publish(subjects.replace(">", "log"), pack(part), headers=headers)
        await js.publish(subjects.replace(">", "log"), b"what has no place in the order at all")


async def test_what_cannot_be_read_holds_up_nothing_behind_it(make: Open, services: Get) -> None:
    broker = await make()
    await broker.append(batch("one"))
    await append_unreadable(broker, services)
    await append_unreadable(broker, services)
    assert (await broker.bounds()).newest == 3
    assert positions(await broker.append(batch("four", "five"))) == [4, 5]
    for entries in (await read_all(broker), await take(broker, 0, 5)):
        assert positions(entries) == [1, 2, 3, 4, 5]
        assert entries[1:3] == [unreadable(2), unreadable(3)]
        assert data(entries) == ["one", "four", "five"]
    assert positions(await broker.read(1, max_entries=1)) == [2]
    await broker.trim()
    assert await broker.find(f"{(await broker.bounds()).epoch}-5") == 5


async def test_it_may_be_the_newest_record(make: Open, services: Get) -> None:
    broker, other = await make(), await make(history_events=2)
    await broker.append(batch("one"))
    await append_unreadable(broker, services)
    assert await take(broker, 1, 1) == [unreadable(2)]
    assert positions(await other.append(batch("three"))) == [3]
    assert positions(await other.append(batch("four", "five"))) == [4, 5]
    await other.trim()
    assert data(await read_all(broker))[-2:] == ["four", "five"]


async def test_a_hub_tells_of_a_gap_in_its_place_and_says_so_once(
    make: Open, url: str, services: Get, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await make()
    await broker.append(batch("one"))
    await append_unreadable(broker, services)
    await broker.append(batch("three"))
    heard: list[int | str] = []

    def deliver(entries: Sequence[Entry]) -> None:
        heard.extend(positions(entries))

    async def room() -> None: ...

    log = EventLog(connect(HubConfig(broker=url)), deliver, lambda missed: heard.append("lost"), room, time.monotonic)
    with caplog.at_level(logging.ERROR):
        await log.open()
        await broker.append(batch("four"))
        async with asyncio.timeout(DEADLINE):
            await log.reached(4)
        missed = log.lost(NEWS, 0), log.lost(NEWS, 1), log.lost(NEWS, 2)
        await log.close()
    assert heard == [1, "lost", 3, 4]
    assert missed == (2, 2, 0)
    [told] = [record.getMessage() for record in caplog.records]
    assert told.endswith("has records that cannot be read, and are skipped, at the positions 2 to 2")
