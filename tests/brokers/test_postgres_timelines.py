"""PostgreSQL that comes back with less than it had: no id names two events, and each id of before is placed exactly."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from histories import Open, batch, data, read_all, take, until
from live import Stream, serve, wait_for
from services.postgres import PASSWORD, USER, Postgres
from ssepool.brokers.base import Bounds, Broker
from ssepool.core.cut import Cut
from ssepool.core.timelines import MAX_TIMELINES, Timeline, Timelines
from ssepool.errors import BrokerError
from tools import require

_names = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that the tests of this file may harm, as long as they leave it running."""
    for tool in Postgres.tools:
        require(tool)
    service = Postgres(tmp_path_factory.mktemp("postgres"))
    service.start()
    yield service
    service.stop()


@pytest.fixture
def name() -> str:
    """Of a history that nobody has used yet."""
    return f"lines{next(_names)}"


@pytest.fixture
def url(server: Postgres, name: str) -> str:
    return server.url(name)


def place(bounds: Bounds, id: str) -> tuple[int, bool] | None:
    """Where who has all up to this id goes on, and whether nothing is missing before."""
    found = Timelines(bounds.epoch, bounds.timelines).place(id, bounds.newest)
    return None if found is None else (found.position, found.complete)


async def ids(broker: Broker) -> list[str | None]:
    """Of all that is there, by the name that it has now."""
    await broker.bounds()
    return [entry.id for entry in await read_all(broker)]


# Who begins one.


async def test_a_hub_whose_connections_are_cut_has_it_open_still(server: Postgres, make: Open) -> None:
    broker = await make()
    await broker.append(batch("a"))
    before = await broker.bounds()
    for (pid,) in server.execute(f"SELECT pid FROM pg_stat_activity WHERE usename = '{USER}'"):
        server.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
    assert await broker.bounds() == before  # on another connection
    assert await (await make()).bounds() == before


async def test_a_server_that_is_started_anew_begins_one_in_the_first_append(server: Postgres, make: Open) -> None:
    """Nobody can tell whether it came back with all that it had."""
    one, two = await make(broker_timeout=5.0), await make(broker_timeout=5.0)
    await one.append(batch("a"))
    before = await two.bounds()
    server.stop()
    server.start()
    assert await one.bounds() == before
    stored = [*await one.append(batch("b")), *await two.append(batch("c"))]
    bounds = await one.bounds()
    assert bounds.timelines == ((before.epoch, 1),)
    assert [stored_one.id for stored_one in stored] == [f"{bounds.epoch}-2", f"{bounds.epoch}-3"]
    assert await two.find(f"{before.epoch}-1") == 1


async def test_those_that_are_forgotten_leave_no_rows(make: Open, server: Postgres, name: str) -> None:
    broker = await make()
    for _ in range(MAX_TIMELINES + 5):
        await broker.renew((await broker.bounds()).epoch)
    assert server.execute(f"SELECT count(*) FROM {name}_timelines", database=USER) == [(MAX_TIMELINES,)]


# Data that was there before.


async def test_a_backup_that_is_restored_while_all_are_down(server: Postgres, make: Open) -> None:
    broker = await make()
    kept = await broker.append(batch("a", "b"))
    await broker.close()
    server.stop()
    copy = server.save()
    server.start()
    broker = await make()
    lost = await broker.append(batch("c", "d"))
    gone = (await broker.bounds()).epoch
    await broker.close()
    server.stop()
    server.restore(copy)
    server.start()
    broker = await make()
    new = await broker.append(batch("e"))
    bounds = await broker.bounds()
    assert await ids(broker) == [one.id for one in (*kept, *new)]
    assert len({one.id for one in (*kept, *lost, *new)}) == 5
    assert place(bounds, kept[1].id) == (2, True)
    assert place(bounds, lost[0].id) is None  # of a timeline that the backup does not know
    assert await broker.find(lost[0].id) is None
    assert bounds.epoch != gone


