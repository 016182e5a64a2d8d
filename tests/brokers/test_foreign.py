"""Records that nobody of ours has written, in places where they get in the way: those behind them reach everybody."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from redis.asyncio import Redis

from histories import DEADLINE, Open, batch, positions, read_all
from service_fixtures import Get
from services.kinds import SERVICES
from services.postgres import USER
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.brokers.nats.batch import Part, decode
from ssepool.brokers.record import pack
from ssepool.brokers.sqlite.broker import path_of
from ssepool.config import HubConfig
from ssepool.core.event import Entry
from ssepool.runtime.streams.log import EventLog


async def write(broker: Broker, services: Get, ahead: int) -> None:
    """Put a record so many places behind the end."""
    url, (epoch, _, newest, *_) = broker.config.broker, await broker.bounds()
    scheme, _, name = url.partition(":")[0], "", url.partition("name=")[2]
    place = newest + ahead
    if scheme == "sqlite":
        connection = sqlite3.connect(path_of(url))
        with connection:
            connection.execute("INSERT INTO events VALUES (?, NULL, 9e9, 7, 0, 'x', x'ff', NULL, NULL, 0)", (place,))
        connection.close()
    elif scheme == "redis":
        async with Redis.from_url(url.partition("?")[0]) as client:
            id = f"{place}-{int(epoch, 16)}" if ahead == 1 else "*"
            await client.xadd(f"{{{name}}}:log", {"no": "record"}, id=id)
    elif scheme == "nats":
        async with Client() as client:
            await client.connect(url.partition("?")[0])
            js: Any = client.jetstream()
            [subjects] = (await js.stream_info(name)).config.subjects
            part = Part(epoch, place - 1, 100, 1, 10, 0, 1, 0, pack(batch("of nobody")))
            await js.publish(subjects.replace(">", "log"), pack(part))
    else:
        services("postgres").execute(  # type: ignore[attr-defined]
            f"INSERT INTO \"{name}_events\" VALUES ({place}, NULL, ARRAY[NULL], false, '', 0, now(), NULL)",
            database=USER,
        )


async def followed(url: str, heard: list[int | str]) -> EventLog:
    """A log that follows the broker, and what it has heard."""

    def deliver(entries: Sequence[Entry]) -> None:
        heard.extend(entry.frame.partition(b"data: ")[2].decode().strip() for entry in entries)

    async def room() -> None: ...

    log = EventLog(connect(HubConfig(broker=url)), deliver, lambda missed: heard.append("lost"), room, time.monotonic)
    await log.open()
    return log


async def until(condition: Callable[[], object], heard: list[int | str]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ahead", [1, 2, 100_000])
@pytest.mark.parametrize("kind", ("sqlite", *SERVICES))
async def test_what_is_published_behind_a_foreign_record_reaches_everybody(
    kind: str, make: Open, url: str, services: Get, ahead: int
) -> None:
    heard: list[int | str] = []
    broker, other, log = await make(), await make(), await followed(url, heard)
    try:
        await broker.append(batch("a"))
        epoch = (await broker.bounds()).epoch
        await write(broker, services, ahead)
        for one, texts in ((broker, "bcd"), (other, "ef"), (broker, "g")):
            await one.append(batch(*texts))
        await until(lambda: heard[-1:] == ["g"], heard)
        assert [what for what in heard if what != "lost"] == list("abcdefg")
        assert heard.count("lost") <= 1
        await until(lambda: log.failing is None and not log.late, heard)
        bounds = await other.bounds()
        assert (bounds.epoch, bounds.newest) == (epoch, log.position)
        kept = await read_all(other)
        assert positions(kept)[-1] == bounds.newest
        assert len([entry for entry in kept if entry.chunk]) == 7
    finally:
        await log.close()


def copies(first: bytes) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Messages that somebody makes of the first of two, by what is wrong with them: content and headers."""
    part, change = decode(first), msgspec.structs.replace
    own = {"Nats-Expected-Last-Sequence": "3"}  # behind the name of the history, and two events
    return {
        "a copy": (first, {}),
        "another history": (pack(change(part, epoch="00000000", after=2)), {}),
        "of no events": (pack(change(part, events=0, after=2)), own),
        "of fewer than it says": (pack(change(part, events=3, after=2)), own),
        "no part at all": (pack(change(part, number=-1, of=0)), own),
        "empty": (b"", {}),
        "a status": (b"", {"Status": "500", "Description": "Trouble"}),
    }


@pytest.mark.parametrize("kind", ["nats"])
@pytest.mark.parametrize("wrong", copies(pack(Part("", 0, 0, 1, 1, 0, 1, 0, b""))))
async def test_a_foreign_message_stops_nobody_and_gives_no_position_a_second_time(
    make: Open, url: str, wrong: str
) -> None:
    heard: list[int | str] = []
    broker, log = await make(), await followed(url, heard)
    try:
        stored = await broker.append(batch("a")) + await broker.append(batch("b"))
        name = url.partition("name=")[2]
        async with Client() as client:
            await client.connect(url.partition("?")[0])
            js: Any = client.jetstream()
            [subjects] = (await js.stream_info(name)).config.subjects
            data, headers = copies((await js.get_msg(name, 2)).data)[wrong]
            await js.publish(subjects.replace(">", "log"), data, headers=headers)
        for one in (broker, await make()):
            stored += await one.append(batch("b", "c"))
        assert len({one.id for one in stored}) == 6
        assert {one.id.partition("-")[0] for one in stored} == {(await broker.bounds()).epoch}
        await until(lambda: heard[-4:] == ["b", "c", "b", "c"], heard)
        await until(lambda: log.failing is None and not log.late, heard)
        assert heard.count("lost") == (wrong == "of fewer than it says")
    finally:
        await log.close()
