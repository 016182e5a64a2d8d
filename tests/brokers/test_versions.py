"""What a newer ssepool has written: a node says so, and goes on with what it understands."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from redis.asyncio import Redis

from histories import DEADLINE, DROPPING, Open, batch, data, read_all
from service_fixtures import Get
from services.postgres import USER
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.brokers.nats.batch import STREAM_VERSION, decode
from ssepool.brokers.record import VERSION, Record, pack, unpack, unreadable
from ssepool.brokers.sqlite.broker import path_of
from ssepool.config import HubConfig
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams.log import EventLog


def of_version(version: int, *text: str) -> list[Record]:
    """Records that a newer version would write."""
    return [msgspec.structs.replace(record, version=version) for record in batch(*text)]


def test_a_record_of_a_newer_version_is_not_read_and_one_with_more_fields_is() -> None:
    [record] = batch("a")
    assert unpack(pack(record)) == record
    fields = msgspec.msgpack.decode(pack(record))
    assert unpack(msgspec.msgpack.encode(fields[:4])) == record  # as the version before wrote it
    assert unpack(msgspec.msgpack.encode([*fields, "another field"])) == record
    with pytest.raises(ValueError, match=f"a record of the version {VERSION + 1}"):
        unpack(pack(*of_version(VERSION + 1, "a")))


async def _reached(log: EventLog, position: int) -> None:
    async with asyncio.timeout(DEADLINE):
        await log.reached(position)


@pytest.mark.parametrize("kind", ["redis", "nats"])  # the tables of the others have a version, and no record has
@pytest.mark.parametrize("another_form", [False, True])
async def test_records_of_a_newer_version_are_passed_over_and_counted(
    kind: str,
    another_form: bool,
    make: Open,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = await make()
    heard: list[Any] = []

    def deliver(entries: Sequence[Entry]) -> None:
        heard.extend(data(entries))

    async def room() -> None: ...

    log = EventLog(connect(HubConfig(broker=url)), deliver, lambda missed: heard.append("lost"), room, time.monotonic)
    await log.open()

    def newer(value: Any) -> bytes:
        """As `pack`, of records that have another form too."""
        records = value if isinstance(value, list) else [value]
        many = [[["frame"], {}, 0, record.id, None, 7, VERSION + 1, "more"] for record in records]
        return msgspec.msgpack.encode(many if isinstance(value, list) else many[0])

    with caplog.at_level(logging.ERROR):
        for turn in range(3):
            # Each is waited for: the tail of Redis takes two entries at a time, so that one of the two that are told of
            # together might come with what is before them.
            await broker.append(batch(f"a{turn}"))
            await _reached(log, 4 * turn + 1)
            with monkeypatch.context() as patch:
                if another_form and kind == "redis":
                    patch.setattr("ssepool.brokers.redis.broker.pack", newer)
                elif another_form:
                    patch.setattr(
                        "ssepool.brokers.nats.batch.pack",
                        lambda value: (
                            newer(value)
                            if isinstance(value, list) and value[:1] and isinstance(value[0], Record)
                            else pack(value)
                        ),
                    )
                await broker.append(of_version(VERSION + 1, "x", "y"))
                await _reached(log, 4 * turn + 3)
            await broker.append([*of_version(VERSION, f"b{turn}")])
            await _reached(log, 4 * turn + 4)
    assert [one for one in heard if one != "lost"] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert heard.count("lost") == 3
    assert (log.unread.records, log.failing, log.late) == (6, None, 0)
    assert (await read_all(broker))[1:3] == [unreadable(2, is_newer=True), unreadable(3, is_newer=True)]
    await log.close()
    [said] = [one for one in caplog.messages if "newer" in one]
    assert "has records of a newer ssepool, which are skipped here, 2 so far" in said


async def raise_version(url: str, services: Get, broker: Broker) -> None:
    """Do to the history what the first node of a newer version does."""
    kind, name = url.partition(":")[0], url.partition("name=")[2]
    if kind == "sqlite":
        with closing(sqlite3.connect(path_of(url))) as connection:
            connection.execute("PRAGMA user_version = 99")
    elif kind == "redis":
        async with Redis.from_url(url.partition("?")[0]) as client:
            await client.hset(f"{{{name}}}:state", "version", "99")  # type: ignore[misc]
    elif kind == "postgresql":
        services("postgres").execute(f'UPDATE "{name}_log" SET version = 99', database=USER)  # type: ignore[attr-defined]
    else:
        async with Client() as client:
            await client.connect(url.partition("?")[0])
            js: Any = client.jetstream()
            info = await js.stream_info(name)
            [subjects] = info.config.subjects
            place = (await js.get_last_msg(name, subjects.replace(">", "epoch"))).seq
            part = decode((await js.get_msg(name, place)).data)
            newest = (await broker.bounds()).newest
            newer = msgspec.structs.replace(
                part, epoch="0badcafe", after=newest, data=b"\xc1", version=STREAM_VERSION + 1
            )
            headers = {"Nats-Expected-Last-Sequence": str(info.state.last_seq)}
            await js.publish(subjects.replace(">", "epoch"), pack(newer), headers=headers)


@pytest.mark.parametrize("kind", DROPPING)
async def test_a_history_of_a_newer_version_is_refused_with_a_word_also_while_nodes_run(
    make: Open, url: str, services: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "CHECK_SECONDS", 0.05)
    broker = await make()
    await broker.append(batch("a"))

    async def room() -> None: ...

    log = EventLog(connect(HubConfig(broker=url)), lambda entries: None, lambda missed: None, room, time.monotonic)
    await log.open()
    await raise_version(url, services, broker)
    async with asyncio.timeout(DEADLINE):
        while "newer ssepool" not in str(log.failing):
            await asyncio.sleep(0.02)
    await log.close()
    if not url.startswith("postgres"):  # there a newer version also takes the place of the function that is called
        with pytest.raises(BrokerError, match="newer ssepool"):
            await broker.append(batch("b"))
    with pytest.raises(ConfigError, match=r"newer ssepool|later ssepool"):
        await make()