@pytest.mark.parametrize("first", ["one that has seen all", "one that has only published", "one that opens"])
async def test_a_backup_that_is_restored_while_hubs_are_up(server: Postgres, make: Open, first: str) -> None:
    publisher, hub = await make(broker_timeout=5.0), await make(broker_timeout=5.0)
    kept = await publisher.append(batch("a", "b"))
    server.stop()
    copy = server.save()
    server.start()
    await hub.bounds()
    lost = await hub.append(batch("c", "d"))
    before = await hub.bounds()
    server.stop()
    server.restore(copy)
    server.start()
    brokers = {"one that has seen all": hub, "one that has only published": publisher}
    new = await (brokers.get(first) or await make()).append(batch("e"))
    for broker in (hub, publisher):
        bounds = await broker.bounds()
        new += await broker.append(batch("f"))
        assert place(bounds, kept[1].id) == (2, True)
    assert len({one.id for one in (*kept, *lost, *new)}) == 7
    assert [one.position for one in new] == [3, 4, 5]
    assert await ids(hub) == [one.id for one in (*kept, *new)]
    assert await hub.bounds() == await publisher.bounds()
    if before.epoch in [line.epoch for line in bounds.timelines]:
        assert place(bounds, lost[1].id) == (2, False)
    assert {line.end for line in bounds.timelines} == {2}


def test_subscribers_of_a_hub_are_told_of_what_a_backup_lacks(server: Postgres, url: str) -> None:
    require("pg_basebackup")

    def publish(text: str) -> str:
        def published() -> list[str] | None:
            ids: list[str] | None = hub.request("POST", "/events", {"topic": "news", "data": text})[1].get("ids")
            return ids

        return wait_for(published)[0]  # type: ignore[index]

    with serve(broker=url, broker_timeout=2.0) as hub, Stream(hub, "news").opened() as stream:
        ids = [publish(text) for text in "ab"]
        copy = server.backup()
        ids += [publish(text) for text in "cd"]
        stream.wait_data(*"abcd")
        opened = hub.descriptors()
        server.stop()
        server.restore(copy)
        server.start()
        ids += [publish(text) for text in "ef"]
        stream.wait_data(*"abcdef")
        assert len(set(ids)) == 6
        assert len(stream.of_type("ssepool.gap")) == 1
        with Stream(hub, "news", last_event_id=ids[1]) as late:
            late.wait_data(*"ef")
            assert not late.of_type("ssepool.gap")
        with Stream(hub, "news", last_event_id=ids[3]) as late:
            late.wait_data(*"ef")
            assert late.of_type("ssepool.gap")
        wait_for(lambda: hub.descriptors() == opened)


