"""Events in Redis or Valkey: one stream for all hubs that name the same server."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ssepool.brokers.base import Bounds, Broker, Stored, duplicate, new_epoch, without_password
from ssepool.brokers.record import Record, pack, unpack
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError

T = TypeVar("T")

logger = logging.getLogger("ssepool")

VERSION = (6, 2)
"""The oldest Redis that will do: `XTRIM MINID` and exclusive ranges came with it. Every Valkey will do."""

PAGE = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Their bytes, about."""

BLOCK = 5
"""Seconds that the server lets a tail wait for news before it says that there are none."""

GRACE = 1.0
"""Seconds that every entry is kept, so that all tails get it: also with a history that is smaller than one burst."""

SPARE = (10_000, 16 * MiB)
"""Entries and bytes that may be kept for that reason beyond the history."""

DROPS = 1000
"""Entries that are dropped at most while the server does nothing else: about two milliseconds."""

OVERHEAD = 40
"""Bytes that an entry takes beside its record, about."""

OPTIONS = {
    *("db", "client_name", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"),
    *("ssl_cert_reqs", "ssl_check_hostname"),
}
"""What of redis-py's own may stand in the URL's query."""

RIGHTS = "+@read +@write +@scripting +@pubsub +@connection +info +time"
"""The commands that a user of the server's ACL has to be allowed."""

NO_RIGHTS = ("script can't run this command", "ACL failure in script")
"""What servers say, in their several versions, when a script does what the user may not."""

UNSURE = "; the events may be published or not"
"""Said when the answer to an append did not come."""

KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""How soon the kernel finds that the server's machine has gone from under a connection that only waits."""

NAME = re.compile(r"[\w.:-]{1,100}", re.ASCII)
MADE_ID = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,18})")

# The scripts. An entry's id in the stream is `<position>-<epoch as a number>`: who reads sees which history it is of.

_BEGIN = """
local state_key, log, ids = KEYS[1], KEYS[2], KEYS[3]
local new_epoch, seen_epoch, seen = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_events, most_bytes, grace = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local spare_events, spare_bytes, overhead = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', state_key, 'epoch', 'newest', 'oldest', 'events', 'bytes')
local epoch, newest, oldest, events, bytes = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4]),
    tonumber(state[5])
local changed, lost = false, 0

if redis.call('XLEN', log) ~= (events or -1) then -- nothing yet, or somebody has deleted a key of ours
    redis.call('HLEN', ids) -- fails for a key of another kind, which is not ours to delete
    redis.call('UNLINK', log, ids)
    epoch, newest, oldest, events, bytes, changed = new_epoch, 0, 0, 0, 0, true
elseif epoch == seen_epoch and newest < seen then -- a crash took the newest: their positions are not used again
    lost, newest, changed = seen - newest, seen, true
end

local function drop(most, age)
    local page_size, last = 1, nil
    while most > 0 and events > 0 and (events > most_events or bytes > most_bytes or age) do
        local page = redis.call('XRANGE', log, last and '(' .. last or '-', '+', 'COUNT', math.min(page_size, most))
        for _, entry in ipairs(page) do
            local record, at, id = entry[2][2], tonumber(entry[2][4]), entry[2][6]
            local due = events > most_events or bytes > most_bytes or (age and now - at >= age)
            local spared = now - at < grace and events <= most_events + spare_events
                and bytes <= most_bytes + spare_bytes
            if not due or spared then
                most = 0
                break
            end
            if id then
                redis.call('HDEL', ids, id)
            end
            last, most = entry[1], most - 1
            events, bytes = events - 1, bytes - #record - overhead
        end
        page_size = math.min(2 * page_size, 64)
    end
    if last then
        oldest = tonumber(string.match(last, '%d+'))
        redis.call('XTRIM', log, 'MINID', string.format('%.0f', oldest + 1))
        changed = true
    end
end

local function save()
    if changed then
        local function text(number)
            return string.format('%.0f', number)
        end
        redis.call('HSET', state_key, 'epoch', epoch, 'newest', text(newest), 'oldest', text(oldest),
            'events', text(events), 'bytes', text(bytes))
    end
end
"""

