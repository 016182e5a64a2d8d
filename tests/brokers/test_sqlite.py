"""The SQLite broker: what becomes of it when processes die, disks are full, and files are not what they should be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from histories import DEADLINE, Open, batch, data, page_of, positions, read_all, until
from ssepool import AsyncPublisher
from ssepool.brokers import connect
from ssepool.brokers.base import Bounds, Broker
from ssepool.brokers.record import topics_digest
from ssepool.brokers.sqlite import broker as module
from ssepool.brokers.sqlite import files, history
from ssepool.brokers.sqlite.broker import SqliteBroker, path_of
from ssepool.brokers.sqlite.notifier import Notifier
from ssepool.brokers.sqlite.openers import Openers
from ssepool.brokers.sqlite.seen import MAX_SEEN, Seen
from ssepool.config import HubConfig, KiB, MiB
from ssepool.core.cut import Cut
from ssepool.core.timelines import Timeline, Timelines
from ssepool.errors import BrokerError, ConfigError, IdConflict

APPENDING = Path(__file__).with_name("appending.py")
WITH_TESTS = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(APPENDING.parent.parent), os.environ.get("PYTHONPATH")])),
}
"""The environment of processes that use modules of the tests."""


@pytest.fixture
def kind() -> str:
    """For the fixtures `url` and `make`."""
    return "sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the fixture `url`."""
    return tmp_path / "events.db"


def check(path: Path) -> None:
    """Whether the file is as SQLite left it."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# Names.


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///events.db", "events.db"),
        ("sqlite:///data/events.db", "data/events.db"),
        ("sqlite:////var/lib/events.db", "/var/lib/events.db"),
        ("sqlite:///C:/data/events.db", "C:/data/events.db"),
        ("sqlite:////a%20b/50%25/what%3F%23.db", "/a b/50%/what?#.db"),
    ],
)
def test_the_url_names_a_file_as_in_sqlalchemy(url: str, path: str) -> None:
    assert path_of(url) == Path(path)
    assert isinstance(connect(HubConfig(broker=url)), SqliteBroker)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "names no file; for events in memory write memory://"),
        ("sqlite:///", "names no file; for events in memory write memory://"),
        ("sqlite:///:memory:", "names no file; for events in memory write memory://"),
        ("sqlite://events.db", "names no file"),
        ("sqlite://data/events.db", "names a server; write sqlite:///relative.db or sqlite:////absolute.db"),
        ("sqlite:///events.db?name=other", "has parameters; it takes none"),
        ("sqlite:///events.db#other", "has parameters; it takes none"),
    ],
)
def test_a_url_that_names_no_file_is_an_error(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        connect(HubConfig(broker=url))


async def test_a_relative_path_is_from_where_the_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broker = connect(HubConfig(broker="sqlite:///here.db"))
    await broker.open()
    await broker.close()
    assert (tmp_path / "here.db").is_file()


# Whose the file is.


@pytest.fixture
def umask() -> Iterator[None]:
    """Files are for all to read and write, unless the program says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(path: Path) -> dict[str, int]:
    return {beside.name: beside.stat().st_mode & 0o777 for beside in path.parent.iterdir() if beside.is_file()}


async def test_what_is_made_is_only_for_its_own_user(
    path: Path, umask: None, make: Open, caplog: pytest.LogCaptureFixture
) -> None:
    await (await make()).append(batch("private"))
    assert modes(path) == {f"events.db{suffix}": 0o600 for suffix in ("", "-hubs", "-wal", "-shm")}
    assert caplog.messages == []


async def test_a_file_that_others_may_read_is_left_and_said_once(
    path: Path, umask: None, make: Open, caplog: pytest.LogCaptureFixture
) -> None:
    await (await make()).close()
    path.chmod(0o640)
    await (await make()).append(batch("private"))
    assert modes(path)["events.db"] == 0o640
    assert caplog.messages == [f"other users of this machine have rights to {path}; chmod 600 takes them away"]


async def test_a_name_for_a_file_that_is_elsewhere_makes_it_there(path: Path, url: str, make: Open) -> None:
    path.symlink_to(path.with_name("elsewhere.db"))
    await (await make()).append(batch("private"))
    assert modes(path)["elsewhere.db"] == 0o600


# Files that will not do.


async def refused(url: str) -> str:
    """The message with which a broker does not open."""
    broker = connect(HubConfig(broker=url))
    with pytest.raises(ConfigError) as caught:
        await broker.open()
    await broker.close()
    return str(caught.value)


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert await refused(f"sqlite:///{tmp_path}") == (
        f"the SQLite database {tmp_path} is a directory; name a file in it"
    )


