"""The file of a history: is it ours, and how is it opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ssepool.brokers.base import new_epoch
from ssepool.errors import ConfigError

APPLICATION = int.from_bytes(b"SSEP", "big")
"""What SQLite files of ours carry in their header (`PRAGMA application_id`)."""

VERSION = 1
"""Of the tables (`PRAGMA user_version`)."""

PATIENCE = 0.002
"""Seconds that a statement waits for a lock before it is begun again; SQLite alone would sleep ever longer."""

TABLES = (
    # `oldest` and `bytes` are of what is kept, `cleared` and `present` of what is there: events beyond the history stay
    # a little, for tails that have not had them yet.
    "CREATE TABLE history (epoch TEXT NOT NULL, newest INTEGER NOT NULL, oldest INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, cleared INTEGER NOT NULL, present INTEGER NOT NULL)",
    "CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, at REAL NOT NULL, size INTEGER NOT NULL,"
    " private INTEGER NOT NULL, topics TEXT NOT NULL, frame BLOB NOT NULL)",
    "CREATE INDEX events_id ON events (id) WHERE id IS NOT NULL",
    "CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, message BLOB NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, and make it if it is not there.

    Raises `ConfigError` for a path that will not do and a file that is not ours, `sqlite3.Error` for all else.
    """
    if path.is_dir():
        raise ConfigError(f"the SQLite database {path} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"the SQLite database {path} cannot be made: there is no directory {path.parent.absolute()}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"the SQLite database {path} cannot be written: it or its directory is read-only for us")
    try:
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise ConfigError(f"the SQLite database {path} cannot be opened: {error}") from None
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    """All or nothing of what is done meanwhile; nobody else writes. If it is deferred, all reads see one state."""
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
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()  # `History` does it
        connection.execute("PRAGMA journal_size_limit = 0").fetchone()
        if new:
            _create(connection, path)
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from None
    if mode != "wal":
        raise ConfigError(f"the SQLite database {path} cannot have a write-ahead log there; put it on a local disk")


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether nobody has made tables yet. Raises `ConfigError` for a database that is not ours."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if application == APPLICATION and version > VERSION:
        raise ConfigError(
            f"the SQLite database {path} was made by a newer ssepool (its tables have version {version}, ours "
            f"{VERSION}); upgrade ssepool or name another file"
        )
    if application != APPLICATION and (application or version or tables):
        raise ConfigError(f"the SQLite database {path} belongs to another program; name another file")
    return not tables


def _create(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        if _is_new(connection, path):  # another process may have been quicker
            for statement in TABLES:
                connection.execute(statement)
            connection.execute("INSERT INTO history VALUES (?, 0, 0, 0, 0, 0)", (new_epoch(),))


def _explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """What can only be mended by naming another file, or by other rights to this one, is a `ConfigError`."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigError(f"the file {path} is not a SQLite database; name another")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return ConfigError(f"the SQLite database {path} cannot be written: {error}")
    return error