_APPEND = """
local refuse, most, first = ARGV[10] == 'refuse', tonumber(ARGV[11]), 12
local places, chosen, next_place = {}, {}, newest + 1
for at = first, #ARGV, 2 do -- all is looked at before anything is written
    local id = ARGV[at]
    local place = id ~= '' and (chosen[id] or tonumber(redis.call('HGET', ids, id) or nil))
    if place then
        if refuse then
            return {'duplicate', id}
        end
    else
        place, next_place = next_place, next_place + 1
        chosen[id] = place
    end
    places[#places + 1] = place
end
local suffix = '-' .. string.format('%.0f', tonumber(epoch, 16))
for at = first, #ARGV, 2 do
    local id, record, place = ARGV[at], ARGV[at + 1], places[(at - first) / 2 + 1]
    if place > newest then
        local position = string.format('%.0f', place)
        if id == '' then
            redis.call('XADD', log, position .. suffix, 'record', record, 'time', now)
        else
            redis.call('XADD', log, position .. suffix, 'record', record, 'time', now, 'id', id)
            redis.call('HSET', ids, id, position)
        end
        newest, events, bytes, changed = place, events + 1, bytes + #record + overhead, true
    end
end
drop(2 * #places + most, nil)
save()
return {'stored', epoch, lost, places}
"""

_LOOK = """
local before = events
drop(tonumber(ARGV[11]), tonumber(ARGV[10]))
save()
return {epoch, oldest, newest, bytes, lost, before - events}
"""

_FIND = """
drop(tonumber(ARGV[11]), tonumber(ARGV[10]))
save()
local place = redis.call('HGET', ids, ARGV[12])
if place then
    return tonumber(place)
end
if ARGV[13] ~= '' and #redis.call('XRANGE', log, ARGV[13], ARGV[13]) > 0 then
    return tonumber(string.match(ARGV[13], '%d+'))
end
return nil
"""

_PAGE = """
local start, most, left = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local page = {}
while most > 0 and left > 0 do
    local step = math.min(most, 16)
    local entries = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', step)
    for _, entry in ipairs(entries) do
        if left <= 0 then
            break
        end
        page[#page + 1] = entry[1]
        page[#page + 1] = entry[2][2]
        left = left - #entry[2][2]
    end
    if #entries < step then
        break
    end
    start, most = '(' .. entries[#entries][1], most - step
end
return page
"""


