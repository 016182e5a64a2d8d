"""Events in PostgreSQL tables, for hubs that have such a server anyway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import conninfo, errors

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
from ssepool.brokers.postgres.session import MISSING, Row, Session, Values
from ssepool.brokers.postgres.tables import NAME_PATTERN, SLICE_ENTRIES, TABLES_VERSION, Tables
from ssepool.brokers.record import UNREADABLE_ERRORS, Record, unreadable
from ssepool.config import HubConfig
from ssepool.core.event import Entry
from ssepool.errors import BrokerError, ConfigError

MIN_SERVER_VERSION = 13
"""The oldest PostgreSQL that works, as its major version."""

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

POLL_SECONDS = 1.0
"""Seconds after which a tail looks for new entries without having been notified, since a notification may be lost."""

UNSURE = "the events may be published or not"
"""The end of the error message when an append was not answered."""

SECRET_PARAMETERS = ("password", "sslpassword")
"""Parameters that the URL's query must not have, because messages show the query."""

logger = logging.getLogger("ssepool")

_OURS_TO_CHANGE_PATTERN = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) .* does not exist"
    r"|not permitted to log in|permission denied|does not support SSL|certificate|(invalid .*|bad) (value|option)"
)
"""Errors of servers and of the library when the settings are wrong. The protocol has codes for these errors, but the
library does not show them."""

_CENTURY_SECONDS = 100 * 365.25 * 86400
"""The largest `history_age` that is given to the server, which cannot go back from now by infinity."""

_MAX_LIMIT = 2**62
"""The largest bound of events or bytes that is given to the server, whose numbers have 64 bits."""


