"""The file of a history: its tables, and how to open it safely."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from ssepool.brokers.base import new_epoch
from ssepool.brokers.record import UNREADABLE_ERRORS, Record
from ssepool.errors import ConfigError

APPLICATION_ID = int.from_bytes(b"SSEP", "big")
"""The application id in the header of ssepool's SQLite files (`PRAGMA application_id`)."""

TABLES_VERSION = 4
"""The version of the tables (`PRAGMA user_version`)."""

LOCK_SECONDS = 0.002
"""Seconds that a statement waits for a lock before we try it again; SQLite alone would sleep longer each time."""

CLAIM_INDEX = "CREATE INDEX events_claim ON events (claim) WHERE claim IS NOT NULL"
"""The statement that makes the index of chosen ids with their topics."""

FACT_STATEMENTS = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, until REAL NOT NULL,"
    " data BLOB NOT NULL)",
    "CREATE INDEX facts_until ON facts (until)",
)
"""The statements that create the table of facts."""

HISTORY_STATEMENTS = (
    "CREATE TABLE history (epoch TEXT NOT NULL, newest INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " floor INTEGER NOT NULL, timelines TEXT NOT NULL)",
    "CREATE TABLE cuts (topic TEXT PRIMARY KEY, public INTEGER NOT NULL, private INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX cuts_newest ON cuts (max(public, private))",
)
"""The statements that create the tables of what the history has come to, and of what has been dropped."""

TABLE_STATEMENTS = (
    *HISTORY_STATEMENTS,
    "CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, at REAL NOT NULL, size INTEGER NOT NULL,"
    " private INTEGER NOT NULL, topics TEXT NOT NULL, frame BLOB NOT NULL, claim TEXT, key TEXT,"
    " removed INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX events_id ON events (id) WHERE id IS NOT NULL",
    CLAIM_INDEX,
    "CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, message BLOB NOT NULL)",
    *FACT_STATEMENTS,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {TABLES_VERSION}",
)
"""The statements that create the tables of a history."""


read_topics = msgspec.json.Decoder(tuple[str, ...]).decode
"""The topics in a row. Raises one of `UNREADABLE_ERRORS` for what are none."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, and create it if it is missing.

    Raises `ConfigError` for a path that cannot be used and a file of another program, `sqlite3.Error` for all else.
    """
    if path.is_dir():
        raise ConfigError(f"the SQLite database {path} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"the SQLite database {path} cannot be made: there is no directory {path.parent.absolute()}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"the SQLite database {path} cannot be written: it or its directory is read-only for us")
    _create_file(path)
    try:
        connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise ConfigError(f"the SQLite database {path} cannot be opened: {error}") from None
    try:
        _prepare(connection, path)
    except BaseException:  # whatever it is: nobody else knows of this connection
        connection.close()
        raise
    return connection


def others_may(path: Path) -> bool:
    """Whether other users of this machine have any right to the database."""
    return os.name == "posix" and bool(os.stat(path).st_mode & 0o077)


def _create_file(path: Path) -> None:
    """Make a missing file that is its owner's alone; SQLite gives the files beside it the same rights."""
    try:
        os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"the SQLite database {path} cannot be made: {error.strerror or error}") from None


@contextmanager
def transaction(connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    """A transaction: all or nothing of what the block writes is stored.

    With `IMMEDIATE` nobody else writes during the block; with `DEFERRED` all reads in the block see one state.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        with transaction(connection, "DEFERRED"):
            new = _is_new(connection, path)
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()  # `History` makes the checkpoints
        connection.execute("PRAGMA journal_size_limit = 0").fetchone()
        if new:
            _create(connection, path)
        elif _version(connection) < TABLES_VERSION:
            _upgrade(connection)
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from None
    if mode != "wal":
        raise ConfigError(f"the SQLite database {path} cannot have a write-ahead log there; put it on a local disk")


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the database has no tables yet. Raises `ConfigError` for a database that is not ssepool's."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if application == APPLICATION_ID:
        check_version(connection, path)
    if application != APPLICATION_ID and (application or version or tables):
        raise ConfigError(f"the SQLite database {path} belongs to another program; name another file")
    return not tables


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `ConfigError` if the tables are of a version that we do not know."""
    if (version := _version(connection)) > TABLES_VERSION:
        raise ConfigError(
            f"the SQLite database {path} was made by a newer ssepool (its tables have version {version}, ours "
            f"{TABLES_VERSION}); upgrade ssepool or name another file"
        )


def _version(connection: sqlite3.Connection) -> int:
    ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def _upgrade(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        version = _version(connection)
        if version >= TABLES_VERSION:  # another process has been quicker
            return
        if version < 2:
            _add_claims(connection)
        if version < 3:
            for statement in FACT_STATEMENTS:
                connection.execute(statement)
        _add_cuts(connection)
        connection.execute(f"PRAGMA user_version = {TABLES_VERSION}")


def _add_claims(connection: sqlite3.Connection) -> None:
    """Give the tables of version 1 the claims of the events in them."""
    connection.execute("ALTER TABLE events ADD COLUMN claim TEXT")
    claims = []
    for position, id, topics in connection.execute(
        "SELECT position, CAST(id AS BLOB), CAST(topics AS BLOB) FROM events WHERE id IS NOT NULL"
    ):
        with suppress(*UNREADABLE_ERRORS):
            claims.append((Record(b"", read_topics(topics), id=id.decode()).claim, position))
    connection.executemany("UPDATE events SET claim = ? WHERE position = ?", claims)
    connection.execute(CLAIM_INDEX)


def _add_cuts(connection: sqlite3.Connection) -> None:
    """Give the tables up to version 3, in which the broker itself dropped the oldest, cuts, timelines and keys."""
    ((epoch, newest, oldest, size),) = connection.execute("SELECT epoch, newest, oldest, bytes FROM history")
    connection.execute("DELETE FROM events WHERE position <= ?", (oldest,))  # they waited for slow tails
    connection.execute("ALTER TABLE events ADD COLUMN key TEXT")
    connection.execute("ALTER TABLE events ADD COLUMN removed INTEGER NOT NULL DEFAULT 0")
    connection.execute("DROP TABLE history")
    for statement in HISTORY_STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO history VALUES (?, ?, ?, ?, '[]')", (epoch, newest, size, oldest))


def _create(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        if _is_new(connection, path):  # another process may have been quicker
            for statement in TABLE_STATEMENTS:
                connection.execute(statement)
            connection.execute("INSERT INTO history VALUES (?, 0, 0, 0, '[]')", (new_epoch(),))


def _explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """The error to raise: a `ConfigError` if only another file, or other rights to this one, can help."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigError(f"the file {path} is not a SQLite database; name another")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return ConfigError(f"the SQLite database {path} cannot be written: {error}")
    return error