class RedisBroker(Broker):
    """A Redis from 6.2 on, or a Valkey: `redis://user:password@host:port/db?name=ssepool`; `rediss://` and
    `valkeys://` with TLS. Hubs with the same `name` share a history; `name` also begins all keys.

    *Durability* is what the server is set to. With `appendonly yes` and `appendfsync always` nothing acknowledged is
    lost when it crashes; with `appendfsync everysec` about a second may be, without append-only file all since the
    last snapshot, and with replicas what had not reached the one that takes over. Positions of lost events are not
    used again as far as any hub has seen them: clients that have these events go on behind them, who still lacks them
    gets `ssepool.gap`. `maxmemory-policy` should be `noeviction`: a history that is evicted is lost.

    *Cluster.* All keys have one hash tag and so one node; the URL names that node. Redirections are not followed.

    *Bounds.* What is younger than a second is kept in any case, so that all hubs get it, but no more than 10,000 events
    and 16 MiB beyond the history.
    """

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._address, self._name = _address(config)
        keys = ("state", "log", "ids", "messages")
        self._state, self._log, self._ids, self._channel = (f"{{{self._name}}}:{key}" for key in keys)
        self._epoch = ""
        """Of the history that `bounds` has named last: what is read must be of it."""
        self._seen = ("", 0)
        """The newest position that anybody has told us of, and its epoch."""
        limits = (config.history_events, config.history_bytes, 1000 * GRACE, *SPARE, OVERHEAD)
        self._limits = [_number(limit) for limit in limits]
        try:
            self._client = self._connect()
        except ValueError as error:  # of an option; redis-py names it and does not show the URL
            raise ConfigError(f"HubConfig.broker = {self.url!r}: {error}") from None
        self._append = self._client.register_script(_BEGIN + _APPEND)
        self._look = self._client.register_script(_BEGIN + _LOOK)
        self._find = self._client.register_script(_BEGIN + _FIND)
        self._page = self._client.register_script(_PAGE)

    def _connect(self) -> Redis:
        """Connections are made when they are needed. Nothing is retried here: who asked is told, and asks again.

        Time is kept by `_ask`: with a `socket_timeout` redis-py sends through `asyncio.wait_for`, which under Python
        3.11 takes a cancellation now and then for a result, so that a tail would not end.
        """
        return Redis.from_url(
            self._address,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=self.config.broker_timeout,
            socket_keepalive=True,
            socket_keepalive_options={
                getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)
            },
        )

    # Opening and closing.

    async def open(self) -> None:
        try:
            async with asyncio.timeout(self.config.broker_timeout):
                self._check(await self._client.info())
                await self._bounds()
        except TimeoutError:
            raise self._late(self.config.broker_timeout) from None
        except exceptions.RedisError as error:
            if reason := _refusal(error, self._name):
                raise ConfigError(f"HubConfig.broker = {self.url!r}: {reason}") from None
            raise self._failed(error) from error

    def _check(self, info: dict[str, Any]) -> None:
        """See that the server can do what is asked of it."""
        version = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < VERSION and "valkey_version" not in info:
            wanted = ".".join(map(str, VERSION))
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

    async def close(self) -> None:
        await self._client.aclose()

    # Appending.

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        if not records:
            return []
        batch: list[str | bytes] = []
        for record in records:
            batch += (record.id or "", pack(record))
        kind, *answer = await self._ask(self._run(self._append, self.config.on_duplicate, DROPS, *batch), writes=True)
        if kind == b"duplicate":
            raise duplicate(answer[0].decode())
        epoch, lost, places = answer[0].decode(), answer[1], answer[2]
        self._note(epoch, max(places), lost)
        return [Stored(record.id or f"{epoch}-{place}", place) for record, place in zip(records, places, strict=True)]

    # Reading.

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        epoch = self._epoch
        client = self._connect()
        try:
            is_behind = True
            while True:
                if is_behind:
                    entries = await self._read(client, epoch, after, PAGE)
                    is_behind = bool(entries)
                else:  # wait for one, and do not keep it waiting for others; a second tells that there are more
                    behind: dict[Any, Any] = {self._log: f"{after}-{2**64 - 1}"}
                    news: Any = await self._ask(client.xread(behind, count=2, block=1000 * BLOCK), wait=BLOCK)
                    entries = self._entries(epoch, [(id, fields[b"record"]) for _, new in news for id, fields in new])
                    is_behind = len(entries) > 1
                if entries:
                    after = entries[-1].position
                    self._note(epoch, after)
                    yield entries
        finally:
            await client.aclose()

    async def read(self, after: int, *, most: int) -> Sequence[Entry]:
        return await self._read(self._client, self._epoch, after, most)

    async def _read(self, client: Redis, epoch: str, after: int, most: int) -> list[Entry]:
        page = await self._ask(self._page(keys=[self._log], args=[after + 1, most, PAGE_BYTES], client=client))
        return self._entries(epoch, zip(page[::2], page[1::2], strict=True))

    def _entries(self, epoch: str, items: Iterable[tuple[bytes, bytes]]) -> list[Entry]:
        """Entries up to the first hole, if there is one: what is behind it comes with the next page. Raises
        `BrokerError` for another history than the one that the reader follows."""
        entries: list[Entry] = []
        wanted = b"%d" % int(epoch or "0", 16)
        for id, record in items:
            number, _, history = id.partition(b"-")
            if history != wanted:
                raise BrokerError(f"{self.url} has lost its history, and has begun another one")
            position = int(number)
            if entries and position != entries[-1].position + 1:
                break
            entries.append(unpack(record).entry(epoch, position))
        return entries

    async def find(self, id: str) -> int | None:
        made = MADE_ID.fullmatch(id)
        place = f"{made[2]}-{int(made[1], 16)}" if made else ""
        position: int | None = await self._ask(self._run(self._find, *self._age, DROPS, id, place))
        return position

    async def bounds(self) -> Bounds:
        return await self._ask(self._bounds())

    async def _bounds(self) -> Bounds:
        epoch, oldest, newest, size, lost, _ = await self._run(self._look, *self._age, DROPS)
        bounds = Bounds(epoch.decode(), oldest, newest, size)
        self._epoch = bounds.epoch
        self._note(bounds.epoch, newest, lost)
        return bounds

    async def trim(self) -> None:
        for _ in range(100):  # what is left after so many waits for the next time
            *_, dropped = await self._ask(self._run(self._look, *self._age, DROPS))
            if dropped < DROPS:
                return

    # What the hubs tell each other.

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

    # Scripts and their errors.

    @property
    def _age(self) -> list[str]:
        return [_number(1000 * self.config.history_age)]

    async def _run(self, script: Any, *args: Any) -> Any:
        keys = [self._state, self._log, self._ids]
        return await script(keys=keys, args=[new_epoch(), *self._seen, *self._limits, *args])

    def _note(self, epoch: str, newest: int, lost: int = 0) -> None:
        if lost:
            logger.error("%s has lost the newest %d events that it had acknowledged", self.url, lost)
        if epoch != self._seen[0] or newest > self._seen[1]:
            self._seen = (epoch, newest)

    async def _ask(self, answer: Awaitable[T], *, wait: float = 0, writes: bool = False) -> T:
        """The answer, which may take `wait` seconds longer than others. Raises `BrokerError`."""
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


