"""Files: which files a database is at the moment, and what is done when somebody has taken one of them away."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ssepool.brokers.base import new_epoch

Identity = tuple[int, int]
"""The device and inode of a file."""

SUFFIXES = ("", "-wal", "-shm")
"""What the names of a database's files end in: its own, that of its write-ahead log, that of the index of this."""


class Files:
    """The files that a connection has open. SQLite goes on with them when they have other names or none, so whoever
    opens the database by its name then reads and writes others, or mixes them.

    While a connection is open, nobody but us deletes or replaces any of them in an orderly way.
    """

    def __init__(self, path: Path) -> None:
        """Note which files they are. Somebody has just read from the database, so they are there."""
        self._path = path
        self._real = os.path.realpath(path)
        self._open = self._there()

    @property
    def identities(self) -> tuple[Identity | None, ...]:
        """Which files they are, in the order of `SUFFIXES`."""
        return self._open

    @property
    def are_gone(self) -> bool:
        """Whether somebody has deleted or replaced one. Raises `OSError` if we must not look."""
        return self._there() != self._open

    @property
    def is_renamed(self) -> bool:
        """Whether the database itself is another file now, or none."""
        return identity(self._path) != self._open[0]

    def replace(self, connection: sqlite3.Connection) -> None:
        """Put a copy of all that a connection sees in the place of the database. Nobody must write meanwhile.

        With the log gone, the file alone lacks what is in the log, and is spoilt as soon as others begin another one.
        """
        copy = f"{self._real}-{new_epoch()}"
        try:
            os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
                connection.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file
            before = os.stat(self._real)
            os.chmod(copy, before.st_mode & 0o777)
            if hasattr(os, "chown"):
                os.chown(copy, before.st_uid, before.st_gid)
            self._unlink(SUFFIXES[1:])
            os.replace(copy, self._real)
            _sync(os.path.dirname(self._real))
        finally:
            for suffix in SUFFIXES:
                with contextlib.suppress(OSError):
                    os.unlink(copy + suffix)

    def leave(self) -> None:
        """Delete what is still there of the log, if the database is another file: it would be taken for that one's."""
        there = self._there()
        self._unlink([suffix for suffix, now, was in zip(SUFFIXES, there, self._open, strict=True) if now == was])

    def _there(self) -> tuple[Identity | None, ...]:
        return _identities(self._path)

    def _unlink(self, suffixes: Sequence[str]) -> None:
        _unlink(self._real, suffixes)


def left_behind(path: Path, before: Sequence[Identity | None]) -> list[str]:
    """The suffixes of the files beside a database that belong to one that had its name `before`. SQLite would take the
    log of that one for this one's, and spoil it."""
    now = _identities(path)
    if len(before) != len(now) or now[0] == before[0]:
        return []
    return [suffix for suffix, one, was in zip(SUFFIXES, now, before, strict=True) if suffix and one and one == was]


def delete(path: Path, suffixes: Sequence[str]) -> None:
    """Delete files beside a database."""
    _unlink(os.path.realpath(path), suffixes)


def _identities(path: Path) -> tuple[Identity | None, ...]:
    real = os.path.realpath(path)
    return (identity(path), *(identity(Path(real + suffix)) for suffix in SUFFIXES[1:]))


def _unlink(real: str, suffixes: Sequence[str]) -> None:
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real + suffix)


def identity(path: Path) -> Identity | None:
    """Which file has this name now; None if there is none. Raises `OSError` if we must not look."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _sync(directory: str) -> None:
    """Have the new name on disk, where a directory can be synchronised."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
