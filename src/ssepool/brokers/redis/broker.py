"""Events in Redis or Valkey: one stream for all hubs that name the same server."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ssepool.brokers.base import (
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
from ssepool.brokers.record import STORED_BYTES, UNREADABLE_ERRORS, Record, pack, topics_digest, unpack, unreadable
from ssepool.brokers.redis import scripts
from ssepool.brokers.redis.address import address
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError

T = TypeVar("T")

logger = logging.getLogger("ssepool")

MIN_SERVER_VERSION = (6, 2)
"""The oldest Redis, as major and minor version: the first with `XTRIM MINID` and exclusive ranges. Any Valkey works."""

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Bytes of records of a page, approximately."""

BLOCK_SECONDS = 5
"""Seconds that the server lets a tail wait for a new entry before it answers that there is none."""

GRACE_SECONDS = 1.0
"""Seconds that every entry is kept, so that all tails get it even if the history is smaller than one burst."""

SPARE_EVENTS = 10_000
"""Events beyond the history that are kept for `GRACE_SECONDS`; more are dropped at once."""

SPARE_BYTES = 16 * MiB
"""Bytes beyond the history that are kept for `GRACE_SECONDS`; more are dropped at once."""

SLICE_ENTRIES = 1000
"""Entries that one script drops, in about two milliseconds in which the server does nothing else; an append drops twice
its own number more."""

RIGHTS = "+@read +@write +@scripting +@pubsub +@connection +info +time"
"""The rights that a user needs, as rules of the server's access control list."""

NO_RIGHTS_TEXTS = ("script can't run this command", "ACL failure in script")
"""Parts of the errors with which different versions refuse a script for a missing right."""

UNSURE = "; the events may be published or not"
"""The end of the error message when an append was not answered."""

KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Options of the socket (tcp(7)), in seconds and probes, with which the kernel notices within 20 s that the server's
machine is gone, even on a connection that only waits."""

MADE_ID_PATTERN = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,18})")
"""An id that the broker made: the epoch and the position."""


class RedisBroker(Broker):
    """Keeps events in Redis 6.2 or newer, or in Valkey: `redis://user:password@host:port/db?name=ssepool`, and
    `rediss://` or `valkeys://` with TLS. Hubs with the same `name` share a history; `name` also begins all keys.

    *Durability* depends on the server's settings. With `appendonly yes` and `appendfsync always` nothing acknowledged
    is lost in a crash. With `appendfsync everysec` about a second of events may be lost, without the append-only file
    all events since the last snapshot, and in a failover those that had not reached the new primary. Positions of lost
    events that any hub has seen are not used again: clients with these events go on behind them, and clients without
    them receive `ssepool.gap`. `maxmemory-policy` should be `noeviction`, because an evicted history is lost.

    *Cluster.* All keys have one hash tag, and so are on one node. The URL names that node; redirections are not
    followed.

    *Bounds.* Entries younger than a second are kept in any case, so that all hubs get them, but no more than 10,000
    events and 16 MiB beyond the history.
    """

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._address, self._name = address(config)
        keys = ("state", "log", "claims", "places", "messages")
        *self._keys, self._channel = (f"{{{self._name}}}:{key}" for key in keys)
        self._log = self._keys[1]
        self._facts = [f"{{{self._name}}}:{key}" for key in ("facts", "fact-ends", "fact-order")]
        self._old_ids = f"{{{self._name}}}:ids"
        self._epoch = ""
        """The epoch of the history that `bounds` named last: readers follow this one."""
        self._seen = ("", 0)
        """The epoch and the newest position that the server has ever answered or delivered."""
        limits = (
            config.history_events,
            config.history_bytes,
            1000 * GRACE_SECONDS,
            SPARE_EVENTS,
            SPARE_BYTES,
            STORED_BYTES,
        )
        self._limits = [_number(limit) for limit in limits]
        try:
            self._client = self._connect()
        except ValueError as error:  # of an option; redis-py names it and does not show the URL
            raise ConfigError(f"HubConfig.broker = {self.url!r}: {error}") from None
        self._append = self._client.register_script(scripts.BEGIN + scripts.APPEND)
        self._look = self._client.register_script(scripts.BEGIN + scripts.LOOK)
        self._find = self._client.register_script(scripts.BEGIN + scripts.FIND)
        self._claim = self._client.register_script(scripts.BEGIN + scripts.CLAIM)
        self._keep = self._client.register_script(scripts.FACTS + scripts.KEEP)
        self._kept = self._client.register_script(scripts.FACTS + scripts.KEPT)
        self._page = self._client.register_script(scripts.PAGE)

    def _connect(self) -> Redis:
        """A client, which connects when it needs to. It retries nothing: the caller gets the error, and asks again.

        `_ask` limits the time. With a `socket_timeout` redis-py would send through `asyncio.wait_for`, which in Python
        3.11 sometimes takes a cancellation for a result, so that a tail would not end.
        """
        return Redis.from_url(
            self._address,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=self.config.broker_timeout,
            socket_keepalive=True,
            socket_keepalive_options={
                getattr(socket, name): value for name, value in KEEPALIVE_OPTIONS.items() if hasattr(socket, name)
            },
        )

    # Opening and closing.

    async def open(self) -> None:
        try:
            async with asyncio.timeout(self.config.broker_timeout):
                self._check(await self._client.info())
                await self._bounds()
                await self._take_over()
        except TimeoutError:
            raise self._late(self.config.broker_timeout) from None
        except exceptions.RedisError as error:
            if reason := _refusal(error, self._name):
                raise ConfigError(f"HubConfig.broker = {self.url!r}: {reason}") from None
            raise self._failed(error) from error

    def _check(self, info: dict[str, Any]) -> None:
        """Check that the server is fit for a history. Raises `ConfigError`, and warns if it may evict the history."""
        version = str(info.get("redis_version", "0"))
        if (
            tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_SERVER_VERSION
            and "valkey_version" not in info
        ):
            wanted = ".".join(map(str, MIN_SERVER_VERSION))
            raise ConfigError(f"{self.url} is Redis {version}; it takes {wanted} or newer, or Valkey")
        if info.get("role") == "slave":
            raise ConfigError(f"{self.url} is a replica, which takes no events; name the primary")
        policy = str(info.get("maxmemory_policy", ""))
        if policy.startswith("allkeys") and info.get("maxmemory"):
            logger.warning(
                "%s has the maxmemory-policy %s: when memory runs short it may throw the history away; "
                "noeviction is right for events",
                self.url,
                policy,
            )

    async def _take_over(self) -> None:
        """Take over the chosen ids of the layout before, in which each had one place whatever its topics."""
        left = await self._client.exists(self._old_ids)
        while left:
            some: Any
            _, some = await self._client.hscan(self._old_ids, count=SLICE_ENTRIES)
            claims: list[str] = []
            for id, position in some.items():
                entries: Any = await self._client.xrange(self._log, position, position, count=1)
                record = entries[0][1].get(b"record", b"") if entries else b""
                try:
                    claims += (id.decode(), *_digests(unpack(record)), position.decode())
                except UNREADABLE_ERRORS:
                    claims += (id.decode(), "", "", "0")  # its entry is gone, or says nothing
            left = await self._run(self._claim, *claims, keys=[self._old_ids])

    async def close(self) -> None:
        await self._client.aclose()

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
        answer = await self._ask(self._run(self._append, mode, SLICE_ENTRIES, *batch), writes=True)
        epoch, lost, after, had = answer[0].decode(), answer[1], answer[2], answer[3]
        kept = {record.claim or "": _kept(one) for record, one in zip(given, had, strict=True) if one}
        places = assign(records, kept, after, refuse=refuse)
        self._note(epoch, max(places), lost)
        return [Stored(record.id or f"{epoch}-{place}", place) for record, place in zip(records, places, strict=True)]

    # Reading.

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        epoch = self._epoch
        client = self._connect()
        try:
            # Who may read and not wait for news would follow only as often as it fails.
            await self._ask(client.xread({self._log: "$"}, count=1))
            is_behind, follows = True, False
            while True:
                if is_behind:
                    entries = await self._read(client, epoch, after, PAGE_ENTRIES)
                    is_behind = bool(entries)
                else:  # wait for one entry, not for a page; a second one shows that there are more
                    behind: dict[Any, Any] = {self._log: f"{after}-{2**64 - 1}"}
                    news: Any = await self._ask(
                        client.xread(behind, count=2, block=1000 * BLOCK_SECONDS), wait=BLOCK_SECONDS
                    )
                    entries = self._entries(
                        epoch, [(id, fields.get(b"record", b"")) for _, new in news for id, fields in new]
                    )
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
        return await self._read(self._client, self._epoch, after, max_entries)

    async def _read(self, client: Redis, epoch: str, after: int, max_entries: int) -> list[Entry]:
        page = await self._ask(self._page(keys=[self._log], args=[after + 1, max_entries, PAGE_BYTES], client=client))
        return self._entries(epoch, zip(page[::2], page[1::2], strict=True))

    def _entries(self, epoch: str, items: Iterable[tuple[bytes, bytes]]) -> list[Entry]:
        """The entries up to the first hole; those behind it come with the next page.

        Raises `BrokerError` if they belong to another history than the reader follows.
        """
        entries: list[Entry] = []
        wanted = b"%d" % int(epoch or "0", 16)
        for id, record in items:
            number, _, history = id.partition(b"-")
            if history != wanted:
                raise BrokerError(f"{self.url} has lost its history, and has begun another one")
            position = int(number)
            if entries and position != entries[-1].position + 1:
                break
            try:
                entries.append(unpack(record).entry(epoch, position))
            except UNREADABLE_ERRORS:
                entries.append(unreadable(position))
        return entries

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        match = MADE_ID_PATTERN.fullmatch(id)
        made = f"{match[2]}-{int(match[1], 16)}" if match else ""

        async def page(after: int) -> list[Place]:
            nonlocal made
            most = (PAGE_PLACES, PAGE_BYTES)
            found, left = await self._ask(self._run(self._find, *self._age, SLICE_ENTRIES, id, after, *most, made))
            made = left.decode()
            return [_place(position, record) for position, record in zip(found[::2], found[1::2], strict=True)]

        chosen = await first_wanted(page, wants)
        return int(made.partition("-")[0]) if chosen is None and made else chosen

    async def bounds(self) -> Bounds:
        return await self._ask(self._bounds())

    async def _bounds(self) -> Bounds:
        epoch, oldest, newest, size, lost, _ = await self._run(self._look, *self._age, SLICE_ENTRIES)
        bounds = Bounds(epoch.decode(), oldest, newest, size)
        self._epoch = bounds.epoch
        self._note(bounds.epoch, newest, lost)
        return bounds

    async def trim(self) -> None:
        for _ in range(100):  # the next call drops the rest
            *_, dropped = await self._ask(self._run(self._look, *self._age, SLICE_ENTRIES))
            if dropped < SLICE_ENTRIES:
                return

    # The side channel.

    async def send(self, message: bytes) -> None:
        await self._ask(self._client.publish(self._channel, message))

    async def messages(self) -> AsyncIterator[bytes]:
        client = self._connect()
        listener = client.pubsub(ignore_subscribe_messages=True)
        try:
            await self._ask(listener.subscribe(self._channel))
            while True:
                heard = await self._ask(listener.get_message(timeout=None), wait=math.inf)
                if heard is not None:
                    yield heard["data"]
        finally:
            await client.aclose()

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

    # Scripts and their errors.

    @property
    def _age(self) -> list[str]:
        return [_number(1000 * self.config.history_age)]

    async def _run(self, script: Any, *args: Any, keys: Sequence[str] = ()) -> Any:
        return await script(keys=[*self._keys, *keys], args=[new_epoch(), *self._seen, *self._limits, *args])

    def _note(self, epoch: str, newest: int, lost: int = 0) -> None:
        if lost:
            logger.error("%s has lost the newest %d events that it had acknowledged", self.url, lost)
        if epoch != self._seen[0] or newest > self._seen[1]:
            self._seen = (epoch, newest)

    async def _ask(self, answer: Awaitable[T], *, wait: float = 0, writes: bool = False) -> T:
        """The answer to a question, which may take `wait` seconds longer than `broker_timeout`.

        `writes` says that the question is an append, so that a lost answer leaves open whether it was stored. Raises
        `BrokerError`.
        """
        seconds = self.config.broker_timeout + wait
        try:
            async with asyncio.timeout(None if wait == math.inf else seconds):
                return await answer
        except TimeoutError:
            raise self._late(seconds, writes=writes) from None
        except exceptions.ReadOnlyError as error:
            # The primary has become a replica: the next connection may find the one that took over.
            await self._client.connection_pool.disconnect()
            raise self._failed(error) from error
        except (exceptions.RedisError, OSError) as error:
            raise self._failed(error, writes=writes) from error

    def _late(self, seconds: float, *, writes: bool = False) -> BrokerError:
        return BrokerError(f"{self.url} did not answer in {seconds:g} s{UNSURE if writes else ''}")

    def _failed(self, error: Exception, *, writes: bool = False) -> BrokerError:
        away = isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError))
        refused = isinstance(error, (exceptions.BusyLoadingError, exceptions.AuthenticationError))
        never_sent = refused or isinstance(error.__context__, ConnectionRefusedError)
        return BrokerError(f"{self.url}: {error}{UNSURE if writes and away and not never_sent else ''}")


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


def _refusal(error: Exception, name: str) -> str | None:
    """Why the server will always refuse us with these settings; None if it may accept us later."""
    text = str(error)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError)):
        return f"the server refuses the credentials: {text}"
    if isinstance(error, exceptions.NoPermissionError) or any(words in text for words in NO_RIGHTS_TEXTS):
        return f"{text}; its user needs the rights {RIGHTS} ~{{{name}}}:* &{{{name}}}:messages"
    if isinstance(error, exceptions.MovedError) or text.startswith("MOVED "):  # plain text in redis-py before 6
        return f"this history is on the node {text.split()[-1]} of the cluster; name that node"
    if "DB index" in text:
        return f"there is no such database: {text}"
    return None


def _number(limit: float) -> str:
    """A limit in the form that the scripts read."""
    return "inf" if math.isinf(limit) else f"{limit:.0f}"