async def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "events.db"
    assert await refused(f"sqlite:///{path}") == (
        f"the SQLite database {path} cannot be made: there is no directory {path.parent}"
    )


async def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, url: str) -> None:
    path.write_text("Dear diary, " * 100)
    assert await refused(url) == f"the file {path} is not a SQLite database; name another"
    assert path.read_text() == "Dear diary, " * 100


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE users (name)", "PRAGMA application_id = 7", "PRAGMA user_version=3"]
)
async def test_a_database_of_another_program_is_refused_and_left_alone(path: Path, url: str, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = path.read_bytes()
    assert await refused(url) == f"the SQLite database {path} belongs to another program; name another file"
    assert path.read_bytes() == before


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(path: Path, url: str, make: Open) -> None:
    await (await make()).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert await refused(url) == (
        f"the SQLite database {path} was made by a newer ssepool (its tables have version 99, ours 4); "
        "upgrade ssepool or name another file"
    )


OLD_TABLES = """
CREATE TABLE history (epoch TEXT NOT NULL, newest INTEGER NOT NULL, oldest INTEGER NOT NULL, bytes INTEGER NOT NULL,
    cleared INTEGER NOT NULL, present INTEGER NOT NULL);
CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, at REAL NOT NULL, size INTEGER NOT NULL,
    private INTEGER NOT NULL, topics TEXT NOT NULL, frame BLOB NOT NULL);
CREATE INDEX events_id ON events (id) WHERE id IS NOT NULL;
CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, message BLOB NOT NULL);
INSERT INTO history VALUES ('00c0ffee', 4, 0, 100, 0, 100);
INSERT INTO events VALUES (1, 'mine', 9e9, 20, 0, '["news"]', CAST('data: a' || char(10, 10) AS BLOB)),
    (2, NULL, 9e9, 20, 0, '["news"]', CAST('data: b' || char(10, 10) AS BLOB)),
    (3, 'bad', 9e9, 20, 0, 'no json', CAST('data: c' || char(10, 10) AS BLOB)),
    (4, 'order', 9e9, 20, 0, '["é","a"]', CAST('data: d' || char(10, 10) AS BLOB));
PRAGMA application_id = 0x53534550;
PRAGMA user_version = 1;
"""


async def test_a_database_of_version_1_is_taken_over(path: Path, make: Open) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD_TABLES)
    brokers = await asyncio.gather(*(make() for _ in range(4)))
    for broker in brokers:
        again = [*batch("a", ids=["mine"]), *batch("d", ids=["order"], topics=["a", "é"])]
        assert [one.position for one in await broker.append(again)] == [1, 4]
        with pytest.raises(IdConflict):
            await broker.append(batch("other", ids=["mine"]))
    assert [one.position for one in await broker.append(batch("e", ids=["mine"], topics=["x"]))] == [5]
    assert await broker.find("mine", lambda topics, private: topics == ("news",)) == 1
    assert await broker.find("mine", lambda topics, private: topics == ("x",)) == 5
    await broker.keep("one", b"1", 60)


VERSION_2 = """
CREATE TABLE history (epoch TEXT NOT NULL, newest INTEGER NOT NULL, oldest INTEGER NOT NULL, bytes INTEGER NOT NULL,
    cleared INTEGER NOT NULL, present INTEGER NOT NULL);
CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, at REAL NOT NULL, size INTEGER NOT NULL,
    private INTEGER NOT NULL, topics TEXT NOT NULL, frame BLOB NOT NULL, claim TEXT);
CREATE INDEX events_id ON events (id) WHERE id IS NOT NULL;
CREATE INDEX events_claim ON events (claim) WHERE claim IS NOT NULL;
CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, message BLOB NOT NULL);
INSERT INTO history VALUES ('00c0ffee', 6, 4, 60, 2, 120);
INSERT INTO events SELECT value, iif(value = 5, 'mine', NULL), 9e8 + value, 30, 0, '["news"]',
    CAST('data: ' || value || char(10, 10) AS BLOB), iif(value = 5, 'mine {claim}', NULL) FROM json_each('[3,4,5,6]');
PRAGMA application_id = 0x53534550;
PRAGMA user_version = 2;
"""

VERSION_3 = """
CREATE TABLE facts (name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, until REAL NOT NULL, data BLOB NOT NULL);
CREATE INDEX facts_until ON facts (until);
INSERT INTO facts VALUES ('before', 7, 9e9, x'01');
PRAGMA user_version = 3;
"""