class PostgresBroker(Broker):
    """Keeps events in tables: `postgresql://user:password@host/database?name=ssepool`, with all parameters of libpq.
    It needs PostgreSQL 13 or newer, with the encoding UTF8.

    A history is four tables and three functions, named after `name` (see `tables`). They are created if they are
    missing, for which the user needs the right CREATE on the schema. Each hub holds four connections: one to append,
    one for questions, and two that listen. `NOTIFY` wakes hubs, so a PgBouncer in between must be in session mode: in
    transaction or statement mode no notification arrives.

    - *Order.* An append locks one row until it commits, so positions follow the commits, without holes. All publishers
      of a history together therefore make one commit at a time; a hub joins publishes to make each commit large.
    - *Durability* follows the server's `synchronous_commit`, which the broker does not change. With its default an
      event is on disk when `append` returns. With `off` a crash of the server loses the newest events, and so does a
      failover with asynchronous replication. Subscribers then receive a gap if the loss can be noticed.
    - *Bounds* hold for all readers at the end of each `append`. `trim` deletes the rows themselves, 5 s later, for the
      tails that have not read them yet; autovacuum frees their space on disk.
    - *Messages* are rows that stay for a minute, in an unlogged table.

    No question takes longer than `broker_timeout`, here or on the server. If a caller gives a question up, its
    connection is closed.
    """

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        parts = urlsplit(config.broker)
        query = parse_qsl(parts.query, keep_blank_values=True)
        keys = [key for key, _ in query]
        if parts.netloc.count("@") > 1 or "@" in "".join([parts.path, parts.fragment, *keys]):
            raise ConfigError(
                "HubConfig.broker is not a URL: in a user's name or password, @ is written %40, / %2F, ? %3F and # %23"
            )
        if shown := [key for key in keys if key in SECRET_PARAMETERS]:
            raise ConfigError(
                f"HubConfig.broker must not have {shown[0]!r} in its query, which is shown: put a password in front of "
                "the @, or use PGPASSWORD, a password file (PGPASSFILE) or a service file (PGSERVICEFILE)"
            )
        name = dict(query).get("name", "ssepool")
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigError(
                f"HubConfig.broker has the name {name!r}; a history in PostgreSQL has a name of 1 to 50 letters, "
                "digits, _ and -"
            )
        rest = urlencode([(key, value) for key, value in query if key != "name"])
        self._conninfo = self._complete(urlunsplit(parts._replace(query=rest)), parts.password or "")
        self._tables = Tables(name)
        self._appending = self._session()
        self._asking = self._session()
        self._epoch = ""
        """The epoch of the history that `bounds` named last: readers follow this one."""
        self._limits = (
            min(config.history_events, _MAX_LIMIT),
            min(config.history_bytes, _MAX_LIMIT),
            min(config.history_age, _CENTURY_SECONDS),
        )

    async def open(self) -> None:
        try:
            with self._told(opening=True):
                await self._check()
            await self.bounds()
        except BaseException:  # cancelled too: the connections are to be given back
            await self.close()
            raise

    async def close(self) -> None:
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
            self.config.on_duplicate if is_clear else "look",
            *self._limits,
        )
        with self._told():
            await self._appending.connect()
        with self._told(unsure=UNSURE):
            ((epoch, newest, *known),) = await self._append(values, len(given))
        kept = {
            claim: Kept(position, Record(frame, (), private).content)
            for claim, position, private, frame in zip(*known, strict=True)
        }
        positions = assign(records, kept, newest, refuse=refuse)
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
        epoch, session = self._epoch, self._session()
        try:
            with self._told():
                await session.ask(self._tables.listen_for_news)
            follows = False
            while True:
                with self._told():
                    rows = await self._page(session, after, PAGE_ENTRIES, kept=False)
                is_known = not rows or rows[0][0] == epoch  # positions of another history mean nothing to its reader
                if is_known and (rows or not follows):
                    follows = True
                    entries = [_entry(row) for row in rows]
                    after = entries[-1].position if entries else after
                    yield entries
                if not (rows and is_known):
                    with self._told():
                        await session.hear(POLL_SECONDS)
        finally:
            await session.close()

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        epoch = self._epoch
        with self._told():
            rows = await self._page(self._asking, after, max_entries, kept=True)
        if rows and rows[0][0] != epoch:
            raise BrokerError(f"{self.url} has lost its history, and has begun another one")
        return [_entry(row) for row in rows]

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
        with self._told():
            ((epoch, oldest, newest, _),) = await self._rows(self._asking, self._tables.bounds)
        made = re.fullmatch(rf"{epoch}-([1-9][0-9]{{0,18}})", id)
        return int(made[1]) if made and oldest < int(made[1]) <= newest else None

    async def bounds(self) -> Bounds:
        with self._told():
            ((epoch, oldest, newest, size),) = await self._rows(self._asking, self._tables.bounds)
        self._epoch = epoch
        return Bounds(epoch, oldest, newest, size)

    async def trim(self) -> None:
        until = asyncio.get_running_loop().time() + self.config.broker_timeout / 2
        with self._told():
            await self._rows(self._asking, self._tables.trim, self._limits)
            gone = SLICE_ENTRIES
            while gone == SLICE_ENTRIES and asyncio.get_running_loop().time() < until:
                ((gone,),) = await self._rows(self._asking, self._tables.delete)

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
            raise ConfigError(
                f"{self.url}: the tables of {self._tables.name!r} are of version {made}, made by a newer ssepool; "
                f"this one knows {TABLES_VERSION}: update it, or choose another name"
            )
        if made < TABLES_VERSION:
            await self._asking.ask(self._tables.make(new_epoch()))

    async def _page(self, session: Session, after: int, max_entries: int, *, kept: bool) -> list[Row]:
        return await self._rows(
            session, self._tables.page, {"after": after, "most": max_entries, "kept": kept}, needed=False
        )

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

    def _complete(self, url: str, password: str) -> str:
        """The connection string for the library: the URL, completed with our defaults."""
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:  # the only ones that quote the URL
            said = _said(error).replace(password, "***") if password else _said(error)
            raise ConfigError(f"HubConfig.broker = {self.url!r} will not do: {said}") from None
        timeout, hosts = self.config.broker_timeout, str(given.get("host") or "").count(",") + 1
        wanted: dict[str, Any] = {
            "connect_timeout": max(2, round(timeout / hosts)),
            "tcp_user_timeout": max(1, round(1000 * timeout)),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "target_session_attrs": "read-write",  # of several hosts the one that takes events
            "fallback_application_name": "ssepool",
            "client_encoding": "UTF8",
        }
        return conninfo.make_conninfo(**{**wanted, **given})

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
            said = _said(error)
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
            tables = ", ".join(f"{self._tables.name}_{part}" for part in ("log", "events", "messages", "facts"))
            return f"the names {tables} have to be ours: choose another with ?name=, or another schema"
        if error.sqlstate is None and _OURS_TO_CHANGE_PATTERN.search(said):
            return "correct the URL in HubConfig.broker, or what the server allows"
        return None


def _said(error: psycopg.Error) -> str:
    """The error's message in one line."""
    return " ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__


def _entry(row: Row) -> Entry:
    epoch, position, id, topics, private, frame = row
    try:
        "".join(topics)  # an array may have NULL or arrays in it
        return Record(frame, tuple(topics), private, id).entry(epoch, position)
    except UNREADABLE_ERRORS:
        return unreadable(position)


def _place(row: Row) -> Place:
    position, topics, private = row
    try:
        "".join(topics)
    except UNREADABLE_ERRORS:
        return Place(position, (), True)  # nobody's
    return Place(position, tuple(topics), private)
