"""PostgreSQL: what `test_contract` does not ask of every broker. Real servers that are killed, suspended, emptied."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import psycopg
import pytest

from histories import Open, batch, data, opening, page_of, read_all
from live import Stream, serve, wait_for
from services.postgres import PASSWORD, USER, Postgres
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.brokers.group import GroupCommit
from ssepool.brokers.postgres import broker as module
from ssepool.brokers.record import records
from ssepool.config import HubConfig, MiB
from ssepool.core.cut import Cut
from ssepool.core.event import Entry, Event
from ssepool.errors import BrokerError, ConfigError, IdConflict
from tools import require

DEADLINE = 30.0
"""Seconds until a test gives up waiting; a killed server takes longer to recover than others."""

_names = itertools.count(1)


def events(*data: str) -> list[Event]:
    return [Event(text, ("news",)) for text in data]


async def take(broker: Broker, after: int, count: int) -> list[Entry]:
    """The first so many entries that a tail gives; one that breaks is taken up again, as hubs do."""
    entries: list[Entry] = []
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(BrokerError):
                async with aclosing(broker.tail(entries[-1].position if entries else after)) as tail:  # type: ignore[type-var]
                    async for page in tail:
                        entries += page
                        if len(entries) >= count:
                            return entries
            await asyncio.sleep(0.05)


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
    return f"special{next(_names)}"


@pytest.fixture
def url(server: Postgres, name: str) -> str:
    return server.url(name)


def backends(server: Postgres, condition: str = "true") -> list[int]:
    """The server's processes for hubs' connections, by what `pg_stat_activity` says of them."""
    rows = server.execute(f"SELECT pid FROM pg_stat_activity WHERE usename = '{USER}' AND ({condition})")
    return [pid for (pid,) in rows]


async def until_backend(server: Postgres, condition: str) -> int:
    async with asyncio.timeout(DEADLINE):
        while not (found := backends(server, condition)):
            await asyncio.sleep(0.02)
    return found[0]


# Faults.


async def test_a_killed_server_loses_nothing_that_was_acknowledged(server: Postgres, make: Open) -> None:
    broker = await make(broker_timeout=2.0)
    group = GroupCommit(broker)
    acknowledged: dict[str, str] = {}
    failed = asyncio.Event()

    async def publish(publisher: int) -> None:
        for turn in itertools.count():
            text = f"{publisher}.{turn}"
            try:
                ((id, _),) = await group.append(events(text))
                acknowledged[id] = text
            except BrokerError:
                failed.set()
                return

    publishers = [asyncio.create_task(publish(number)) for number in range(20)]
    tail = asyncio.create_task(take(broker, 0, 500))
    async with asyncio.timeout(DEADLINE):
        while len(acknowledged) < 500:
            await asyncio.sleep(0.01)
        server.kill()
        await failed.wait()
        await asyncio.gather(*publishers)
    await asyncio.to_thread(server.start)
    ((last, _),) = await group.append(events("afterwards"))
    await broker.bounds()  # which names the timeline that has begun with it
    kept = await read_all(broker)
    assert [entry.position for entry in kept] == list(range(1, len(kept) + 1))
    texts = {entry.id: text for entry, text in zip(kept, data(kept), strict=True)}
    assert acknowledged.items() <= texts.items()
    assert len(set(texts.values())) == len(kept)
    assert kept[-1].id == last
    assert await tail == kept[: len(await tail)]
    assert await take(broker, 0, len(kept)) == kept
    await group.close()


def test_subscribers_of_a_hub_outlive_a_killed_server(server: Postgres, url: str) -> None:
    with serve(broker=url, broker_timeout=2.0) as hub, Stream(hub, "news") as stream:
        stream.opened()
        hub.publish("news", "before")
        server.kill()
        status, _ = hub.request("POST", "/events", {"topic": "news", "data": "lost", "id": "lost"})
        assert status == 503
        server.start()

        def publish() -> bool:
            return hub.request("POST", "/events", {"topic": "news", "data": "after"})[0] == 201

        wait_for(publish)
        hub.publish("news", "last")
        stream.wait_data("before", "after", "last")
        assert not stream.of_type("ssepool.gap")


async def test_a_server_that_hangs_fails_publishes_in_time(server: Postgres, make: Open) -> None:
    broker = await make(broker_timeout=1.0)
    group = GroupCommit(broker)
    tail = asyncio.create_task(take(broker, 0, 2))
    await group.append(events("before"))
    server.suspend()
    try:
        async with asyncio.timeout(DEADLINE):  # each takes a second, however often it is tried
            for _ in range(3):
                with pytest.raises(BrokerError, match=r"did not answer|no answer"):
                    await group.append(events("hangs"))
            with pytest.raises(BrokerError, match="no answer in 1 s"):
                await broker.bounds()
            with pytest.raises(BrokerError, match="no answer in 1 s"):
                await broker.read(0, max_entries=1)
    finally:
        server.resume()
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(BrokerError):
                await group.append(events("after"))
                break
    kept = await read_all(broker)
    texts = data(kept)
    assert texts[0] == "before"
    assert texts[-1] == "after"
    assert texts.count("after") == 1
    assert texts.count("hangs") <= 1  # the one that was on its way, which nobody promised anything about
    assert (await tail) == kept[: len(await tail)]
    await group.close()


def test_subscribers_of_a_hub_outlive_a_server_that_hangs(server: Postgres, url: str) -> None:
    with serve(broker=url, broker_timeout=1.0) as hub, Stream(hub, "news") as stream:
        stream.opened()
        hub.publish("news", "before")
        stream.wait_data("before")
        server.suspend()
        try:
            for number in range(3):
                status, _ = hub.request("POST", "/events", {"topic": "news", "data": "x", "id": f"hung{number}"})
                assert status == 503
        finally:
            server.resume()
        wait_for(lambda: hub.request("POST", "/events", {"topic": "news", "data": "x", "id": "again"})[0] == 201)
        for number in range(3):  # with ids of their own they can be published again
            hub.publish("news", "x", id=f"hung{number}")
        hub.publish("news", "last")
        stream.until(lambda s: "last" in s.data)
        ids = [event.id for event in stream.events if event.data == "x"]
        assert sorted(ids) == ["again", "hung0", "hung1", "hung2"]
        assert not stream.of_type("ssepool.gap")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE {name}_log, {name}_events, {name}_messages",
        "DROP OWNED BY {user}",
        "TRUNCATE {name}_log, {name}_events, {name}_messages",
        "DELETE FROM {name}_log",
    ],
)
def test_a_history_that_is_lost_begins_anew_behind_a_gap(server: Postgres, url: str, name: str, statement: str) -> None:
    with serve(broker=url) as hub, Stream(hub, "news") as stream:
        stream.opened()
        ids = [hub.publish("news", f"before {number}") for number in range(3)]
        stream.wait_data("before 0", "before 1", "before 2")
        server.execute(statement.format(name=name, user=USER), database=USER)
        stream.until(lambda s: s.of_type("ssepool.gap"))
        ids += [hub.publish("news", f"after {number}") for number in range(6)]
        stream.until(lambda s: "after 5" in s.data)
        assert stream.data == [f"before {n}" for n in range(3)] + [f"after {n}" for n in range(6)]
        assert len(stream.of_type("ssepool.gap")) == 1
        epochs = [id.partition("-")[0] for id in ids]
        assert len(set(epochs[:3])) == len(set(epochs[3:])) == 1
        assert epochs[0] != epochs[3]
        assert ids[3].endswith("-1")


def test_what_is_published_at_once_after_a_loss_comes_once(server: Postgres, url: str) -> None:
    with serve(broker=url) as hub, Stream(hub, "news") as stream:
        stream.opened()
        hub.publish("news", "before")
        stream.wait_data("before")
        server.lose_data()
        for number in range(20):
            hub.publish("news", f"after {number}")
        stream.until(lambda s: "after 19" in s.data)
        assert stream.data == ["before", *(f"after {number}" for number in range(20))]
        assert len(stream.of_type("ssepool.gap")) == 1


async def test_events_alone_that_are_lost_leave_the_history_going_on(server: Postgres, make: Open, name: str) -> None:
    broker = await make()
    stored = await broker.append(batch("a", "b"))
    for statement in (f"TRUNCATE {name}_events", f"DROP TABLE {name}_events"):
        server.execute(statement, database=USER)
        assert await read_all(broker) == []
        (new,) = await broker.append(batch("c"))
        assert new.position == stored[-1].position + 1
        assert [entry.id for entry in await read_all(broker)] == [new.id]
        stored.append(new)
    await broker.trim()


def drop_functions(server: Postgres, name: str) -> None:
    found = server.execute(
        f"SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE '{name}!_%%' ESCAPE '!'", database=USER
    )
    assert len(found) > 4
    for (function,) in found:
        server.execute(f"DROP FUNCTION {function}", database=USER)


async def test_functions_and_messages_that_are_lost_are_made_anew(server: Postgres, make: Open, name: str) -> None:
    broker = await make()
    await broker.append(batch("a"))
    drop_functions(server, name)
    server.execute(f"DROP TABLE {name}_messages", database=USER)
    assert [one.position for one in await broker.append(batch("b"))] == [2]
    await broker.send(b"hello")
    await broker.trim()
    drop_functions(server, name)
    await broker.drop([1], {"news": Cut(1)}, 0)
    assert data(await read_all(broker)) == ["b"]
    assert await broker.cuts() == [("news", Cut(1))]


async def test_a_tail_whose_connection_is_ended_says_so(server: Postgres, make: Open) -> None:
    broker = await make()
    async with aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
        page = asyncio.create_task(page_of(tail))
        pid = await until_backend(server, "query LIKE '%these%' AND state = 'idle'")
        server.execute("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(BrokerError, match=r"terminating connection|closed the connection"):
            await page


def test_subscribers_of_a_hub_outlive_its_connections(server: Postgres, url: str) -> None:
    with serve(broker=url) as hub, Stream(hub, "news") as stream:
        stream.opened()
        expected = []
        for turn in range(5):
            for number in range(3):
                hub.publish("news", f"{turn}.{number}")  # not even the first after a cut fails
                expected.append(f"{turn}.{number}")
            ended = set(backends(server))
            for pid in ended:
                server.execute("SELECT pg_terminate_backend(%s)", pid)
            wait_for(lambda ended=ended: ended.isdisjoint(server.processes()))
        stream.wait_data(*expected)
        assert not stream.of_type("ssepool.gap")


async def test_an_append_that_is_given_up_leaves_nothing_locked(server: Postgres, make: Open, name: str) -> None:
    broker = await make(broker_timeout=2.0)
    await broker.append(batch("a"))
    with transaction(server) as other:
        other.execute(f"SELECT * FROM {name}_log FOR UPDATE")
        append = asyncio.create_task(broker.append(batch("b")))
        await until_backend(server, "wait_event_type = 'Lock'")
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append
        with pytest.raises(BrokerError, match=r"no answer in 2 s; the events may be published or not"):
            await broker.append(batch("c"))
    async with asyncio.timeout(DEADLINE):
        while backends(server, "state = 'active'"):  # the server gives them up as well
            await asyncio.sleep(0.02)
    await broker.append(batch("d"))
    texts = data(await read_all(broker))
    assert texts[0] == "a"
    assert texts[-1] == "d"


async def test_an_append_that_is_cut_off_says_that_it_may_be_stored(server: Postgres, make: Open, name: str) -> None:
    broker = await make()
    with transaction(server) as other:
        other.execute(f"SELECT * FROM {name}_log FOR UPDATE")
        append = asyncio.create_task(broker.append(batch("a")))
        pid = await until_backend(server, "wait_event_type = 'Lock'")
        server.execute("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(BrokerError, match=r"terminating connection.*; the events may be published or not$"):
            await append
    assert [one.position for one in await broker.append(batch("b"))] == [1]


async def test_an_append_that_the_server_refuses_says_that_nothing_was_stored(
    server: Postgres, make: Open, name: str
) -> None:
    broker = await make()
    await broker.append(batch("a"))
    server.execute(f"REVOKE INSERT ON {name}_events FROM {USER}", database=USER)
    with pytest.raises(BrokerError, match=rf"permission denied for table {name}_events$"):
        await broker.append(batch("b", "c"))
    server.execute(f"GRANT INSERT ON {name}_events TO {USER}", database=USER)
    assert [one.position for one in await broker.append(batch("d"))] == [2]


async def test_a_server_with_no_connection_left_is_no_stack_trace(server: Postgres, url: str) -> None:
    server.execute(f"ALTER ROLE {USER} CONNECTION LIMIT 0")
    try:
        with pytest.raises(BrokerError, match="too many connections"):
            await connect(HubConfig(broker=url)).open()
    finally:
        server.execute(f"ALTER ROLE {USER} CONNECTION LIMIT -1")


async def test_a_standby_takes_no_hub(server: Postgres, url: str) -> None:
    server.execute(f"ALTER DATABASE {USER} SET default_transaction_read_only = on")
    try:
        with pytest.raises(BrokerError, match="read-only"):
            await connect(HubConfig(broker=url)).open()
    finally:
        server.execute(f"ALTER DATABASE {USER} RESET default_transaction_read_only")


async def test_a_server_that_is_not_there_is_no_stack_trace() -> None:
    with pytest.raises(BrokerError, match="Connection refused"):
        await connect(HubConfig(broker="postgresql://u:p@127.0.0.1:1/d")).open()


# Order.


@contextlib.contextmanager
def transaction(server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """Of somebody else, committed at the end."""
    connection: psycopg.Connection[Any] = psycopg.connect(
        host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, dbname=USER
    )
    with contextlib.closing(connection), connection.transaction():
        yield connection


async def test_positions_follow_commits_also_behind_a_slow_transaction(server: Postgres, make: Open, name: str) -> None:
    one, two = await make(), await make()
    await one.append(batch("first"))
    async with aclosing(two.tail(0)) as tail:  # type: ignore[type-var]
        assert data(await page_of(tail)) == ["first"]
        with transaction(server) as slow:
            slow.execute(
                f"SELECT * FROM {name}_append(ARRAY['s1 n', 's2 n'], ARRAY['s1', 's2'], ARRAY['news', 'news'], "
                "ARRAY[false, false], ARRAY['data: slow 1\n\n', 'data: slow 2\n\n']::bytea[], NULL, NULL, 'ignore', "
                "'{}', '00000000')"
            )
            waiting = [asyncio.create_task(broker.append(batch("quick"))) for broker in (one, two)]
            page = asyncio.create_task(page_of(tail))
            async with asyncio.timeout(DEADLINE):
                while len(backends(server, "wait_event_type = 'Lock'")) < 2:
                    await asyncio.sleep(0.02)
            assert not page.done()
            assert await one.read(1, max_entries=10) == []
        seen = list(await page)
        while len(seen) < 4:
            seen += await page_of(tail)
        assert data(seen) == ["slow 1", "slow 2", "quick", "quick"]
        assert [entry.position for entry in seen] == [2, 3, 4, 5]
        assert sorted(stored.position for (stored,) in [await task for task in waiting]) == [4, 5]


async def test_an_id_is_found_though_its_transaction_was_open_when_we_began(
    server: Postgres, make: Open, name: str
) -> None:
    broker = await make()
    [record] = batch("again", ids=["mine"])
    with transaction(server) as slow:
        slow.execute(
            f"SELECT * FROM {name}_append(ARRAY['{record.claim}'], ARRAY['mine'], ARRAY['news'], ARRAY[false], "
            "ARRAY['data: again\n\n']::bytea[], NULL, NULL, 'ignore', '{}', '00000000')"
        )
        append = asyncio.create_task(broker.append(records([Event("again", ("news",), id="mine")], MiB)))
        await until_backend(server, "wait_event_type = 'Lock'")
    assert await append == [("mine", 1)]
    assert len(await read_all(broker)) == 1


async def test_dropping_beside_an_append_keeps_what_it_stored(server: Postgres, make: Open, name: str) -> None:
    broker = await make()
    await broker.append(batch(*"abc"))
    with transaction(server) as slow:
        slow.execute(
            f"SELECT * FROM {name}_append(array_fill(null::text, ARRAY[5]), array_fill(null::text, ARRAY[5]), "
            "array_fill('news'::text, ARRAY[5]), array_fill(false, ARRAY[5]), "
            "array_fill('data: x'::bytea, ARRAY[5]), NULL, NULL, 'ignore', '{}', '00000000')"
        )
        drop = asyncio.create_task(broker.drop([1, 2, 3], {"news": Cut(3)}, 0))
        await until_backend(server, "wait_event_type = 'Lock'")
    await drop
    bounds = await broker.bounds()
    assert (bounds.oldest, bounds.newest) == (3, 8)
    assert bounds.bytes > 0  # of five
    assert [entry.position for entry in await read_all(broker)] == [4, 5, 6, 7, 8]
    await broker.drop([4, 5, 6, 7, 8], {"news": Cut(8)}, 0)
    assert (await broker.bounds())[1:4] == (8, 8, 0)


async def test_two_who_drop_at_once_do_not_hinder_each_other(server: Postgres, make: Open, name: str) -> None:
    one, two = await make(), await make()
    await one.append(batch(*"abc"))
    topics = ["a", "b", "c"]
    await one.drop([], {topic: Cut(1) for topic in topics}, 0)
    with transaction(server) as slow:
        slow.execute(f"SELECT * FROM {name}_cuts WHERE topic = 'b' FOR UPDATE".encode())
        drops = [  # each may hold what the other needs next
            asyncio.create_task(one.drop([1], {topic: Cut(3) for topic in topics}, 0)),
            asyncio.create_task(two.drop([2, 3], {topic: Cut(2, 2) for topic in reversed(topics)}, 0)),
        ]
        async with asyncio.timeout(DEADLINE):
            while len(backends(server, "wait_event_type = 'Lock'")) < 2:
                await asyncio.sleep(0.02)
    await asyncio.gather(*drops)
    assert (await one.bounds())[1:4] == (3, 3, 0)
    assert await one.cuts() == [(topic, Cut(3, 2)) for topic in topics]


async def test_a_drop_of_a_lost_history_drops_nothing(server: Postgres, make: Open) -> None:
    broker, other = await make(), await make()
    await broker.append(batch(*"abc"))
    server.lose_data()
    await other.append(batch(*"def"))
    with pytest.raises(BrokerError, match="nothing was dropped, for the history has another name by now"):
        await broker.drop([1, 2], {"news": Cut(2)}, 2)
    await broker.bounds()
    assert data(await read_all(broker)) == ["d", "e", "f"]
    assert (await broker.cuts(), (await broker.bounds()).floor) == ([], 0)


async def test_a_drop_of_all_leaves_nothing_but_cuts_above_the_floor(server: Postgres, make: Open, name: str) -> None:
    broker = await make()
    await broker.append(batch(*map(str, range(900)), "x" * 100_000))
    cuts = {f"topic {place}": Cut(place, place - 5) for place in range(1, 901)}
    await broker.drop(range(1, 902), cuts, 890)
    rows = {
        table: server.execute(f"SELECT count(*) FROM {name}_{table}", database=USER)[0][0]
        for table in ("events", "cuts", "timelines", "messages", "facts")
    }
    assert rows == {"events": 0, "cuts": 10, "timelines": 0, "messages": 0, "facts": 0}
    await broker.drop([], {"topic 895": Cut(895), "topic 1": Cut(1)}, 10)  # by one who knows less
    bounds = await broker.bounds()
    assert (bounds.bytes, bounds.floor) == (0, 890)
    assert sorted(cut for _, cut in await broker.cuts()) == [Cut(place, place - 5) for place in range(891, 901)]


async def test_order_holds_whatever_the_role_takes_for_an_isolation_level(server: Postgres, url: str) -> None:
    server.execute(f"ALTER ROLE {USER} SET default_transaction_isolation = 'serializable'")
    try:
        async with opening(url) as make:
            brokers = [await make() for _ in range(4)]
            stored = [
                one
                for _ in range(10)
                for page in await asyncio.gather(*(broker.append(batch("a", "b")) for broker in brokers))
                for one in page
            ]
        assert sorted(one.position for one in stored) == list(range(1, 81))
    finally:
        server.execute(f"ALTER ROLE {USER} RESET default_transaction_isolation")


async def test_many_nodes_begin_a_history_at_once(make: Open) -> None:
    brokers = await asyncio.gather(*(make() for _ in range(16)))
    bounds = {await broker.bounds() for broker in brokers}
    assert len(bounds) == 1
    await asyncio.gather(*(broker.append(batch("a")) for broker in brokers))
    assert (await brokers[0].bounds()).newest == 16


async def test_what_an_append_costs_does_not_grow_with_the_history(server: Postgres, make: Open, name: str) -> None:
    server.execute(
        f"ALTER ROLE {USER} SET plan_cache_mode = 'force_custom_plan'"
    )  # some plans are bad, nobody knows when
    try:
        broker = await make()
        for turn in range(10):
            ids = [f"{turn}.{place}" for place in range(1000)]
            await broker.append(records([Event("x", ("news",), id=id) for id in ids], MiB))
        await broker.close()
    finally:
        server.execute(f"ALTER ROLE {USER} RESET plan_cache_mode")
    async with asyncio.timeout(DEADLINE):
        while backends(server):  # which count when they end
            await asyncio.sleep(0.02)
    ((looked_at,),) = server.execute(
        "SELECT coalesce(seq_tup_read, 0) + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes "
        f"WHERE relname = '{name}_events') FROM pg_stat_user_tables WHERE relname = '{name}_events'",
        database=USER,
    )
    assert looked_at < 1000  # of 10,000 that are new, and none of them twice


async def test_messages_are_forgotten_after_a_minute(server: Postgres, make: Open, name: str) -> None:
    broker = await make()
    await broker.send(b"old")
    server.execute(f"UPDATE {name}_messages SET at = at - interval '2 minutes'", database=USER)
    await broker.send(b"new")
    await broker.trim()
    assert server.execute(f"SELECT message FROM {name}_messages", database=USER) == [(b"new",)]


# Bad input.


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (PASSWORD, "wrong", "password authentication failed"),
        (f":{PASSWORD}@", "@", "no password supplied"),
        (f"/{USER}?", "/nowhere?", 'database "nowhere" does not exist'),
        (f"//{USER}:", "//nobody:", "password authentication failed"),
        ("?name=", "?sslmode=require&name=", "server does not support SSL"),
        ("?name=", "?connect_timeout=soon&name=", "bad value for connect_timeout"),
        ("?name=", "?options=-csearch_path%3Dnowhere&name=", "no schema has been selected"),
        ("?name=", "?colour=red&name=", 'invalid URI query parameter: "colour"'),
        ("?name=", f"?password={PASSWORD}&name=", "must not have 'password' in its query"),
        ("?name=", "?name=a%22b&was=", "1 to 50 letters, digits, _ and -"),
        ("?name=", f"?name={'x' * 51}&was=", "1 to 50 letters, digits, _ and -"),
        ("?name=", "?name=&was=", "1 to 50 letters, digits, _ and -"),
        (PASSWORD, f"%zz{PASSWORD}", "invalid percent-encoded token"),
        (PASSWORD, f"x@{PASSWORD}", "@ is written %40"),
        (PASSWORD, f"x/{PASSWORD}", "@ is written %40"),
        (PASSWORD, f"x?{PASSWORD}", "@ is written %40"),
        (PASSWORD, f"x#{PASSWORD}", "@ is written %40"),
    ],
)
async def test_a_url_that_will_not_do_is_named_without_the_password(url: str, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await connect(HubConfig(broker=url.replace(old, new, 1))).open()
    assert said in str(raised.value)
    assert PASSWORD not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_user_who_may_not_create_is_told_so(server: Postgres, make: Open, url: str, name: str) -> None:
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = url.replace(f"{USER}:{PASSWORD}", "guest:guest")
    with pytest.raises(ConfigError, match="permission denied for schema public; grant the user CREATE"):
        await connect(HubConfig(broker=guest)).open()
    await make()
    server.execute(f"GRANT ALL ON {name}_log, {name}_events, {name}_messages, {name}_facts TO guest", database=USER)
    server.execute(f"GRANT ALL ON {name}_cuts, {name}_timelines TO guest", database=USER)
    broker = await make(url=guest)
    assert [one.position for one in await broker.append(batch("a"))] == [1]
    await broker.keep("one", b"1", 60)
    assert [fact.name for fact in await broker.kept()] == ["one"]


async def test_tables_of_a_newer_version_are_left_alone(server: Postgres, make: Open, url: str, name: str) -> None:
    await make()
    server.execute(f"UPDATE {name}_log SET version = 5", database=USER)
    with pytest.raises(ConfigError, match=f"tables of '{name}' are of version 5, made by a newer ssepool"):
        await connect(HubConfig(broker=url)).open()


OLD_TABLES = """
CREATE TABLE {name}_log (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL, epoch text NOT NULL,
    newest bigint NOT NULL DEFAULT 0, oldest bigint NOT NULL DEFAULT 0,
    ends bigint NOT NULL DEFAULT 0, begins bigint NOT NULL DEFAULT 0
);
CREATE TABLE {name}_events (
    position bigint PRIMARY KEY, id text, topics text[] NOT NULL, private boolean NOT NULL, frame bytea NOT NULL,
    start bigint NOT NULL, at timestamptz NOT NULL
);
CREATE UNLOGGED TABLE {name}_messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), message bytea NOT NULL, at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {name}_log VALUES (true, 1, '01d01d01', 6, 2, 600, 200);
CREATE FUNCTION {name}_append(text[], text[], boolean[], bytea[], boolean, bigint, bigint, double precision)
RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'
"""
"""Of version 1: two of six events are beyond the bounds, but still there."""

OLD_APPEND = """
CREATE OR REPLACE FUNCTION {name}_append(
    a text[], b text[], c text[], d boolean[], e bytea[], f text, g bigint, h bigint, i double precision
) RETURNS TABLE (epoch text) LANGUAGE sql AS 'SELECT NULL::text'
"""
"""As versions 2 and 3 make it when it is missing."""


@pytest.mark.parametrize("version", [1, 3])
async def test_tables_of_earlier_versions_are_taken_over(server: Postgres, make: Open, name: str, version: int) -> None:
    topics = ["zürich/köln", "a b", "東京", "Z", "a", "a", "\U0001f600", "\uffff"]
    rows = [("gone", ["x"]), (None, ["x"]), ("mine", ["news"]), (None, ["news"]), ("mine", topics), (None, [])]
    with transaction(server) as old:
        old.execute(OLD_TABLES.format(name=name).encode())
        for place, (id, some) in enumerate(rows):
            old.execute(
                f"INSERT INTO {name}_events VALUES (%s, %s, %s, false, %s, %s, now())".encode(),
                (place + 1, id, some, b"data: %d\n\n" % place, 100 * place),
            )
        if version == 3:
            old.execute(f"ALTER TABLE {name}_events ADD COLUMN claim text".encode())
            old.execute(
                f"CREATE TABLE {name}_facts (name text PRIMARY KEY, number bigint NOT NULL UNIQUE, "
                "until timestamptz NOT NULL, data bytea NOT NULL)".encode()
            )
            old.execute(f"UPDATE {name}_log SET version = 3".encode())
            old.execute(OLD_APPEND.format(name=name).encode())
    broker = await make()
    bounds = await broker.bounds()
    assert (bounds.oldest, bounds.newest, bounds.bytes, bounds.floor) == (2, 6, 400, 2)
    assert bounds.timelines == (("01d01d01", 6),)
    assert [(entry.position, entry.id) for entry in await read_all(broker)] == [
        (3, "mine"),
        (4, "01d01d01-4"),
        (5, "mine"),
        (6, "01d01d01-6"),
    ]
    again = [*batch("2", ids=["mine"]), *batch("4", ids=["mine"], topics=sorted(topics))]
    assert [one.position for one in await broker.append(again)] == [3, 5]
    with pytest.raises(IdConflict):
        await broker.append(batch("other", ids=["mine"]))
    assert [one.position for one in await broker.append(batch("d", ids=["mine"], topics=["x"]))] == [7]
    assert await broker.find("mine", lambda topics, private: "Z" in topics) == 5
    assert server.execute(f"SELECT version FROM {name}_log", database=USER) == [(4,)]
    await broker.keep("one", b"1", 60)
    # A hub of an earlier version that still runs is told, and does not make its own functions again.
    calls = (
        f"SELECT * FROM {name}_append('{{}}', '{{}}', '{{}}', '{{}}', '{{}}', 'ignore', 1, 1, 1)",
        OLD_APPEND.format(name=name),
    )
    for call, told in zip(
        calls, ("made by a newer ssepool: update this one", "cannot change return type"), strict=True
    ):
        with pytest.raises(psycopg.Error, match=told):
            server.execute(call, database=USER)


async def test_a_hub_that_still_runs_makes_no_tables_of_its_own_of_newer_ones(
    server: Postgres, make: Open, name: str
) -> None:
    broker = await make()
    await broker.append(batch("a"))
    server.execute(f"UPDATE {name}_log SET version = 5", database=USER)
    drop_functions(server, name)
    with pytest.raises(
        BrokerError, match=f"the tables of '{name}' are of version 5, made by a newer ssepool; this one"
    ):
        await broker.append(batch("b"))
    assert server.execute(f"SELECT version FROM {name}_log", database=USER) == [(5,)]


async def test_tables_of_somebody_else_are_left_alone(server: Postgres, url: str, name: str) -> None:
    with transaction(server) as other:
        other.execute(f"CREATE TABLE {name}_events (number integer)")
    with pytest.raises(ConfigError, match=r"choose another with .name="):
        await connect(HubConfig(broker=url)).open()
    assert server.execute(f"SELECT to_regclass('{name}_log')", database=USER) == [(None,)]


async def test_a_server_that_is_too_old_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_SERVER_VERSION", 99)
    with pytest.raises(ConfigError, match=r"PostgreSQL \d+.* is too old; it takes 99 or newer"):
        await connect(HubConfig(broker=url)).open()


async def test_a_database_in_another_encoding_is_refused(server: Postgres, url: str) -> None:
    server.execute(f"CREATE DATABASE latin ENCODING latin1 TEMPLATE template0 OWNER {USER}")
    with pytest.raises(ConfigError, match="has the encoding LATIN1; it takes UTF8"):
        await connect(HubConfig(broker=url.replace(f"/{USER}?", "/latin?"))).open()


async def test_of_several_servers_the_one_that_takes_events_is_found(server: Postgres, url: str) -> None:
    broker = connect(HubConfig(broker=url.replace("@127.0.0.1:", "@127.0.0.1:1,127.0.0.1:")))
    await broker.open()
    assert (await broker.bounds()).newest == 0
    await broker.close()


async def test_names_may_have_capitals_and_hyphens(server: Postgres) -> None:
    async with opening(server.url("Mixed-Case_" + "x" * 39)) as make:
        broker = await make()
        await broker.append(batch("a"))
        assert data(await take(broker, 0, 1)) == ["a"]