@pytest.mark.parametrize("script", [VERSION_2, VERSION_2 + VERSION_3], ids=["2", "3"])
async def test_a_database_whose_hubs_dropped_the_oldest_is_taken_over(path: Path, make: Open, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script.replace("{claim}", topics_digest(("news",))))
    brokers = await asyncio.gather(*(make() for _ in range(4)))
    for broker in brokers:
        bounds = await broker.bounds()
        assert bounds[1:] == (4, 6, 60, (("00c0ffee", 6),), 4)  # of what was dropped before nobody has a cut
        entries = await read_all(broker)
        assert [(entry.position, entry.id, entry.at) for entry in entries] == [
            (5, "mine", 9e8 + 5),
            (6, "00c0ffee-6", 9e8 + 6),
        ]
        assert await broker.append(batch("5", ids=["mine"])) == [("mine", 5)]
        assert [await broker.find(f"00c0ffee-{position}") for position in (4, 5, 6, 7)] == [None, 5, 6, None]
    assert len({(await broker.bounds()).epoch for broker in brokers}) == 1
    await brokers[0].keep("one", b"1", 60)
    assert {fact.name for fact in await brokers[1].kept()} >= {"one"}
    assert ("before" in {fact.name for fact in await brokers[1].kept()}) == (script != VERSION_2)
    await brokers[2].drop([5, 6], {"news": Cut(6)}, 4)
    assert (await brokers[3].bounds())[1:4] == (6, 6, 0)


async def test_an_empty_file_is_as_good_as_none(path: Path, make: Open) -> None:
    path.touch()
    assert (await (await make()).append(batch("a")))[0].position == 1


async def test_many_who_make_the_file_at_once_make_one_history(make: Open) -> None:
    brokers = await asyncio.gather(*(make() for _ in range(8)))
    assert len({(await broker.bounds()).epoch for broker in brokers}) == 1


# Processes that die.


