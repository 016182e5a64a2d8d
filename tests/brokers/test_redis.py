"""What is special to the broker on Redis: its faults, its refusals, and what its keys look like."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from redis.crc import key_slot

from histories import DEADLINE, Open, batch, data, positions, read_all, take, until
from services.redis import Redis
from ssepool.brokers import connect
from ssepool.brokers.redis import broker as module
from ssepool.brokers.redis.server import RIGHTS
from ssepool.config import HubConfig
from ssepool.core.cut import Cut
from ssepool.errors import BrokerError, ConfigError, IdConflict


@pytest.fixture
def kind() -> str:
    """For the fixtures `service` and `opened`."""
    return "redis"


# A server that dies or hangs.


async def test_a_broken_append_says_that_the_events_may_be_stored(service: Redis, opened: Open) -> None:
    broker = await opened()
    service.suspend()
    append = asyncio.create_task(broker.append(batch("a")))
    await asyncio.sleep(0.1)
    service.kill()
    with pytest.raises(BrokerError, match="the events may be published or not"):
        await append
    with pytest.raises(BrokerError) as refused:
        await broker.append(batch("a"))
    assert "may be" not in str(refused.value)


async def test_a_tail_that_is_cancelled_ends_whatever_it_is_at(service: Redis, opened: Open) -> None:
    broker = await opened()

    async def follow() -> None:
        async with aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
            async for page in tail:
                assert page

    for turn in range(200):
        task = asyncio.create_task(follow())
        await asyncio.sleep(turn / 50_000)
        append = asyncio.create_task(broker.append(batch("a")))
        for _ in range(turn % 10):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=DEADLINE)
        assert done, f"it goes on in turn {turn}"
        await append


# A history that is lost, in whole and in part.


@pytest.mark.parametrize("key", ["log", "state"])
async def test_a_history_without_one_of_its_keys_is_lost(service: Redis, opened: Open, key: str) -> None:
    broker = await opened()
    await broker.append(batch("a", "b", ids=("mine",)))
    before = await broker.bounds()
    service.ask(f"DEL {{test}}:{key}")
    assert positions(await broker.append(batch("again", ids=("mine",)))) == [1]
    after = await broker.bounds()
    assert (after.epoch != before.epoch, after.oldest, after.newest) == (True, 0, 1)


async def test_who_appends_sees_that_there_is_less_than_was_seen(
    service: Redis, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, late = await opened(), await opened(), await opened()
    kept = await one.append(batch(*"abc"))
    for key in ("state", "log"):  # a backup that needs no restart, by which connections would know
        service.ask(f"COPY {{test}}:{key} saved:{key}")
    lost = await one.append(batch(*"de"))
    epoch = lost[0].id[:8]
    assert positions(await take(two, 0, 5)) == [1, 2, 3, 4, 5]
    for key in ("state", "log"):
        service.ask(f"COPY saved:{key} {{test}}:{key} REPLACE")
    assert (await late.bounds())[:3] == (epoch, 0, 3)  # who has seen no more notices nothing
    [new] = await two.append(batch("f"))
    assert "has lost the newest 2 events that it had acknowledged" in caplog.text
    bounds = await one.bounds()
    assert (bounds.newest, bounds.timelines) == (4, ((epoch, 3),))
    assert new == (f"{bounds.epoch}-4", 4)
    for broker in (one, two, late):
        await broker.bounds()
        assert [entry.id for entry in await read_all(broker)] == [*(one.id for one in kept), new.id]
        assert [await broker.find(one.id) for one in lost] == [None, None]
        assert [await broker.find(one.id) for one in (*kept, new)] == [1, 2, 3, 4]
    assert (await one.append(batch("g")))[0].id == f"{bounds.epoch}-5"


async def test_an_old_name_is_renewed_once(opened: Open) -> None:
    one, two = await opened(), await opened()
    await one.append(batch("a"))
    epoch = (await one.bounds()).epoch
    first, second = await asyncio.gather(one.renew(epoch), two.renew(epoch))
    assert first == second
    assert first.timelines == ((epoch, 1),)
    assert await one.renew(epoch) == first


# What the server refuses.


async def test_memory_that_has_run_out_stores_nothing(service: Redis, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch("a"))
    service.ask("CONFIG SET maxmemory 1")
    with pytest.raises(BrokerError, match="maxmemory"):
        await broker.append(batch("b", "c", ids=("mine",)))
    assert (await broker.bounds()).newest == 1
    assert await broker.find("mine") is None
    service.ask("CONFIG SET maxmemory 0")
    assert positions(await broker.append(batch("b", "c", ids=("mine",)))) == [2, 3]


async def test_history_is_dropped_and_opened_also_when_memory_has_run_out(service: Redis, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch(*"abcdef"))
    service.ask("CONFIG SET maxmemory 1")
    await broker.drop([1, 2, 5], {"news": Cut(5)}, 0)
    await broker.drop([], {"news": Cut(5, 5)}, 0)
    await broker.close()
    later = await opened()
    assert positions(await later.read(0, max_entries=9)) == [3, 4, 6]
    assert await later.cuts() == [("news", Cut(5, 5))]
    assert len((await later.bounds()).timelines) == 1


async def test_a_server_that_has_become_a_replica_takes_no_events(service: Redis, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch("a"))
    service.ask("REPLICAOF 127.0.0.1 1")
    with pytest.raises(BrokerError, match="read only replica"):
        await broker.append(batch("b"))
    with pytest.raises(ConfigError, match=r"is a replica, which takes no events; name the primary$"):
        await opened()
    service.ask("REPLICAOF NO ONE")
    assert positions(await broker.append(batch("b"))) == [2]


@pytest.mark.parametrize("key", ["log", "state", "claims", "places", "cuts", "cut-names", "cut-order"])
async def test_a_key_of_another_kind_is_an_error_and_stays(service: Redis, opened: Open, key: str) -> None:
    service.ask(f"SET {{test}}:{key} x")
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await opened()
    assert service.ask(f"GET {{test}}:{key}") == b"$1\r\nx\r\n"


async def test_scripts_that_the_server_forgot_are_given_again(service: Redis, opened: Open) -> None:
    broker = await opened()
    service.ask("SCRIPT FLUSH")
    assert positions(await broker.append(batch("a"))) == [1]
    service.ask("SCRIPT FLUSH")
    assert positions(await broker.read(0, max_entries=1)) == [1]


@pytest.mark.parametrize("user", ["", "ann:wrong-s3cret@", ":wrong-s3cret@", "nobody:wrong-s3cret@"])
async def test_wrong_credentials_are_an_error_at_the_start(service: Redis, opened: Open, user: str) -> None:
    service.ask("ACL SETUSER ann on >right ~* &* +@all")
    service.ask("CONFIG SET requirepass right")
    with pytest.raises(ConfigError, match="the server refuses the credentials") as error:
        await opened(f"redis://{user}127.0.0.1:{service.port}")
    assert "s3cret" not in str(error.value)
    await opened(f"redis://ann:right@127.0.0.1:{service.port}")


async def test_a_password_that_nobody_asked_for_is_an_error_at_the_start(service: Redis, opened: Open) -> None:
    with pytest.raises(ConfigError, match="the server refuses the credentials") as error:
        await opened(f"redis://:s3cret@127.0.0.1:{service.port}")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "rules",
    ["~* &* -@all", "~* &* +@all -info", "~other:* &* +@all", "~* &* +@all -evalsha", "~* &* +@all -hset"],
)
async def test_a_user_without_the_rights_is_an_error_that_names_them(service: Redis, opened: Open, rules: str) -> None:
    service.ask(f"ACL SETUSER ann on >right {rules}")
    with pytest.raises(
        ConfigError, match=r"needs the rights \+@read .* \+info \+time \+wait ~\{test\}:\* &\{test\}:\*$"
    ):
        await opened(f"redis://ann:right@127.0.0.1:{service.port}?name=test")


async def test_the_rights_that_are_named_are_enough(service: Redis, opened: Open) -> None:
    service.ask(f"ACL SETUSER ann on >right resetchannels ~{{test}}:* &{{test}}:* {RIGHTS}")
    url = f"redis://ann:right@127.0.0.1:{service.port}?name=test"
    broker = await opened(url)
    await broker.append(batch("a", "b", ids=("mine",)))
    assert positions(await take(broker, 0, 2)) == [1, 2]
    assert (await broker.find("mine"), len(await broker.fetch([2]))) == (1, 1)
    await broker.drop([1], {"news": Cut(1)}, 0)
    assert await broker.cuts() == [("news", Cut(1))]
    await broker.keep("one", b"1", 60)
    await broker.trim()
    await opened(url)  # asks whether somebody else has it open
    assert len((await broker.renew((await broker.bounds()).epoch)).timelines) == 1
    await broker.send(b"x")
    listening = asyncio.ensure_future(anext(broker.messages()))  # type: ignore[arg-type]
    async with asyncio.timeout(DEADLINE):
        while not listening.done():
            await broker.send(b"heard")
            await asyncio.sleep(0.02)
    assert listening.result() == b"heard"


async def test_a_database_that_is_not_there_is_an_error_at_the_start(service: Redis, opened: Open) -> None:
    with pytest.raises(ConfigError, match="there is no such database"):
        await opened(f"redis://127.0.0.1:{service.port}/99")


@pytest.mark.parametrize(("policy", "warned"), [("allkeys-lru", True), ("noeviction", False), ("volatile-lru", False)])
async def test_a_policy_that_evicts_is_warned_of(
    service: Redis, opened: Open, caplog: pytest.LogCaptureFixture, policy: str, warned: bool
) -> None:
    service.ask("CONFIG SET maxmemory 100mb")
    service.ask(f"CONFIG SET maxmemory-policy {policy}")
    caplog.set_level(logging.WARNING)
    await opened()
    assert (f"has the maxmemory-policy {policy}" in caplog.text) == warned


async def test_a_server_that_is_not_there_is_a_broker_error(service: Redis, opened: Open) -> None:
    service.kill()
    with pytest.raises(BrokerError, match=r"^redis://u:\*\*\*@127\.0\.0\.1"):
        await opened(f"redis://u:s3cret@127.0.0.1:{service.port}")


class FakeServer:
    """Gives the same answer to each command, and OK to those that every connection begins with."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    words.append(await reader.readexactly(int((await reader.readline())[1:])))
                    await reader.readline()
                writer.write(b"+OK\r\n" if words[0] in (b"CLIENT", b"AUTH", b"SELECT") else self._answer)
                await writer.drain()
        writer.close()


