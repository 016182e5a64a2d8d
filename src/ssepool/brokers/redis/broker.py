"""Events in Redis or Valkey: one stream for all hubs that name the same server."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from ssepool.brokers.base import (
    PAGE_CUTS,
    PAGE_FACTS,
    PAGE_PLACES,
    Bounds,
    Broker,
    Fact,
    Kept,
    Place,
    Stored,
    Wants,
    anything,
    assign,
    first_of_each,
    first_wanted,
    new_epoch,
)
from ssepool.brokers.record import (
    STORED_BYTES,
    UNREADABLE_ERRORS,
    Record,
    entry_of,
    pack,
    topics_digest,
    unpack,
    unreadable,
)
from ssepool.brokers.redis import scripts
from ssepool.brokers.redis.address import address
from ssepool.brokers.redis.openers import Openers
from ssepool.brokers.redis.server import UNSURE, Server
from ssepool.config import HubConfig, MiB
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.core.timelines import MAX_TIMELINES, Timeline
from ssepool.errors import BrokerError

packed = msgspec.msgpack.Encoder().encode
"""What scripts are told in one argument, as MessagePack."""

logger = logging.getLogger("ssepool")

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Bytes of records of a page, approximately."""

MAX_POSITION = 2**53
"""No history comes to this position; scripts count as far as this."""

SAY_SECONDS = 0.5
"""Seconds before `broker_timeout` at which replicas are waited for no longer, so that it can be said how many they are;
the server looks ten times a second."""

BLOCK_SECONDS = 5
"""Seconds that the server lets a tail wait for a new entry before it answers that there is none."""

SLICE_ENTRIES = 1000
"""Chosen ids of the layout before that are taken over in one step."""

SLICE_BYTES = 8 * MiB
"""Bytes of records that one script drops at most, where each entry counts for 16 KiB more: in some milliseconds, in
which the server does nothing else."""

MADE_ID_PATTERN = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,18})")
"""An id that the broker made: the epoch and the position."""


