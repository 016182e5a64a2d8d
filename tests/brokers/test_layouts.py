"""Histories that the version before timelines and cuts has left: each kind of broker takes one over, whole.

What is written here is what that version wrote: four events and four more of one batch each, and one; of these the
first three dropped, where it dropped them at once; and a fact.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from nats.aio.client import Client
from redis.asyncio import Redis

from histories import DROPPING, Open, batch, data, read_all
from service_fixtures import Get
from services.postgres import USER
from ssepool.brokers.sqlite.broker import path_of
from ssepool.core.cut import Cut
from ssepool.errors import IdConflict

EPOCH = "08eaf555"
AT = 1_795_849_410

A_DIGEST, B_DIGEST, O_DIGEST = (
    "19fba0e995b9794fc2c26217bf3b725c",
    "abc0e3473da029eeacbe4e0172aba36c",
    "008f0747f4e27c8462baa991a538025b",
)
A_CONTENT, B_CONTENT, O_CONTENT = (
    "a81a305a073f7a168984b70359211262",
    "04dbce53a67bdab26684032f103b260b",
    "f1795d461db830d620479102029350b6",
)
EVENTS: list[tuple[str | None, list[str], str, bool, str | None]] = [
    *((None, ["news"], f"data: old{number}\n\n", False, None) for number in range(4)),
    ("mine", ["news"], "data: a\n\n", False, A_DIGEST),
    ("mine", ["zürich", "a b"], "data: b\n\n", False, B_DIGEST),
    (None, [], "event: t\ndata: c\n\n", False, None),
    (None, ["news"], "data: d\n\n", True, None),
    ("o.1", ["quiet"], "retry: 900\ndata: e\n\n", False, O_DIGEST),
]
"""Id, topics, frame, whether private, and the digest of the topics of a chosen id."""

SQLITE = f"""
CREATE TABLE history (epoch TEXT NOT NULL, newest INTEGER NOT NULL, oldest INTEGER NOT NULL, bytes INTEGER NOT NULL,
    cleared INTEGER NOT NULL, present INTEGER NOT NULL);
CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, at REAL NOT NULL, size INTEGER NOT NULL,
    private INTEGER NOT NULL, topics TEXT NOT NULL, frame BLOB NOT NULL, claim TEXT);