@pytest.mark.parametrize("first", ["hub", "publisher"])
async def test_a_dump_that_is_restored_while_hubs_are_up(server: Postgres, make: Open, name: str, first: str) -> None:
    pg_dump, psql = require("pg_dump"), require("psql")
    publisher, hub = await make(), await make()
    kept = await publisher.append(batch("a", "b"))
    await publisher.drop([1], {"news": Cut(1)}, 0)
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    target = ("-h", "127.0.0.1", "-p", str(server.port), "-U", USER, "-d", USER)
    dump = subprocess.run(
        [pg_dump, *target, "--clean", "-t", f"{name}_*"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    await hub.bounds()
    lost = await hub.append(batch("c", "d"))
    before = await hub.bounds()
    subprocess.run(
        [psql, *target, "-q", "-v", "ON_ERROR_STOP=1"],
        input=dump,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    new = await {"hub": hub, "publisher": publisher}[first].append(batch("e"))
    bounds = await hub.bounds()
    assert bounds.timelines == ((before.epoch, 2),)
    assert place(bounds, kept[1].id) == (2, True)
    assert place(bounds, lost[0].id) == (2, False)
    assert [one.position for one in new] == [3]
    assert await ids(hub) == [kept[1].id, new[0].id]
    assert not {one.id for one in lost} & {one.id for one in new}
    assert await hub.cuts() == [("news", Cut(1))]


async def test_an_append_to_less_than_was_seen_begins_one(server: Postgres, make: Open, name: str) -> None:
    """Of rows alone that went back, as when a server that commits lazily loses its newest."""
    broker, other = await make(), await make()
    await broker.append(batch("a", "b", "c"))
    assert len(await take(other, 0, 3)) == 3  # it has only read them
    before = await broker.bounds()
    for number, (one, newest) in enumerate(((broker, 2), (other, 1))):
        server.execute(f"DELETE FROM {name}_events WHERE position > {newest}", database=USER)
        server.execute(f"UPDATE {name}_log SET epoch = '{before.epoch}', newest = {newest}", database=USER)
        with pytest.raises(BrokerError, match="has less than it had"):
            await one.drop([2], {"news": Cut(3)}, 3)
        (new,) = await one.append(batch("d"))
        assert new.position == newest + 1
        assert (await one.bounds()).timelines[number] == Timeline(before.epoch, newest)
        assert await one.cuts() == []


# Another server.


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_failover_to_a_replica_that_lacks_the_newest(server: Postgres, make: Open, tmp_path: Path) -> None:
    require("pg_basebackup")
    standby = server.standby(tmp_path)
    name = f"lines{next(_names)}"
    url = server.url(name).replace(f":{server.port}/", f":{server.port},127.0.0.1:{standby.port}/")
    standby.start()
    try:
        hub, lagging = await make(url, broker_timeout=5.0), await make(url, broker_timeout=5.0)
        kept = [*await lagging.append(batch("a")), *await hub.append(batch("b"))]
        opened = descriptors()
        while True:
            ((lsn,),) = server.execute("SELECT pg_current_wal_flush_lsn()::text")
            if standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn) == [(True,)]:
                break
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")  # the link is cut
        standby.execute("SELECT pg_reload_conf()")
        while standby.execute("SELECT count(*) FROM pg_stat_wal_receiver") != [(0,)]:
            await asyncio.sleep(0.02)
        lost = await hub.append(batch("c", "d"))
        before = await hub.bounds()
        server.kill()
        with pytest.raises(BrokerError):
            await hub.append(batch("nowhere"))
        standby.execute("SELECT pg_promote()")
        # The first to publish is one that has seen nothing of what is lost.
        new = [*await lagging.append(batch("e")), *await hub.append(batch("f"))]
        bounds = await hub.bounds()
        assert bounds.timelines == ((before.epoch, 2),)
        assert [one.position for one in new] == [3, 4]
        assert await ids(hub) == [one.id for one in (*kept, *new)]
        assert data(await take(hub, 2, 2)) == ["e", "f"]
        assert not {one.id for one in lost} & {one.id for one in new}
        assert place(bounds, kept[1].id) == (2, True)
        assert place(bounds, lost[1].id) == (2, False)
        assert (await lagging.bounds()) == bounds
        assert descriptors() == opened
    finally:
        standby.kill()
        if server.process is None or server.process.poll() is not None:
            server.start()


async def test_a_server_that_waits_for_its_replica_loses_nothing(server: Postgres, make: Open, url: str) -> None:
    """`synchronous_standby_names` with a standby that is not there: an append that nobody has confirmed says so."""
    broker = await make(broker_timeout=0.5)
    await broker.append(batch("a"))
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'other'")
    server.execute("SELECT pg_reload_conf()")
    try:
        await until(lambda: _is_left_open(broker))  # the server takes its new settings over some time later
    finally:
        server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        server.execute("SELECT pg_reload_conf()")
    newest = (await broker.bounds()).newest
    [stored] = await broker.append(batch("c"))
    assert stored.position > newest


async def _is_left_open(broker: Broker) -> bool:
    try:
        await broker.append(batch("b"))
    except BrokerError as error:
        assert str(error).endswith("the events may be published or not"), error
        return True
    return False