class RedisBroker(Broker):
    """Keeps events in Redis 6.2 or newer, or in Valkey: `redis://user:password@host:port/db?name=ssepool`, and
    `rediss://` or `valkeys://` with TLS. Hubs with the same `name` share a history; `name` also begins all keys.

    *Durability* depends on the server's settings. With `appendonly yes` and `appendfsync always` nothing acknowledged
    is lost in a crash. With `appendfsync everysec` about a second of events may be lost, without the append-only file
    all events since the last snapshot, and in a failover those that had not reached the new primary. With `?wait=N` an
    event is acknowledged when N replicas have it in their memory (`WAIT`); if they do not within `broker_timeout`, the
    append fails, and its events may be published or not. A failover to one of these N loses nothing acknowledged; one
    to another replica may, because nobody but who fails over decides which takes over. A history that has lost
    something goes on under another name. `maxmemory-policy` should be `noeviction`, because an evicted history is lost.

    *Cluster.* All keys have one hash tag, and so are on one node. The URL names that node; redirections are not
    followed.

    *Space.* An entry that is dropped from the middle of the stream is freed when all of its node are (100 entries, or
    4 KiB at most): one that stays alone among many small ones takes up to 4 KiB.
    """

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._address = address(config)
        self._server = Server(self._address, self.url, config.broker_timeout, self._greeting)
        self._ask = self._server.ask
        keys = ("state", "log", "claims", "places", "cuts", "cut-names", "cut-order")
        self._keys = [self._key(key) for key in keys]
        self._state, self._log = self._keys[:2]
        self._facts = [self._key(key) for key in ("facts", "fact-ends", "fact-order")]
        self._old_ids = self._key("ids")
        self._channel = self._key("messages")
        self._openers = Openers(self._server, self._key("open"))
        self._epoch = ""
        """The epoch of the history that `bounds` named last: readers follow this one."""
        self._seen = ("", 0)
        """The epoch and the newest position that the server has ever answered or delivered."""
        script = self._server.client.register_script
        stateful = ("APPEND", "LOOK", "RENEW", "DROP", "FIND", "CLAIM")
        self._append, self._look, self._renew, self._drop, self._find, self._claim = (
            script(scripts.BEGIN + getattr(scripts, name)) for name in stateful
        )
        self._keep, self._kept = script(scripts.FACTS + scripts.KEEP), script(scripts.FACTS + scripts.KEPT)
        self._page, self._cuts = script(scripts.PAGE), script(scripts.CUTS)

    def _key(self, name: str) -> str:
        return f"{{{self._address.name}}}:{name}"

    # Opening and closing.

    async def open(self) -> None:
        is_open = False
        try:
            async with asyncio.timeout(self.config.broker_timeout):
                await self._server.check(self._state, scripts.VERSION)
                await self._take_over()
                await (self._enter() if self.follows else self.bounds())
            is_open = True
        except TimeoutError:
            raise self._server.late(self.config.broker_timeout) from None
        except BrokerError as error:
            raise self._server.refusal(error.__cause__) or error from None
        finally:
            if not is_open:
                await self._openers.leave()

    async def _enter(self) -> None:
        """Begin a new timeline if nobody else has the history open: its end may have been cut off meanwhile."""
        await self._openers.enter()
        *answer, others = await self._ask(self._run(self._renew, "", self._openers.channel))
        bounds = self._named(answer)
        if others > 0:
            await (self.bounds() if await self._openers.anybody(others) else self.renew(bounds.epoch))
        await self._openers.opened(others)

    async def _take_over(self) -> None:
        """Take over the chosen ids of the layout before claims, in which each had one place whatever its topics.

        The one before cuts is taken over by each script.
        """
        client = self._server.client
        left = await self._ask(client.exists(self._old_ids))
        while left:
            some: Any
            _, some = await self._ask(client.hscan(self._old_ids, count=SLICE_ENTRIES))
            claims: list[str] = []
            for id, position in some.items():
                entries: Any = await self._ask(client.xrange(self._log, position, position, count=1))
                record = entries[0][1].get(b"record", b"") if entries else b""
                try:
                    claims += (id.decode(), *_digests(unpack(record)), position.decode())
                except UNREADABLE_ERRORS:
                    claims += (id.decode(), "", "", "0")  # its entry is gone, or says nothing
            left = await self._ask(self._run(self._claim, *claims, keys=[self._old_ids]))

    async def close(self) -> None:
        await self._openers.leave()
        await self._server.client.aclose()

    # Appending.

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        if not records:
            return []
        refuse = self.config.on_duplicate == "refuse"
        given, is_clear = first_of_each(records, refuse=refuse)
        batch: list[str | bytes] = []
        for record in given:
            batch += (record.id or "", *_digests(record), pack(record))
        mode = self.config.on_duplicate if is_clear else "look"
        epoch, lost, after, had = await self._ask(
            self._store(*self._seen, mode, self._address.wait, *batch), writes=True
        )
        if lost:
            logger.error("%s has lost the newest %d events that it had acknowledged", self.url, lost)
        kept = {record.claim or "": _kept(one) for record, one in zip(given, had, strict=True) if one}
        places = assign(records, kept, after, refuse=refuse)
        name = epoch.decode()
        self._note(name, max(places))
        return [Stored(record.id or f"{name}-{place}", place) for record, place in zip(records, places, strict=True)]

    async def _store(self, *args: Any) -> Any:
        """What the script answers, when so many replicas as are wanted have what it wrote."""
        wait = self._address.wait
        if not wait:
            return await self._run(self._append, *args)
        client, script, timeout = self._server.client, self._append, self.config.broker_timeout
        while True:
            pipe = client.pipeline(transaction=False)  # WAIT counts what its own connection wrote
            pipe.evalsha(script.sha, len(self._keys), *self._keys, *self._head(), *args)
            pipe.wait(wait, int(1000 * max(timeout - SAY_SECONDS, timeout / 2)))
            answer, have = await pipe.execute(raise_on_error=False)
            if isinstance(answer, NoScriptError):
                await client.script_load(script.script)
                continue
            for one in (answer, have):
                if isinstance(one, Exception):
                    raise one
            if have < wait:
                raise BrokerError(f"{self.url}: {have} of {wait} replicas have what was written{UNSURE}")
            return answer

    # Reading.

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        epoch = self._epoch
        client = self._server.connect()
        try:
            # Who may read and not wait for news would follow only as often as it fails.
            await self._ask(client.xread({self._log: "$"}, count=1), alone=True)
            is_behind, follows = True, False
            while True:
                if is_behind:
                    entries = await self._read(epoch, after + 1, MAX_POSITION, client=client)
                    is_behind = bool(entries)
                else:  # wait for one entry, not for a page; a second one shows that there are more
                    behind: dict[Any, Any] = {self._log: f"{after}-{2**64 - 1}"}
                    news: Any = await self._ask(
                        client.xread(behind, count=2, block=1000 * BLOCK_SECONDS), wait=BLOCK_SECONDS, alone=True
                    )
                    entries = self._news(epoch, [entry for _, some in news for entry in some])
                    is_behind = len(entries) > 1
                if entries:
                    after = entries[-1].position
                    self._note(epoch, after)
                if entries or not follows:
                    follows = True
                    yield entries
        finally:
            await client.aclose()

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        return await self._read(self._epoch, after + 1, MAX_POSITION, most=max_entries)

    async def fetch(self, positions: Sequence[int]) -> Sequence[Entry]:
        return await self._read(self._epoch, *_ranges(positions), most=max(1, len(positions)))

    async def _read(
        self, epoch: str, *ranges: int, most: int = PAGE_ENTRIES, client: Redis | None = None
    ) -> list[Entry]:
        """A page of the entries in ranges of positions, each the first and the last.

        Raises `BrokerError` if the history has another name than the reader follows.
        """
        asked = self._page(keys=[self._state, self._log], args=[most, PAGE_BYTES, packed(ranges)], client=client)
        name, *page = await self._ask(asked, alone=client is not None)
        if name.decode() != epoch:
            raise self._other_history()
        return [_entry(*one) for one in zip(page[::3], page[1::3], page[2::3], strict=True)]

    def _news(self, epoch: str, items: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
        wanted = b"%d" % int(epoch or "0", 16)
        if any(id.partition(b"-")[2] != wanted for id, _ in items):
            raise self._other_history()
        return [_entry(id, fields.get(b"record", b""), fields.get(b"time", b"")) for id, fields in items]

    def _other_history(self) -> BrokerError:
        return BrokerError(f"{self.url} has begun a new history or timeline")

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        match = MADE_ID_PATTERN.fullmatch(id)
        made = f"{match[2]}-{int(match[1], 16)}" if match else ""

        async def page(after: int) -> list[Place]:
            nonlocal made
            most = (PAGE_PLACES, PAGE_BYTES)
            found, left = await self._ask(self._run(self._find, id, after, *most, made))
            made = left.decode()
            return [_place(position, record) for position, record in zip(found[::2], found[1::2], strict=True)]

        chosen = await first_wanted(page, wants)
        return int(made.partition("-")[0]) if chosen is None and made else chosen

    async def bounds(self) -> Bounds:
        return self._named(await self._ask(self._run(self._look)))

    async def renew(self, epoch: str) -> Bounds:
        *answer, _ = await self._ask(self._run(self._renew, epoch, ""))
        return self._named(answer)

    def _named(self, answer: Sequence[Any]) -> Bounds:
        epoch, oldest, newest, size, floor, before = answer
        timelines = (one.split("-") for one in before.decode().split())
        bounds = Bounds(
            epoch.decode(), oldest, newest, size, tuple(Timeline(name, int(end)) for name, end in timelines), floor
        )
        self._epoch = bounds.epoch
        self._note(bounds.epoch, newest)
        return bounds

    # What is dropped.

    async def trim(self) -> None:
        await self._ask(self._kept(keys=self._facts, args=["+inf", 0]))  # drops the facts whose time is over

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        """As the contract says; entries of many bytes in several steps, of which the first has all cuts."""
        given: list[str | int] = [part for topic, cut in cuts.items() for part in (topic, *cut)]
        left, epoch = positions, self._epoch
        while True:
            told = packed((floor, given, _ranges(left)))
            name, last, forgotten = await self._ask(self._run(self._drop, epoch, SLICE_BYTES, told))
            if name.decode() != epoch:
                raise self._other_history()
            if not last and forgotten < PAGE_CUTS:
                return
            given, left = [], [position for position in left if last and position > last]

    async def cuts(self, after: str = "") -> Sequence[tuple[str, Cut]]:
        start = f"({after}" if after else "-"
        names, cuts = await self._ask(self._cuts(keys=self._keys[4:6], args=[start, PAGE_CUTS]))
        return [(name.decode(), Cut(*map(int, cut.split()))) for name, cut in zip(names, cuts, strict=True)]

    # The side channel.

    async def send(self, message: bytes) -> None:
        await self._ask(self._server.client.publish(self._channel, message))

    async def messages(self) -> AsyncIterator[bytes]:
        async with self._server.subscribed(self._channel) as messages:
            async for message in messages:
                yield message

    # Facts.

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        self._check_fact(name, data)
        given: list[str | bytes | int] = [name, b"=" + data, _number(1000 * seconds), self.max_facts]
        if not await self._ask(self._keep(keys=self._facts, args=given)):
            raise self._full_of_facts()

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        while True:
            page = await self._ask(self._kept(keys=self._facts, args=[after, PAGE_FACTS]))
            facts = [
                Fact(name.decode(), int(number), data[1:])
                for name, number, data in zip(page[::3], page[1::3], page[2::3], strict=True)
                if data
            ]
            if facts or not page:
                return facts
            after = int(page[-2])

    # Scripts.

    async def _run(self, script: Any, *args: Any, keys: Sequence[str] = ()) -> Any:
        return await script(keys=[*self._keys, *keys], args=[*self._head(), *args])

    def _greeting(self) -> tuple[str | int, ...]:
        return "EVAL", scripts.BEGIN + scripts.LOOK, len(self._keys), *self._keys, *self._head()

    def _head(self) -> tuple[str | int, ...]:
        """The first arguments of all scripts with `BEGIN`."""
        return new_epoch(), STORED_BYTES, MAX_TIMELINES

    def _note(self, epoch: str, newest: int) -> None:
        if epoch != self._seen[0] or newest > self._seen[1]:
            self._seen = (epoch, newest)


def _digests(record: Record) -> tuple[str, str]:
    """The digests of the topics and of the content of an event with a chosen id."""
    return ("", "") if record.id is None else (topics_digest(record.topics), record.content)


def _kept(said: bytes) -> Kept:
    position, _, content = said.decode().partition(" ")
    return Kept(int(position), content)


def _place(position: int, data: bytes) -> Place:
    try:
        record = unpack(data)
    except UNREADABLE_ERRORS:
        return Place(position, (), True)  # nobody's
    return Place(position, record.topics, record.private)


def _entry(id: bytes, data: bytes, at: bytes) -> Entry:
    """The entry of the stream with this id, which has the epoch of its time; `at` is in milliseconds since 1970."""
    position, _, number = id.partition(b"-")
    try:
        epoch, when = f"{int(number):08x}", int(at or 0) / 1000
    except ValueError:
        return unreadable(int(position))
    return entry_of(data, epoch, int(position), when)


def _ranges(positions: Sequence[int]) -> list[int]:
    """The first and the last of each run of positions, one after the other."""
    ranges: list[int] = []
    for position in positions:
        if ranges and position == ranges[-1] + 1:
            ranges[-1] = position
        else:
            ranges += (position, position)
    return ranges


def _number(limit: float) -> str:
    """A limit in the form that the scripts read."""
    return f"{limit:.0f}"