CREATE INDEX events_id ON events (id) WHERE id IS NOT NULL;
CREATE INDEX events_claim ON events (claim) WHERE claim IS NOT NULL;
CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, message BLOB NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, until REAL NOT NULL, data BLOB NOT NULL);
CREATE INDEX facts_until ON facts (until);
INSERT INTO facts VALUES ('before', 1795849410354919, 9e9, x'01');
INSERT INTO history VALUES ('{EPOCH}', 9, 3, 439, 0, 664);
PRAGMA application_id = 0x53534550;
PRAGMA user_version = 3;
"""

POSTGRES = """
CREATE TABLE "{name}_log" (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL, epoch text NOT NULL,
    newest bigint NOT NULL DEFAULT 0, oldest bigint NOT NULL DEFAULT 0,
    ends bigint NOT NULL DEFAULT 0, begins bigint NOT NULL DEFAULT 0
);
CREATE TABLE "{name}_events" (
    position bigint PRIMARY KEY, id text, topics text[] NOT NULL, private boolean NOT NULL, frame bytea NOT NULL,
    start bigint NOT NULL, at timestamptz NOT NULL, claim text
);
CREATE UNLOGGED TABLE "{name}_messages" (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), message bytea NOT NULL, at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE "{name}_facts" (
    name text PRIMARY KEY, number bigint NOT NULL UNIQUE, until timestamptz NOT NULL, data bytea NOT NULL
);
INSERT INTO "{name}_log" VALUES (true, 3, '08eaf555', 9, 3, 700, 230);
INSERT INTO "{name}_facts" VALUES ('before', 1795849410354919, '2250-01-01', '\\x01');
"""

NATS = [
    (
        "log",
        b"\x9c\xa808eaf555\x00\x00\x04\xcc\xfd\x00\x01\x00\xc4]\x94\x94\xc4\x0cdata: old0\n\n\x91\xa4news\xc2\xc0\x94"
        b"\xc4\x0cdata: old1\n\n\x91\xa4news\xc2\xc0\x94\xc4\x0cdata: old2\n\n\x91\xa4news\xc2\xc0\x94\xc4\x0cdata: "
        b"old3\n\n\x91\xa4news\xc2\xc0\xa0\xc0\xc2",
    ),
    (
        f"id.mine.{A_DIGEST}",
        b"\x9c\xa808eaf555\x04\xcc\xfd\x04\xcd\x01\x04\x00\x02\x05\xc4d\x94\x94\xc4\tdata: a\n\n\x91\xa4news\xc2"
        b"\xa4mine\x94\xc4\tdata: b\n\n\x92\xa7z\xc3\xbcrich\xa3a b\xc2\xa4mine\x94\xc4\x12event: t\ndata: c\n\n"
        b"\x90\xc2\xc0\x94\xc4\tdata: d\n\n\x91\xa4news\xc3\xc0\xd9 a81a305a073f7a168984b70359211262\x91\xa4news\xc2",
    ),
    (
        f"id.mine.{B_DIGEST}",
        b"\x9c\xa808eaf555\x04\xcc\xfd\x04\xcd\x01\x04\x01\x02\x06\xc4\x00\xd9 04dbce53a67bdab26684032f103b260b"
        b"\x92\xa7z\xc3\xbcrich\xa3a b\xc2",
    ),
    (
        f"id.o%2E1.{O_DIGEST}",
        b"\x9c\xa808eaf555\x08\xcd\x02\x01\x01L\x00\x01\t\xc4$\x91\x94\xc4\x14retry: 900\ndata: e\n\n\x91\xa5quiet\xc2"
        b"\xa3o.1\xd9 f1795d461db830d620479102029350b6\x91\xa5quiet\xc2",
    ),
]


def _sqlite(url: str, name: str, services: Get) -> None:
    with closing(sqlite3.connect(path_of(url))) as connection:
        connection.executescript(SQLITE)
        for place, (id, topics, frame, private, digest) in enumerate(EVENTS, 1):
            claim = f"{id} {digest}" if id else None
            text = "[" + ",".join(f'"{topic}"' for topic in topics) + "]"
            row = (place, id, AT + place, 73, private, text, frame.encode(), claim)
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.commit()


def _postgres(url: str, name: str, services: Get) -> None:
    postgres: Any = services("postgres")
    postgres.execute(POSTGRES.format(name=name), database=USER)
    for part in ("log", "events", "messages", "facts"):
        postgres.execute(f'ALTER TABLE "{name}_{part}" OWNER TO "{USER}"', database=USER)
    for place, (id, topics, frame, private, digest) in enumerate(EVENTS, 1):
        claim = f"'{id} {digest}'" if id else "NULL"
        array = "ARRAY[" + ", ".join(f"'{topic}'" for topic in topics) + "]::text[]"
        postgres.execute(
            f'INSERT INTO "{name}_events" VALUES ({place}, {f"{chr(39)}{id}{chr(39)}" if id else "NULL"}, {array}, '
            f"{private}, '\\x{frame.encode().hex()}', {70 * place}, to_timestamp({AT + place}), {claim})",
            database=USER,
        )


async def _redis(url: str, name: str, services: Get) -> None:
    async with Redis.from_url(url.partition("?")[0]) as client:

        def key(part: str) -> str:
            return f"{{{name}}}:{part}"

        for place, (id, topics, frame, private, digest) in enumerate(EVENTS, 1):
            if place <= 3:
                continue
            fields = {"record": _record(frame, topics, private, id), "time": 1000 * (AT + place)}
            await client.xadd(key("log"), fields | ({"id": id} if id else {}), f"{place}-{int(EPOCH, 16)}")
            if id:
                content = {5: A_CONTENT, 6: B_CONTENT, 9: O_CONTENT}[place]
                await client.hset(key("claims"), f"{id} {digest}", f"{place} {content}")
                await client.zadd(key("places"), {f"{id} {place:016d} {digest}": 0})
        state = {"epoch": EPOCH, "newest": 9, "oldest": 3, "events": 6, "bytes": 400}
        await client.hset(key("state"), mapping=state)
        await client.hset(key("facts"), "before", b"\x01")
        await client.zadd(key("fact-ends"), {"before": 9e12})
        await client.zadd(key("fact-order"), {"before": 1795849410354919})


def _record(frame: str, topics: list[str], private: bool, id: str | None) -> bytes:
    """A record in MessagePack, of the four fields that it had."""

    def text(value: str) -> bytes:
        coded = value.encode()
        return bytes([0xA0 + len(coded)]) + coded

    bytes_ = frame.encode()
    head = b"\x94\xc4" + bytes([len(bytes_)]) + bytes_ + bytes([0x90 + len(topics)])
    return head + b"".join(map(text, topics)) + (b"\xc3" if private else b"\xc2") + (text(id) if id else b"\xc0")


async def _nats(url: str, name: str, services: Get) -> None:
    async with Client() as client:
        await client.connect(url.partition("?")[0])
        js: Any = client.jetstream()
        await js.add_stream(name=name, subjects=[f"{name}.{EPOCH}.>"])
        for place, (subject, content) in enumerate(NATS):
            await js.publish(f"{name}.{EPOCH}.{subject}", content, headers={"Nats-Expected-Last-Sequence": str(place)})
        await js.add_stream(name=f"{name}_facts", subjects=[f"{name}.facts.>"], max_msgs_per_subject=1)
        await js.publish(f"{name}.facts.before", b"A\xf0\x00\x00\x00\x00\x00\x00\x01")  # until far in the future


WRITERS = {"sqlite": _sqlite, "redis": _redis, "postgres": _postgres, "nats": _nats}


@pytest.mark.parametrize("kind", DROPPING)
async def test_what_the_version_before_has_left_is_taken_over(kind: str, url: str, make: Open, services: Get) -> None:
    written = WRITERS[kind](url, url.partition("name=")[2], services)
    if written is not None:
        await written
    first = 1 if kind == "nats" else 4  # there what was dropped of a batch stays as long as the rest of it
    for turn in range(2):  # also when it is opened again
        broker = await make()
        bounds = await broker.bounds()
        assert (bounds.oldest, bounds.newest, bounds.floor) == (first - 1, 9 + turn, first - 1)
        assert bounds.epoch != EPOCH
        assert bounds.timelines[0] == (EPOCH, 9)
        entries = await read_all(broker)
        assert [entry.position for entry in entries] == list(range(first, 10 + turn))
        for entry in entries[: 9 - first + 1]:
            id, topics, _, private, _ = EVENTS[entry.position - 1]
            assert (entry.id, entry.topics, entry.private) == (
                id or f"{EPOCH}-{entry.position}",
                tuple(topics),
                private,
            )
            assert kind == "nats" or entry.at == AT + entry.position
        assert data(entries)[4 - first :][:6] == ["old3", "a", "b", "c", "d", "e"]
        assert await broker.find("mine", lambda topics, private: topics == ("news",)) == 5
        assert await broker.find("o.1") == 9
        assert await broker.find(f"{EPOCH}-7") == 7
        assert [fact.name for fact in await broker.kept()] == ["before"]
        again = [*batch("a", ids=["mine"]), *batch("b", ids=["mine"], topics=["a b", "zürich"])]
        assert [one.position for one in await broker.append(again)] == [5, 6]
        with pytest.raises(IdConflict):
            await broker.append(batch("other", ids=["mine"]))
        if not turn:
            assert await broker.append(batch("new")) == [(f"{bounds.epoch}-10", 10)]
        await broker.close()
    last = await make()
    await last.drop([4, 5, 6, 7, 8], {"news": Cut(5, 8)}, 0)
    assert data(await read_all(last))[-2:] == ["e", "new"]
    assert await last.cuts() == [("news", Cut(5, 8))]