def info(text: str) -> bytes:
    body = text.replace("\n", "\r\n").encode()
    return b"$%d\r\n%b\r\n" % (len(body), body)


@pytest.mark.parametrize("version", ["5.0.0", "6.0.16", "2.8.24", "4.0"])
async def test_a_server_that_is_too_old_is_an_error_at_the_start(version: str) -> None:
    async with FakeServer(info(f"# Server\nredis_version:{version}\nrole:master\n")) as server:
        broker = connect(HubConfig(broker=server.url))
        with pytest.raises(ConfigError, match=rf"is Redis {re.escape(version)}; it takes 6\.2 or newer, or Valkey$"):
            await broker.open()
        await broker.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", BrokerError),
        (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", BrokerError),
        (b"-BUSY Redis is busy running a script.\r\n", BrokerError),
        (b"-MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.\r\n", BrokerError),
        (b"-NOAUTH Authentication required.\r\n", ConfigError),
        (b"-MOVED 1234 10.0.0.2:7000\r\n", ConfigError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", BrokerError),
    ],
    ids=lambda value: value[:12].decode() if isinstance(value, bytes) else value.__name__,
)
async def test_what_a_server_says_instead_of_an_answer(answer: bytes, error: type[Exception]) -> None:
    async with FakeServer(answer) as server:
        broker = connect(HubConfig(broker=server.url))
        with pytest.raises(error, match=re.escape(server.url)) as raised:
            await broker.open()
        assert type(raised.value) is error
        await broker.close()