async def test_what_was_acknowledged_survives_kill_9(path: Path, url: str) -> None:
    acknowledged: dict[int, str] = {}
    for run in range(8):
        process = await asyncio.create_subprocess_exec(
            sys.executable, APPENDING, url, str(run), stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        wanted = random.randint(1, 40)
        async with asyncio.timeout(DEADLINE):
            for count in itertools.count(1):
                if count == wanted:  # it goes on, and is killed at whatever it does then
                    await asyncio.sleep(random.uniform(0, 0.01))
                    process.kill()
                line = await process.stdout.readline()
                if not line.endswith(b"\n"):
                    break
                number, first, size = map(int, line.split())
                for place in range(size):
                    acknowledged[first + place] = f"{run}.{number}.{place}/{size}"
        await process.wait()
        check(path)
    broker = connect(HubConfig(broker=url, history_events=1_000_000))
    await broker.open()
    entries = await read_all(broker)
    kept = dict(zip((entry.position for entry in entries), data(entries), strict=True))
    assert list(kept) == list(range(1, len(kept) + 1))
    assert {position: kept.get(position) for position in acknowledged} == acknowledged
    batches = Counter((text.rpartition(".")[0], int(text.rpartition("/")[2])) for text in kept.values())
    assert all(count == size for (_, size), count in batches.items())
    assert len({number for number, _ in batches}) == len(batches)
    assert (await broker.append(batch("after")))[0].position == len(kept) + 1
    await broker.close()


async def test_others_go_on_when_a_process_is_killed(url: str, make: Open) -> None:
    broker = await make(history_events=1_000_000)
    async with aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
        for run in range(3):
            process = await asyncio.create_subprocess_exec(
                sys.executable, APPENDING, url, str(run), stdout=subprocess.DEVNULL, env={**os.environ}
            )
            async with asyncio.timeout(DEADLINE):
                async for page in tail:
                    if page and data(page)[-1].startswith(f"{run}.2"):
                        break
            process.kill()
            await process.wait()
            ((_, position),) = await broker.append(batch("mine"))
            assert data(await broker.read(position - 1, max_entries=1)) == ["mine"]


async def test_a_socket_that_was_left_behind_is_removed(path: Path, make: Open) -> None:
    broker = await make()
    left = path.with_name("events.db-wake") / "left"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as dead:
        dead.bind(str(left) if len(str(left)) < 100 else os.path.relpath(left))
    assert left.exists()
    await broker.append(batch("a"))
    assert not left.exists()
    await broker.close()
    assert list(left.parent.iterdir()) == []


# Others who hold the file.


async def test_while_another_process_writes_publishing_waits_and_reading_does_not(path: Path, make: Open) -> None:
    broker = await make(broker_timeout=0.5)
    await broker.append(batch("a"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerError, match=r"another process keeps the database locked; nothing was published$"):
            await broker.append(batch("b"))
        patient = await make()
        waiting = asyncio.create_task(patient.append(batch("c")))
        assert data(await read_all(patient)) == ["a"]
        assert (await broker.bounds()).newest == 1
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert (await waiting)[0].position == 2


async def come_and_go(broker: Broker) -> None:
    """Publish some mebibytes, and drop what was there before."""
    newest = (await broker.append(batch(*["x" * 900 * KiB] * 4)))[0].position - 1
    await broker.drop(range(newest - 3, newest + 1), {}, newest)


async def test_the_log_is_cut_when_a_reader_no_longer_holds_it(path: Path, make: Open) -> None:
    broker, log = await make(), path.with_name("events.db-wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM history").fetchall()
        while log.stat().st_size < 70 * MiB:
            await come_and_go(broker)
        other.execute("ROLLBACK")
    await broker.trim()
    await broker.append(batch("a"))
    assert log.stat().st_size < MiB
    assert path.stat().st_size < 20 * MiB


async def test_the_log_stays_small_while_tails_read(path: Path, make: Open) -> None:
    broker = await make()
    async with asyncio.timeout(DEADLINE), aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
        for _ in range(30):
            await come_and_go(broker)
            await page_of(tail)
    assert path.with_name("events.db-wal").stat().st_size < 20 * MiB
    assert path.stat().st_size < 40 * MiB


# A file that goes, and a disk that is full.


async def test_when_the_file_is_deleted_another_history_begins(path: Path, make: Open) -> None:
    broker, other = await make(), await make()
    await broker.append(batch("a", "b"))
    before = await broker.bounds()
    async with aclosing(other.tail(0)) as tail:  # type: ignore[type-var]
        await page_of(tail)
        for name in ("events.db", "events.db-wal", "events.db-shm"):
            path.with_name(name).unlink()
        assert (await broker.append(batch("c")))[0].position == 1
        with pytest.raises(BrokerError, match="another timeline of the history has begun, or another history"):
            async with asyncio.timeout(DEADLINE):
                await page_of(tail)
    after = await other.bounds()
    assert after.epoch != before.epoch
    assert data(await read_all(other)) == ["c"]
    await broker.close()
    await other.close()
    check(path)


@pytest.mark.parametrize("gone", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids="".join)
async def test_when_the_log_is_deleted_nothing_of_it_is_lost(path: Path, make: Open, gone: list[str]) -> None:
    one, two = await make(), await make()
    await one.append(batch("a", "b"))
    epoch = (await two.bounds()).epoch
    for suffix in gone:
        path.with_name(f"events.db{suffix}").unlink()
    stored = [await broker.append(batch(text)) for broker, text in ((one, "c"), (two, "d"), (one, "e"))]
    assert [one_of[0].position for one_of in stored] == [3, 4, 5]
    for broker in (one, two, await make()):
        assert data(await read_all(broker)) == ["a", "b", "c", "d", "e"]
        assert (await broker.bounds()).epoch == epoch
    assert sorted(beside.name for beside in path.parent.iterdir() if beside.is_file()) == [
        "events.db",
        "events.db-hubs",
        "events.db-shm",
        "events.db-wal",
    ]
    await one.close()
    await two.close()
    check(path)


@pytest.mark.parametrize("how", ["moved", "copied"])
async def test_a_tail_is_told_that_an_older_state_has_taken_the_place_of_the_file(
    path: Path, make: Open, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await make(), await make()
    await one.append(batch("a", "b"))
    backup = save(path)
    await one.append(batch("c"))
    async with aclosing(two.tail(0)) as tail:  # type: ignore[type-var]
        await page_of(tail)
        restore(path, backup, how)
        await two.append(batch("x"))
        with pytest.raises(BrokerError, match="another timeline of the history has begun"):
            async with asyncio.timeout(DEADLINE):
                while True:
                    await anext(tail)
    await one.append(batch("y"))
    for broker in (one, two):
        await broker.bounds()
        assert data(await read_all(broker)) == ["a", "b", "x", "y"]
    assert sum("older state" in line for line in caplog.messages) == 1


# Backups that are restored.


def save(path: Path) -> Path:
    """A backup of a database, as the command `.backup` of SQLite's shell makes it."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    return backup


def restore(path: Path, backup: Path, how: str) -> None:
    """Put a backup in the place of the database, open or not; with `beside`, beside the log of the one before."""
    if how != "beside":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if how == "copied":
        shutil.copy(backup, path)
    else:
        backup.rename(path)


def descriptors() -> Counter[str]:
    """What this process has open."""
    names: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names[os.readlink(f"/proc/self/fd/{name}")] += 1
    return names


@pytest.mark.parametrize("how", ["moved", "beside", "copied"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
async def test_a_restored_backup_goes_on_under_another_name(path: Path, make: Open, how: str, up: bool) -> None:
    opened = descriptors()
    brokers = [await make(), await make()]
    given = await brokers[0].append(batch("a", "b", ids=[None, "mine"]))
    before = await brokers[0].bounds()
    backup = save(path)
    given += await brokers[0].append(batch("c", "d")) + await brokers[1].append(batch("e"))
    if not up:
        for broker in brokers:
            await broker.close()
    restore(path, backup, how)
    if not up:
        brokers = [await make(), await make()]
    stored = [one for broker in brokers for one in await broker.append(batch("x", "y"))]
    assert positions(stored) == [3, 4, 5, 6]
    assert not {one.id for one in given} & {one.id for one in stored}
    for broker in [*brokers, late := await make()]:
        bounds = await broker.bounds()
        assert bounds.timelines == ((before.epoch, 2),)
        assert {one.id for one in stored} == {f"{bounds.epoch}-{position}" for position in (3, 4, 5, 6)}
        assert data(await read_all(broker)) == ["a", "b", "x", "y", "x", "y"]
        assert [await broker.find(one.id) for one in given] == [1, 2, None, None, None]
    for broker in [*brokers, late]:
        await broker.close()
    assert descriptors() - opened == Counter()
    check(path)


async def test_who_only_publishes_gives_no_position_of_a_restored_backup_again(
    path: Path, url: str, make: Open
) -> None:
    hub = await make()
    given = await hub.append(batch("a", "b"))
    before = (await hub.bounds()).epoch
    backup = save(path)
    await hub.close()
    async with AsyncPublisher(url) as publisher:  # which no hub has seen
        given_ids = [one.id for one in given] + [await publisher.publish("news", text) for text in "cd"]
    restore(path, backup, "moved")
    async with AsyncPublisher(url) as publisher:
        given_ids += [await publisher.publish("news", text) for text in "xy"]
    assert len(set(given_ids)) == 6
    assert (await (await make()).bounds()).timelines[0] == (before, 2)


KILLED = """
import asyncio, sqlite3, sys
from contextlib import closing
from ssepool.brokers import connect
from ssepool.config import HubConfig
from histories import batch

async def main(url, path):
    broker = connect(HubConfig(broker=url))
    await broker.open()
    await broker.append(batch(*["a" * 1000] * 20))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(path + ".backup")) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    for _ in range(10):
        await broker.append(batch(*["b" * 1000] * 100))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await broker.append(batch(*["c" * 1000] * 20))  # only the log has these, and lacks what they stand on in the backup
    print((await broker.bounds()).epoch, flush=True)
    while True:
        await asyncio.sleep(0.1)
        await broker.bounds()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("up", [True, False], ids=["up", "killed"])
async def test_a_backup_is_not_spoilt_by_the_log_of_the_file_in_whose_place_it_is_put(
    path: Path, url: str, make: Open, up: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(path)], stdout=subprocess.PIPE, text=True, env=WITH_TESTS
    ) as process:
        assert process.stdout is not None
        try:
            epoch = (await asyncio.to_thread(process.stdout.readline)).strip()
            if not up:
                process.kill()
                process.wait()
            assert path.with_name("events.db-wal").stat().st_size > 20_000
            path.with_name("events.db.backup").rename(path)
            brokers = await asyncio.gather(*(make() for _ in range(3)))
            for broker in brokers:
                bounds = await broker.bounds()
                assert bounds.timelines == ((epoch, 20),)
                assert {text[0] for text in data(await read_all(broker))} <= {"a", "x"}
                await broker.append(batch("x"))
            assert [entry.position for entry in await read_all(broker, 20)] == [21, 22, 23]
            check(path)
        finally:
            process.kill()
    for broker in brokers:
        await broker.close()
    check(path)


async def test_a_backup_of_a_timeline_long_ago_is_known_for_what_it_is(path: Path, make: Open) -> None:
    broker = await make()
    given = await broker.append(batch("a", "b"))
    epochs = [(await broker.bounds()).epoch]
    backup = save(path)
    for text in "cde":
        given += await broker.append(batch(text))
        epochs.append((await broker.renew(epochs[-1])).epoch)
    await broker.close()
    broker = await make()  # which has seen nothing of the first timeline but its name
    given += await broker.append(batch("f"))
    restore(path, backup, "moved")
    stored = await broker.append(batch("x", "y", "z"))
    assert not {one.id for one in given} & {one.id for one in stored}
    assert (await broker.bounds()).timelines == ((epochs[0], 2),)


async def test_who_opens_a_restored_backup_before_others_notice_gives_no_position_again(path: Path, make: Open) -> None:
    seldom, often = await make(), await make()
    given = await often.append(batch("a", "b"))
    await seldom.append(batch("c"))
    given += await often.append(batch("d"))
    backup = save(path)
    given += await often.append(batch("e", "f"))
    restore(path, backup, "moved")
    new = await make()  # it is not alone, and has not seen anything
    given += await new.append(batch("x"))
    restore(path, save(path), "moved")
    given += await seldom.append(batch("y"))  # which has seen less than is in the backup
    given += await often.append(batch("z"))
    assert len({one.id for one in given}) == len(given)
    assert len({(await broker.bounds()).timelines for broker in (seldom, often, new)}) == 1


async def test_who_has_seen_less_than_the_backup_has_gives_no_position_again(path: Path, make: Open) -> None:
    seldom, often = await make(), await make()
    given = await seldom.append(batch("a")) + await often.append(batch("b", "c"))
    backup = save(path)
    given += await often.append(batch("d", "e"))
    restore(path, backup, "moved")
    given += await seldom.append(batch("x", "y"))
    assert len({one.id for one in given}) == 7


# Who has the file open.

FORKING = """
import asyncio, os, sys, time
from ssepool.brokers import connect
from ssepool.config import HubConfig
from histories import batch

async def main(url):
    broker = connect(HubConfig(broker=url))
    await broker.open()
    await broker.append(batch("a"))
    child = os.fork()
    if not child:
        time.sleep(3600)
    print((await broker.bounds()).epoch, child, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_child_that_was_forked_does_not_have_it_open(url: str, make: Open) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, url], stdout=subprocess.PIPE, text=True, env=WITH_TESTS
    ) as process:
        assert process.stdout is not None
        epoch, child = (await asyncio.to_thread(process.stdout.readline)).split()
        try:
            broker = await make()
            assert (await broker.bounds()).epoch == epoch
            await broker.close()
            process.kill()
            await asyncio.to_thread(process.wait)
            os.kill(int(child), 0)  # it lives
            assert (await (await make()).bounds()).timelines == ((epoch, 1),)
        finally:
            process.kill()
            os.kill(int(child), signal.SIGKILL)


async def test_where_the_file_of_openers_is_gone_or_no_good_a_timeline_more_is_all(
    path: Path, make: Open, caplog: pytest.LogCaptureFixture
) -> None:
    beside = path.with_name("events.db-hubs")
    one = await make()
    await one.append(batch("a"))
    before = (await one.bounds()).epoch
    beside.unlink()
    two = await make()
    beside.unlink()
    beside.mkdir()
    assert caplog.messages == []
    three = await make()
    assert caplog.messages == [f"cannot tell whether others have {path} open: Is a directory"]
    epochs = [(await three.bounds()).epoch for _ in range(3)]
    for text, broker in zip("bcd", (one, two, three), strict=True):
        await broker.append(batch(text))
        assert (await broker.bounds()).epoch == epochs[0]
    timelines = (await one.bounds()).timelines
    assert (len(timelines), timelines[0].epoch) == (2, before)
    assert data(await read_all(one)) == ["a", "b", "c", "d"]


async def test_who_opens_it_and_does_not_get_on_holds_up_others_no_longer_than_they_wait(
    path: Path, make: Open
) -> None:
    await (await make()).append(batch("a"))
    other = Openers(path)
    assert other.enter() is False
    other.leave()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Openers, "enter", lambda self: None)
        with pytest.raises(BrokerError, match="another process is about to open the database, and does not get on"):
            await make(broker_timeout=0.2)
    assert (await (await make()).bounds()).timelines == ()


def test_one_at_a_time_finds_itself_alone(path: Path) -> None:
    path.touch()
    one, two, three = Openers(path), Openers(path), Openers(path)
    assert one.enter() is True
    assert two.enter() is None  # until the first has looked at the history
    one.settle()
    assert two.enter() is False
    one.leave()
    assert three.enter() is False
    for openers in (two, three, three):
        openers.leave()
    assert one.enter() is True
    one.leave()


def test_a_broker_knows_by_itself_what_it_has_seen(path: Path) -> None:
    seen = Seen(Openers(path))
    first, second = Timelines("aaaaaaaa"), Timelines("bbbbbbbb", [Timeline("aaaaaaaa", 4)])
    seen.note(second, 6)
    seen.note(second, 5)  # somebody is slow
    assert not seen.is_behind(second, 6)
    assert seen.is_behind(second, 5)
    assert seen.is_behind(first, 1000)  # it has ended
    assert not seen.is_behind(Timelines("cccccccc"), 1)
    assert not seen.is_behind(first, 0)
    for number in range(MAX_SEEN):
        seen.note(Timelines(f"{number:08x}"), 1)
    assert seen.is_behind(Timelines(f"{MAX_SEEN - 1:08x}"), 0) is seen.is_behind(second, 1) is False


def test_openers_of_another_name_of_the_file_are_the_same(path: Path) -> None:
    path.touch(0o640)
    path.chmod(0o640)
    path.with_name("other.db").symlink_to(path)
    one, other = Openers(path), Openers(path.with_name("other.db"))
    assert one.enter() is True
    one.settle()
    assert other.enter() is False
    assert modes(path)["events.db-hubs"] == 0o640  # as the files that SQLite puts beside it
    one.mark("00c0ffee", 10**19)
    assert other.marked() == ("00c0ffee", 10**19)
    other.mark("00c0ffee", 5)
    assert one.marked() == ("00c0ffee", 10**19)
    other.mark("11c0ffee", 5)
    assert one.marked() == ("11c0ffee", 5)
    one.leave()
    other.leave()
    assert one.marked() is None


async def test_events_that_are_stored_while_somebody_looks_are_no_older_state(
    make: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await make()
    await broker.append(batch("a"))
    epoch = (await broker.bounds()).epoch
    look, has_looked, may_go_on = history.History._bounds, threading.Event(), threading.Event()

    def slowly(self: history.History) -> Bounds:
        found = look(self)
        has_looked.set()
        assert may_go_on.wait(DEADLINE)
        return found

    monkeypatch.setattr(history.History, "_bounds", slowly)
    looking = asyncio.create_task(broker.bounds())
    assert await asyncio.to_thread(has_looked.wait, DEADLINE)
    await broker.append(batch("b"))  # the other thread of this broker, which has seen more now
    may_go_on.set()
    bounds = await looking
    assert (bounds.epoch, bounds.newest) == (epoch, 2)
    assert caplog.messages == []


async def test_what_is_moved_away_is_whole_and_nothing_of_it_gets_into_the_next(path: Path, make: Open) -> None:
    one, two = await make(), await make()
    await one.append(batch("a", "b"))
    path.rename(path.with_name("away.db"))
    for broker, text in ((one, "c"), (two, "d")):
        await broker.append(batch(text))
    assert data(await read_all(await make())) == ["c", "d"]
    path.with_name("away.db").rename(path)
    assert data(await read_all(await make())) == ["a", "b"]


async def test_a_file_that_we_must_not_look_at_any_more_is_an_error_of_the_broker(
    make: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await make()

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "identity", refuse)
    for question in (broker.append(batch("a")), broker.read(0, max_entries=1), broker.bounds(), broker.trim()):
        with pytest.raises(BrokerError, match=r"events\.db: Permission denied$"):
            await question
    monkeypatch.undo()
    assert (await broker.append(batch("a")))[0].position == 1


async def test_a_file_that_is_spoilt_is_an_error_that_says_so(path: Path, make: Open) -> None:
    await (await make()).append(batch(*["x" * 1000] * 100))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(12 * KiB)  # behind the pages that say which tables there are
        file.write(random.randbytes(size - 12 * KiB))
    with pytest.raises(BrokerError, match=r"events\.db: database disk image is malformed$"):
        await make()
    broker = connect(HubConfig(broker=f"sqlite:///{path}"))
    for question in (broker.bounds(), broker.append(batch("a"))):
        with pytest.raises(BrokerError, match=r"events\.db: database disk image is malformed$"):
            await question
    await broker.close()


async def test_when_the_directory_is_deleted_publishing_fails_until_it_is_there_again(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    broker = connect(HubConfig(broker=f"sqlite:///{directory}/events.db"))
    await broker.open()
    shutil.rmtree(directory)
    with pytest.raises(BrokerError, match=f"cannot be made: there is no directory {directory}"):
        await broker.append(batch("a"))
    directory.mkdir()
    assert (await broker.append(batch("a")))[0].position == 1
    await broker.close()


@pytest.fixture
async def on_small_disk(small_disk: Path) -> AsyncIterator[Broker]:
    broker = connect(HubConfig(broker=f"sqlite:///{small_disk}/events.db"))
    await broker.open()
    yield broker
    await broker.close()


async def test_a_full_disk_fails_publishing_until_there_is_room_again(small_disk: Path, on_small_disk: Broker) -> None:
    broker, ballast = on_small_disk, small_disk / "ballast"
    ballast.write_bytes(bytes(6 * MiB))
    stored = 0
    with pytest.raises(BrokerError, match=r"events\.db: the disk is full; nothing was published$"):
        while True:
            stored = (await broker.append(batch(*["x" * 100 * KiB] * 3)))[-1].position
    for _ in range(3):
        with pytest.raises(BrokerError, match=r"the disk is full; nothing was published$"):
            await broker.append(batch(*["x" * 100 * KiB] * 3))
    assert stored > 0
    assert (await broker.bounds()).newest == stored
    assert len(await read_all(broker)) == stored
    ballast.unlink()
    assert (await broker.append(batch("a")))[0].position == stored + 1
    await broker.close()
    check(small_disk / "events.db")


async def test_a_disk_that_cannot_be_written_is_refused(small_disk: Path, on_small_disk: Broker) -> None:
    await on_small_disk.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("events.db", "new.db"):
        assert (await refused(f"sqlite:///{small_disk}/{name}")).startswith(
            f"the SQLite database {small_disk}/{name} cannot be written: "
        )


# What is kept.


async def test_what_has_been_dropped_leaves_no_rows(path: Path, make: Open) -> None:
    broker = await make()
    for turn in range(20):
        last = (await broker.append(batch("a", "b", ids=[f"{turn}"], topics=[f"room/{turn}"])))[-1].position
        await broker.drop([last - 1, last], {f"room/{turn}": Cut(last)}, last - 2)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(0,)]
        assert connection.execute("SELECT * FROM cuts").fetchall() == [("room/19", 40, 0)]
        ((_, *numbers),) = connection.execute("SELECT * FROM history")
        assert numbers == [40, 0, 38, "[]"]


async def test_messages_are_deleted_after_a_while(path: Path, make: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MESSAGE_SECONDS", 0.05)
    broker = await make()
    await broker.send(b"x")

    async def is_deleted() -> bool:
        await broker.trim()
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("SELECT count(*) FROM messages").fetchall() == [(0,)]

    await until(is_deleted)
    async with aclosing(broker.messages()) as messages:  # type: ignore[type-var]
        heard = asyncio.create_task(anext(messages))
        async with asyncio.timeout(DEADLINE):
            while not heard.done():  # its number must be none that was used before
                await broker.send(b"y")
                await asyncio.sleep(0.02)
        assert heard.result() == b"y"


# The notifier, and closing.


@pytest.mark.parametrize("depth", [0, 5])
async def test_a_notifier_is_heard_by_all_in_any_directory(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["long" * 20] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    heard = [asyncio.Event() for _ in range(3)]
    notifiers = [Notifier(directory / "wake") for _ in heard]
    for notifier, event in zip(notifiers, heard, strict=True):
        notifier.open(event.set)
    for notifying in notifiers:
        for event in heard:
            event.clear()
        await asyncio.to_thread(notifying.notify)
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(event.wait() for event in heard))
    for notifier in notifiers:
        notifier.close()
        notifier.notify()
        notifier.close()
    assert list((directory / "wake").iterdir()) == []


async def test_a_notifier_that_nobody_answers_does_not_block_the_one_that_notifies(tmp_path: Path) -> None:
    notifier = Notifier(tmp_path)
    notifier.open(lambda: None)
    for _ in range(10_000):  # more than a socket can hold
        notifier.notify()
    notifier.close()


async def test_tails_and_listeners_need_not_look_where_a_notifier_is_heard(
    make: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3600)
    one, two = await make(), await make()
    async with aclosing(one.tail(0)) as tail, aclosing(one.messages()) as messages:  # type: ignore[type-var]
        for text in ("a", "b", "c"):
            page, message = asyncio.create_task(page_of(tail)), asyncio.create_task(anext(messages))
            await asyncio.sleep(0.05)  # they have looked by now
            await two.append(batch(text))
            async with asyncio.timeout(DEADLINE):
                assert data(await page) == [text]
                while not message.done():  # the first ones come before it listens
                    await two.send(b"hello")
                    await asyncio.sleep(0.02)


async def test_without_a_notifier_tails_look_by_themselves(path: Path, make: Open) -> None:
    path.with_name("events.db-wake").write_text("no directory")
    one, two = await make(), await make()
    async with aclosing(one.tail(0)) as tail:  # type: ignore[type-var]
        page = asyncio.create_task(page_of(tail))
        await two.append(batch("a"))
        async with asyncio.timeout(DEADLINE):
            assert data(await page) == ["a"]


async def test_a_closed_broker_says_so(make: Open) -> None:
    broker = await make()
    await broker.close()
    for question in (broker.append(batch("a")), broker.read(0, max_entries=1), broker.bounds(), broker.trim()):
        with pytest.raises(BrokerError, match=r"events\.db is closed$"):
            await question
