"""Events in PostgreSQL tables, for hubs that have such a server anyway."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import psycopg
from psycopg import errors

from ssepool.brokers.base import (
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
from ssepool.brokers.postgres.address import address, message_of
from ssepool.brokers.postgres.layout import TABLES, TABLES_VERSION
from ssepool.brokers.postgres.session import MISSING, Row, Session, Values
from ssepool.brokers.postgres.tables import Tables
from ssepool.brokers.record import UNREADABLE_ERRORS, Record, unreadable
from ssepool.config import HubConfig
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.core.timelines import MAX_TIMELINES, Timeline, Timelines
from ssepool.errors import BrokerError, ConfigError

MIN_SERVER_VERSION = 13
"""The oldest PostgreSQL that works, as its major version."""

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

POLL_SECONDS = 1.0
"""Seconds after which a tail looks for new entries without having been notified, since a notification may be lost."""

UNSURE = "the events may be published or not"
"""The end of the error message when an append was not answered."""

_LOST, _RENAMED = (
    "has lost its history, and has begun another one",
    "goes on under another name, since its end may have been lost",
)
"""What readers are told whose history has another epoch by now."""

logger = logging.getLogger("ssepool")

_OURS_TO_CHANGE_PATTERN = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) .* does not exist"
    r"|not permitted to log in|permission denied|does not support SSL|certificate|(invalid .*|bad) (value|option)"
)
"""Errors of servers and of the library when the settings are wrong. The protocol has codes for these errors, but the
library does not show them."""


class PostgresBroker(Broker):
    """Keeps events in tables: `postgresql://user:password@host/database?name=ssepool`, with all parameters of libpq.
    It needs PostgreSQL 13 or newer, with the encoding UTF8.

    A history is six tables and some functions, named after `name` (see `layout`). They are created if they are
    missing, for which the user needs the right CREATE on the schema. Each hub holds four connections: one to append,
    one for questions, and two that listen. `NOTIFY` wakes hubs, so a PgBouncer in between must be in session mode: in
    transaction or statement mode no notification arrives.

    - *Order.* An append locks one row until it commits, so positions follow the commits. All publishers of a history
      together therefore make one commit at a time; a hub joins publishes to make each commit large.
    - *Durability* follows the server's `synchronous_commit`, which the broker does not change. With its default an
      event is on disk when `append` returns. With `off` a crash of the server loses the newest events. With a replica
      in `synchronous_standby_names` what is acknowledged is on its disk too, and a failover to it loses nothing
      (`remote_apply`: its readers see it as well); while no such replica answers, an append fails after
      `broker_timeout`, and says that its events may be published or not. Without, a failover loses what the replica did
      not have yet.
    - *Timelines.* An open hub holds a shared advisory lock on the log, which the server lets go with its connection; so
      the server knows whether another one has the history open. The log says too which run of which server has named
      its epoch: the first append behind a start (of a backup, of a replica that was promoted) or in a restored dump
      begins a new timeline, whoever makes it and whatever it has seen.
    - *Dropping* deletes the rows; autovacuum frees their space on disk. A drop that the history does not know the epoch
      of drops nothing.
    - *Messages* are rows that stay for a minute, in an unlogged table.

    No question takes longer than `broker_timeout`, here or on the server. If a caller gives a question up, its
    connection is closed.
    """

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self._conninfo, name = address(config)
        self._tables = Tables(name)
        self._appending = self._session()
        self._asking = self._session()
        self._timelines = Timelines("")
        """Those that `bounds`, `open` or `renew` named last: readers follow these."""
        self._seen: dict[str, int] = {}
        """The newest position that has been seen of each epoch, the epoch seen last at the end."""

    async def open(self) -> None:
        try:
            with self._told(opening=True):
                await self._check()
                if self.follows:
                    await self._rows(self._asking, self._tables.enter, (new_epoch(),))
            if self.follows:
                self._asking.greeting = self._tables.hold
            await self.bounds()
        except BaseException:  # cancelled too: the connections are to be given back
            await self.close()
            raise

    async def close(self) -> None:
        self._asking.greeting = None
        await self._appending.close()
        await self._asking.close()

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        if not records:
            return []
        refuse = self.config.on_duplicate == "refuse"
        given, is_clear = first_of_each(records, refuse=refuse)
        values = (
            [record.claim for record in given],
            [record.id for record in given],
            ["\n".join(record.topics) for record in given],
            [record.private for record in given],
            [record.frame for record in given],
            [record.key for record in given],
            [record.removed for record in given],
            self.config.on_duplicate if is_clear else "look",
            json.dumps(self._seen),
            new_epoch(),
        )
        with self._told():
            await self._appending.connect()
        with self._told(unsure=UNSURE):
            ((epoch, newest, *known),) = await self._append(values, len(given))
        kept = {
            claim: Kept(position, Record(frame, (), private, None, key, removed).content)
            for claim, position, private, frame, key, removed in zip(*known, strict=True)
        }
        positions = assign(records, kept, newest, refuse=refuse)
        self._see(epoch, max(newest, *positions))
        return [
            Stored(record.id or f"{epoch}-{position}", position)
            for record, position in zip(records, positions, strict=True)
        ]

    async def _append(self, values: Values, count: int) -> list[Row]:
        """The answer to an append of so many events, behind rows that nobody of ours has put in their places."""
        while True:
            try:
                return await self._rows(self._appending, self._tables.append, values)
            except errors.UniqueViolation:
                logger.error("%s has rows behind its end that no hub has written; publishing behind them", self.url)
            await self._appending.ask(self._tables.adopt, (count,), answers=False)

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        timelines, session = self._timelines, self._session()
        try:
            with self._told():
                await session.ask(self._tables.listen_for_news)
            follows = False
            while True:
                entries = await self._page(
                    session, timelines, self._tables.page, {"after": after, "most": PAGE_ENTRIES}
                )
                if entries or not follows:
                    follows = True
                    after = entries[-1].position if entries else after
                    yield entries
                if not entries:
                    with self._told():
                        await session.hear(POLL_SECONDS)
        finally:
            await session.close()

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        return await self._page(self._asking, self._timelines, self._tables.page, {"after": after, "most": max_entries})

    async def fetch(self, positions: Sequence[int]) -> Sequence[Entry]:
        return await self._page(
            self._asking, self._timelines, self._tables.fetch, {"positions": list(positions), "most": len(positions)}
        )

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        epoch = self._timelines.epoch
        values = (
            epoch,
            self._seen.get(epoch, 0),
            list(positions),
            list(cuts),
            [cut.public for cut in cuts.values()],
            [cut.private for cut in cuts.values()],
            floor,
        )
        with self._told():
            await self._rows(self._asking, self._tables.drop, values)

    async def cuts(self, after: str = "") -> Sequence[tuple[str, Cut]]:
        with self._told():
            rows = await self._rows(self._asking, self._tables.cuts, (after,), needed=False)
        return [(topic, Cut(public, private)) for topic, public, private in rows]

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        if not (id.isascii() and id.isprintable()):
            return None

        async def page(after: int) -> list[Place]:
            with self._told():
                rows = await self._rows(self._asking, self._tables.places, (id, after), needed=False)
            return [_place(row) for row in rows]

        chosen = await first_wanted(page, wants)
        if chosen is not None:
            return chosen
        bounds = await self._look()
        place = Timelines(bounds.epoch, bounds.timelines).place(id, bounds.newest)
        if place is None or not place.complete:
            return None
        with self._told():
            rows = await self._rows(self._asking, self._tables.there, (place.position,), needed=False)
        return rows[0][0] if rows else None

    async def bounds(self) -> Bounds:
        bounds = await self._look()
        self._timelines = Timelines(bounds.epoch, bounds.timelines)
        return bounds

    async def renew(self, epoch: str) -> Bounds:
        with self._told():
            await self._rows(self._asking, self._tables.renew, (epoch, new_epoch()))
        return await self.bounds()

    async def trim(self) -> None:
        with self._told():
            await self._rows(self._asking, self._tables.trim)

    async def send(self, message: bytes) -> None:
        with self._told():
            await self._rows(self._asking, self._tables.send, (message,))

    async def messages(self) -> AsyncIterator[bytes]:
        session = self._session()
        try:
            with self._told():
                await session.ask(self._tables.listen_for_mail)
            while True:
                with self._told():
                    heard = await session.hear()
                for id in heard:
                    with self._told():
                        rows = await self._rows(session, self._tables.message, (id,), needed=False)
                    for (message,) in rows:
                        yield message
        finally:
            await session.close()

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        self._check_fact(name, data)
        with self._told():
            ((kept,),) = await self._rows(self._asking, self._tables.keep, (name, data, seconds, self.max_facts))
        if not kept:
            raise self._full_of_facts()

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        with self._told():
            rows = await self._rows(self._asking, self._tables.kept, (after,), needed=False)
        return [Fact(*row) for row in rows]

    # Questions to the server.

    async def _check(self) -> None:
        """Check the server and the tables. Raises `ConfigError` for what cannot be used."""
        ((number, version, encoding),) = await self._asking.ask(
            b"SELECT current_setting('server_version_num')::int, current_setting('server_version'), "
            b"current_setting('server_encoding')",
            (),
        )
        if number < 10_000 * MIN_SERVER_VERSION:
            raise ConfigError(f"{self.url}: PostgreSQL {version} is too old; it takes {MIN_SERVER_VERSION} or newer")
        if encoding != "UTF8":
            raise ConfigError(f"{self.url}: the database has the encoding {encoding}; it takes UTF8")
        ((made,),) = await self._rows(self._asking, self._tables.probe)
        if made > TABLES_VERSION:
            raise ConfigError(self._newer(made))
        if made < TABLES_VERSION:
            await self._asking.ask(self._tables.make(new_epoch()))

    def _newer(self, made: int) -> str:
        return (
            f"{self.url}: the tables of {self._tables.name!r} are of version {made}, made by a newer ssepool; "
            f"this one knows {TABLES_VERSION}: update it, or choose another name"
        )

    async def _look(self) -> Bounds:
        with self._told():
            ((epoch, oldest, newest, size, floor, *before, made),) = await self._rows(self._asking, self._tables.bounds)
        if made > TABLES_VERSION:
            raise BrokerError(self._newer(made))
        self._see(epoch, newest)
        return Bounds(epoch, oldest, newest, size, tuple(map(Timeline, *before)), floor)

    async def _page(self, session: Session, timelines: Timelines, query: bytes, values: Values) -> list[Entry]:
        """The entries of an answer, or none. Raises `BrokerError` if the history has another name by now."""
        with self._told():
            rows = await self._rows(session, query, values)
        epoch, last = rows[0][0], rows[-1][1]
        if epoch != timelines.epoch:
            known = any(line.epoch == timelines.epoch for line in (await self._look()).timelines)
            raise BrokerError(f"{self.url} {_RENAMED if known else _LOST}")
        if last is None:
            return []
        self._see(epoch, last)
        return [_entry(timelines, row) for row in rows]

    def _see(self, epoch: str, position: int) -> None:
        if position > self._seen.get(epoch, -1):
            self._seen.pop(epoch, None)
            self._seen[epoch] = position
            if len(self._seen) > MAX_TIMELINES:
                del self._seen[next(iter(self._seen))]

    async def _rows(self, session: Session, query: bytes, values: Values = (), *, needed: bool = True) -> list[Row]:
        """The rows of an answer. If our tables or a `needed` row are missing, they are created first."""
        with contextlib.suppress(*MISSING):
            rows = await session.ask(query, values)
            if rows or not needed:
                return rows
        await session.ask(self._tables.make(new_epoch()))
        rows = await session.ask(query, values)
        if needed and not rows:
            raise BrokerError(f"{self.url}: the tables of {self._tables.name!r} vanish as soon as they are made")
        return rows

    def _session(self) -> Session:
        return Session(self._conninfo, self.config.broker_timeout)

    # Errors.

    @contextlib.contextmanager
    def _told(self, *, opening: bool = False, unsure: str = "") -> Iterator[None]:
        """A block that raises our errors in place of the library's.

        While `opening`, an error that only other settings can mend is a `ConfigError`. `unsure` ends the message where
        an answer may have been lost.
        """
        try:
            yield
        except TimeoutError:
            said = f"no answer in {self.config.broker_timeout:g} s"
            raise BrokerError(self._with(unsure, f"{self.url}: {said}")) from None
        except psycopg.Error as error:
            said = message_of(error)
            if opening and (advice := self._advice(error, said)):
                raise ConfigError(f"{self.url}: {said}; {advice}") from None
            undone = error.diag.severity_nonlocalized == "ERROR"  # a fatal error may come after the commit
            raise BrokerError(self._with("" if undone else unsure, f"{self.url}: {said}")) from None

    @staticmethod
    def _with(addition: str, said: str) -> str:
        return f"{said}; {addition}" if addition else said

    def _advice(self, error: psycopg.Error, said: str) -> str | None:
        """What to change, if it is of no use to try again later; None if it is."""
        if isinstance(error, errors.InsufficientPrivilege):
            return "grant the user CREATE on the schema, or let the tables' owner open a hub once and grant their use"
        if isinstance(error, (errors.UndefinedColumn, errors.WrongObjectType, errors.InvalidSchemaName)):
            tables = ", ".join(f"{self._tables.name}_{part}" for part in TABLES)
            return f"the names {tables} have to be ours: choose another with ?name=, or another schema"
        if error.sqlstate is None and _OURS_TO_CHANGE_PATTERN.search(said):
            return "correct the URL in HubConfig.broker, or what the server allows"
        return None


def _entry(timelines: Timelines, row: Row) -> Entry:
    _, position, id, topics, private, frame, key, removed, at = row
    try:
        "".join(topics)  # an array may have NULL or arrays in it
        return Record(frame, tuple(topics), private, id, key, removed).entry(timelines.epoch_at(position), position, at)
    except UNREADABLE_ERRORS:
        return unreadable(position)


def _place(row: Row) -> Place:
    position, topics, private = row
    try:
        "".join(topics)
    except UNREADABLE_ERRORS:
        return Place(position, (), True)  # nobody's
    return Place(position, tuple(topics), private)