# The URL.


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
async def test_each_scheme_is_served(scheme: str) -> None:
    broker = connect(HubConfig(broker=f"{scheme}://u:s3cret@127.0.0.1:1/2?name=app"))
    assert isinstance(broker, module.RedisBroker)
    with pytest.raises(BrokerError) as error:
        await broker.open()
    assert str(error.value).startswith(f"{scheme}://u:***@127.0.0.1:1/2?name=app: ")


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("//h?nmae=x", "has the parameter 'nmae'; there are name, wait, client_name, db"),
        ("//h?password=s3cret", "has the parameter 'password'; there are"),
        ("//h?socket_timeout=1", "has the parameter 'socket_timeout'"),
        ("//h?ssl_ca_certs=/ca.pem", "has the parameter 'ssl_ca_certs', which takes rediss:// or valkeys://"),
        ("//h?name=", "has the name ''; it takes 1 to 100 letters"),
        ("//h?name={a}", "has the name '{a}'"),
        ("//h?wait=-1", "has wait='-1'; it takes a number of replicas, 0 to 99"),
        ("//h?wait=", "has wait=''; it takes"),
        ("//h?db=one", "Invalid value for 'db'"),
        ("//h/one", "'redis://h/one' is not allowed; it takes redis://host:port/N"),
        ("//h:99999", "has a port that is not a number from 1 to 65535"),
        ("//:s3cret/x@h", "has a port that is not a number from 1 to 65535; in a password '/'"),
    ],
)
def test_a_url_that_will_not_do_is_an_error_that_says_why(rest: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        connect(HubConfig(broker=f"redis:{rest}"))
    assert said in str(error.value)
    assert "s3cret" not in str(error.value)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in ("broker", "openers", "server"):
        monkeypatch.delitem(sys.modules, f"ssepool.brokers.redis.{name}")
    with pytest.raises(ConfigError, match=r'install "ssepool\[redis\]"$'):
        connect(HubConfig(broker="redis://h"))


async def test_ids_of_the_layout_before_are_taken_over(
    service: Redis, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_ENTRIES", 100)
    old = await opened()
    many = [f"id{number}" for number in range(1500)]
    await old.append(batch("a", *many, ids=("mine", *many)))
    await old.close()
    service.ask("DEL {test}:claims {test}:places")
    for start in range(0, 1500, 500):
        fields = " ".join(f"id{number} {number + 2}" for number in range(start, start + 500))
        service.ask("HSET {test}:ids mine 1 gone 4000 " + fields)
    broker = await opened()
    assert b"{test}:ids" not in service.ask("KEYS *")
    assert service.ask("HLEN {test}:claims") == service.ask("ZCARD {test}:places") == b":1501\r\n"
    assert positions(await broker.append(batch("a", "id1499", ids=("mine", "id1499")))) == [1, 1501]
    with pytest.raises(IdConflict):
        await broker.append(batch("other", ids=("mine",)))
    assert positions(await broker.append(batch("d", ids=("mine",), topics=["x"]))) == [1502]
    assert await broker.find("mine", lambda topics, private: topics == ("news",)) == 1
    assert await broker.find("gone") is None


# The layout before cuts.


@pytest.mark.parametrize(("gone", "floor"), [((1, 2), 2), ((1, 4), 6), ((), 0), ((1, 2, 3, 4, 5, 6), 6)])
async def test_the_layout_before_cuts_is_taken_over(
    service: Redis, opened: Open, gone: Sequence[int], floor: int
) -> None:
    old = await opened()
    await old.append(batch(*"abcdef", ids=["mine"]))
    epoch = (await old.bounds()).epoch
    await old.close()
    await old.drop(gone, {}, 0)
    service.ask("HDEL {test}:state floor timelines version")
    broker = await opened()
    bounds = await broker.bounds()
    left = [position for position in range(1, 7) if position not in gone]
    assert (bounds.newest, bounds.timelines, bounds.floor) == (6, ((epoch, 6),), floor)
    assert (positions(await read_all(broker)), await broker.cuts()) == (left, [])
    assert (await broker.append(batch("g")))[0].id == f"{bounds.epoch}-7"
    assert await broker.find("mine") == (None if 1 in gone else 1)


async def test_a_layout_of_a_later_version_is_refused(service: Redis, opened: Open) -> None:
    await (await opened()).append(batch("a"))
    service.ask("HSET {test}:state version 3 server another")
    with pytest.raises(ConfigError, match=r"has the layout 3 of a later ssepool, and this one knows 2$"):
        await opened()
    assert service.ask("HMGET {test}:state version server") == b"*2\r\n$1\r\n3\r\n$7\r\nanother\r\n"


# Keys, processes, what is kept for the tails.


async def test_all_keys_are_in_one_slot_and_names_are_apart(service: Redis, opened: Open) -> None:
    for name in ("one", "two"):
        await (await opened(service.url(name))).append(batch("a", "b", ids=("mine",)))
    keys = sorted(re.findall(rb"\{\w+\}:\w+", service.ask("KEYS *")))
    each = (b"claims", b"log", b"places", b"state")
    assert keys == [b"{%b}:%b" % (name, key) for name in (b"one", b"two") for key in each]
    assert len({key_slot(key) for key in [*keys[:4], b"{one}:messages"]}) == 1


# What is dropped.


async def test_large_entries_are_dropped_in_steps(
    service: Redis, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_BYTES", 100_000)
    broker = await opened()
    await broker.append(batch(*["x" * 1000] * 100, ids=[f"id{number}" for number in range(100)]))
    service.ask("CONFIG RESETSTAT")
    await broker.drop([*range(1, 60), *range(61, 101)], {"news": Cut(100)}, 0)
    assert positions(await read_all(broker)) == [60]
    assert (await broker.bounds())[1:3] == (59, 100)
    assert service.ask("HLEN {test}:claims") == service.ask("ZCARD {test}:places") == b":1\r\n"
    assert 2 <= calls(service, "evalsha") <= 30


async def test_a_server_that_dies_between_two_steps_has_the_cuts(
    service: Redis, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_BYTES", 1)
    broker = await opened()
    await broker.append(batch(*"abcdef"))
    steps, run = 0, broker._run  # type: ignore[attr-defined]

    async def dying(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            service.restart()
        return await run(*args)

    monkeypatch.setattr(broker, "_run", dying)
    with pytest.raises(BrokerError):
        await broker.drop([1, 3, 5], {"news": Cut(5), "other": Cut(4, 1)}, 0)
    later = await opened()
    assert positions(await read_all(later)) == [2, 4, 5, 6]
    assert await later.cuts() == [("news", Cut(5)), ("other", Cut(4, 1))]
    await later.drop([1, 3, 5], {"news": Cut(5), "other": Cut(4, 1)}, 0)
    assert positions(await read_all(later)) == [2, 4, 6]


async def test_thousands_of_cuts_are_forgotten_at_once(service: Redis, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch("a"))
    for turn in range(3):
        await broker.drop([], {f"{turn}/{number}": Cut(10 + turn) for number in range(900)}, 0)
    await broker.drop([], {}, 11)
    assert len(await broker.cuts()) == 900
    for key, count in (("cuts", "HLEN"), ("cut-names", "ZCARD"), ("cut-order", "ZCARD")):
        assert service.ask(f"{count} {{test}}:{key}") == b":900\r\n"
    await broker.drop([1], {}, 12)
    assert b"cut" not in service.ask("KEYS *")


async def test_what_another_history_has_is_not_dropped(service: Redis, opened: Open) -> None:
    one, two = await opened(), await opened()
    await one.append(batch(*"abc"))
    service.lose_data()
    await two.append(batch(*"def"))
    with pytest.raises(BrokerError, match="has begun a new history or timeline"):
        await one.drop([1, 2, 3], {"news": Cut(3)}, 3)
    await one.bounds()
    assert (data(await read_all(one)), await one.cuts()) == (list("def"), [])


async def test_the_front_is_freed_without_a_command_for_each_entry(service: Redis, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch(*map(str, range(3000))))
    service.ask("CONFIG RESETSTAT")
    await broker.drop(range(1, 1001), {}, 0)
    assert (calls(service, "xtrim") <= 17, calls(service, "xdel")) == (True, 0)
    await broker.drop(range(2001, 3001), {}, 0)
    assert calls(service, "xdel") <= 17
    assert positions(await read_all(broker)) == list(range(1001, 2001))


def calls(service: Redis, command: str) -> int:
    """How often a command has been called since its statistics were reset."""
    found = re.search(rb"cmdstat_%b:calls=(\d+)" % command.encode(), service.ask("INFO commandstats"))
    return int(found[1]) if found else 0


# Who has the history open.


def listeners(service: Redis) -> bytes:
    """How many the server counts that have it open."""
    return service.ask("PUBSUB NUMSUB {test}:open").split(b"\r\n")[-2]


async def test_a_history_that_somebody_has_open_goes_on(service: Redis, opened: Open) -> None:
    one = await opened()
    await one.append(batch("a"))
    epoch = (await one.bounds()).epoch
    others = [await opened(), await opened()]
    for broker in (one, *others):
        assert (await broker.bounds()).epoch == epoch
    await one.close()
    await others[0].close()
    assert (await (await opened()).bounds()).epoch == epoch


async def test_of_many_that_open_at_once_one_begins_a_timeline(service: Redis, opened: Open) -> None:
    before = await opened()
    await before.append(batch("a"))
    epoch = (await before.bounds()).epoch
    await before.close()
    for turn in range(1, 4):
        brokers = await asyncio.gather(*(opened() for _ in range(5)))
        bounds = [await broker.bounds() for broker in brokers]
        assert all(one == bounds[0] for one in bounds)
        assert len(bounds[0].timelines) == turn
        for broker in brokers:
            await broker.close()
    assert bounds[0].timelines[0] == (epoch, 1)


async def test_the_dead_do_not_have_it_open(service: Redis, opened: Open) -> None:
    code = """if True:
        import asyncio, sys
        from ssepool.brokers import connect
        from ssepool.config import HubConfig

        async def main():
            broker = connect(HubConfig(broker=sys.argv[1]))
            await broker.open()
            print((await broker.bounds()).epoch, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    first = await opened()
    await first.append(batch("a"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, service.url("test"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    epoch = (await asyncio.wait_for(process.stdout.readline(), DEADLINE)).decode().strip()
    await first.close()
    second = await opened()
    assert (await second.bounds()).epoch == epoch
    await second.close()
    process.kill()
    await process.wait()
    assert (await (await opened()).bounds()).timelines == ((epoch, 1),)


async def test_who_does_not_answer_does_not_have_it_open(service: Redis, opened: Open) -> None:
    one = await opened()
    await one.append(batch("a"))
    epoch = (await one.bounds()).epoch
    # As the connection of a machine that is gone: the server counts it for a while.
    with socket.create_connection(("127.0.0.1", service.port)) as dead:
        dead.sendall(b"SUBSCRIBE {test}:open\r\n")
        dead.recv(1000)
        two = await opened()
        assert (await two.bounds()).epoch == epoch  # somebody else has answered
        await one.close()
        await two.close()
        assert (await (await opened()).bounds()).timelines == ((epoch, 1),)


async def test_they_are_known_again_when_the_server_has_been_away(service: Redis, opened: Open) -> None:
    one, two = await opened(), await opened()
    await one.append(batch("a"))
    before = (await one.bounds()).epoch
    service.restart()

    async def are_known() -> bool:
        return listeners(service) == b":2"

    await until(are_known)
    bounds = await (await opened()).bounds()
    assert bounds.timelines == ((before, 1),)  # for nobody can tell what it has lost
    assert (await one.bounds(), await two.bounds()) == (bounds, bounds)
    await one.close()
    await two.close()


async def test_an_open_that_fails_leaves_nothing_behind(service: Redis, opened: Open) -> None:
    before = asyncio.all_tasks()
    await (await opened()).append(batch("a"))
    service.ask("ACL SETUSER ann on >right ~* resetchannels &{test}:open +@all -publish")
    with contextlib.suppress(ConfigError, BrokerError):
        await opened(f"redis://ann:right@127.0.0.1:{service.port}?name=test")
        pytest.fail("it has opened")
    assert len(asyncio.all_tasks() - before) == 1  # the one that is open
    assert listeners(service) == b":1"