def _refusal(error: Exception, name: str) -> str | None:
    """Why a server will never take us as we are; None if it may later."""
    text = str(error)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError)):
        return f"the server refuses the credentials: {text}"
    if isinstance(error, exceptions.NoPermissionError) or any(words in text for words in NO_RIGHTS):
        return f"{text}; its user needs the rights {RIGHTS} ~{{{name}}}:* &{{{name}}}:messages"
    if isinstance(error, exceptions.MovedError):
        return f"this history is on the node {error.host}:{error.port} of the cluster; name that node"
    if "DB index" in text:
        return f"there is no such database: {text}"
    return None


def _address(config: HubConfig) -> tuple[str, str]:
    """The URL that redis-py takes, and the history's name. Raises `ConfigError`."""
    parts = urlsplit(config.broker)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:  # the URL is not shown: what is taken for a port may be part of a password
        raise ConfigError(
            "HubConfig.broker has a port that is not a number from 1 to 65535; "
            "in a password '/', '#' and '?' are written as %2F, %23 and %3F"
        )
    url, secure = without_password(config.broker), parts.scheme in ("rediss", "valkeys")
    if not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
        raise ConfigError(f"HubConfig.broker = {url!r} has the path {parts.path!r}; it takes the number of a database")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = query.pop("name", "ssepool")
    if not NAME.fullmatch(name):
        raise ConfigError(f"HubConfig.broker has the name {name!r}; it takes 1 to 100 letters, digits and _ . : -")
    for option in query:
        if option not in OPTIONS:
            raise ConfigError(
                f"HubConfig.broker has the parameter {option!r}; there are name, {', '.join(sorted(OPTIONS))}"
            )
        if option.startswith("ssl_") and not secure:
            raise ConfigError(f"HubConfig.broker has the parameter {option!r}, which takes rediss:// or valkeys://")
    scheme = "rediss" if secure else "redis"
    return urlunsplit((scheme, parts.netloc, parts.path, urlencode(query), "")), name


def _number(limit: float) -> str:
    """A limit as the scripts read it."""
    return "inf" if math.isinf(limit) else f"{limit:.0f}"
