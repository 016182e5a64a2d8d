"""History: the events and messages in a database, and what is asked of them. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ssepool.brokers.base import MOST_MESSAGE, Bounds, Stored, duplicate
from ssepool.brokers.record import Record
from ssepool.brokers.sqlite.file import connect, transaction
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry

PAGE = 1000
"""Entries that are read at a time at most,"""

PAGE_BYTES = MiB
"""and about how many of their bytes."""

MESSAGES = 4 * MiB // MOST_MESSAGE
"""Messages that are read at a time."""

MESSAGE_AGE = 60.0
"""Seconds until a message is deleted: all who listen have had it long before."""

SPARE_EVENTS = 1000
"""So many of the newest events are there for tails, also if the history is to keep fewer,"""

SPARE_BYTES = 4 * MiB
"""as long as they have no more than these bytes,"""

SPARE_AGE = 10.0
"""or until they are so old, in seconds."""

SLICE = 10_000
"""Events that are looked at in one transaction of `trim`, so that publishers need not wait long."""

LOG_BYTES = 4 * MiB
"""Of the write-ahead log: when it has more it goes into the database."""

_POSITION = re.compile("[1-9][0-9]{0,18}")
_topics = msgspec.json.Decoder(tuple[str, ...]).decode
_json = msgspec.json.Encoder().encode


class History:
    """A connection to a database of events, for one thread."""

    def __init__(self, path: Path, config: HubConfig) -> None:
        """Raises `ConfigError` and `sqlite3.Error`, as all methods do the latter."""
        self._path = path
        self._config = config
        self._connection = connect(path)
        self._second = connect(path)
        self._file = _identity(path)
        ((self.epoch,),) = self._connection.execute("SELECT epoch FROM history")

    @property
    def is_lost(self) -> bool:
        """Whether the file was deleted or put aside: what we have open is seen by nobody else."""
        return self._file != _identity(self._path)

    def close(self) -> None:
        self._second.close()
        self._connection.close()

    # Writing.

    def append(self, records: Sequence[Record]) -> list[Stored]:
        """Store events, all or nothing, and drop what the bounds forbid. Raises `DuplicateEvent`."""
        self._move_log()
        with transaction(self._connection):
            newest, oldest = self._ends()
            stored: list[Stored] = []
            rows: list[tuple[object, ...]] = []
            chosen: dict[str, int] = {}
            size, now = 0, time.time()
            for record in records:
                id, position = record.id, newest + 1
                if id is not None:
                    place = chosen.get(id) or self._chosen(id, oldest)
                    if place is not None:
                        if self._config.on_duplicate == "refuse":
                            raise duplicate(id)
                        stored.append(Stored(id, place))
                        continue
                    chosen[id] = position
                made = id or f"{self.epoch}-{position}"
                length = len(record.frame) + len(made) + len("id: \n")
                topics = _json(record.topics).decode()
                rows.append((position, id, now, length, record.private, topics, record.frame))
                stored.append(Stored(made, position))
                newest, size = position, size + length
            if rows:
                self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                self._shrink(newest, size, float("-inf"))
        return stored

    def trim(self) -> bool:
        """Drop what is too old, some of it; whether there may be more."""
        now = time.time()
        self._move_log()
        with transaction(self._connection):
            more = self._shrink(self._ends()[0], 0, now)
            self._connection.execute("DELETE FROM messages WHERE at <= ?", (now - MESSAGE_AGE,))
        return more

    def send(self, message: bytes) -> None:
        """Leave a message for all who listen. It need not survive the power, so nothing waits for the disk."""
        now = time.time()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            with transaction(self._connection):
                self._connection.execute("DELETE FROM messages WHERE at <= ?", (now - MESSAGE_AGE,))
                self._connection.execute("INSERT INTO messages (at, message) VALUES (?, ?)", (now, message))
        finally:
            self._connection.execute("PRAGMA synchronous = FULL")

    def _ends(self) -> tuple[int, int]:
        ((newest, oldest),) = self._connection.execute("SELECT newest, oldest FROM history")
        return newest, oldest

    def _chosen(self, id: str, oldest: int) -> int | None:
        found = self._connection.execute("SELECT max(position) FROM events WHERE id = ? AND position > ?", (id, oldest))
        position: int | None = found.fetchone()[0]
        return position

    def _shrink(self, newest: int, added: int, now: float) -> bool:
        """Note what has come, let the history end where its bounds say, and delete what not even tails need; whether
        there may be more to do. What is too old at `now` goes too."""
        config = self._config
        ((oldest, size, cleared, present),) = self._connection.execute(
            "SELECT oldest, bytes, cleared, present FROM history"
        )
        limits = (config.history_events, config.history_bytes, now - config.history_age)
        spare = (SPARE_EVENTS, SPARE_BYTES, now - SPARE_AGE)
        kept = self._end(oldest, size + added, newest, newest, limits)
        there = self._end(cleared, present + added, kept[0], newest, spare)
        if there[0] > cleared:
            self._connection.execute("DELETE FROM events WHERE position <= ?", (there[0],))
        self._connection.execute(
            "UPDATE history SET newest = ?, oldest = ?, bytes = ?, cleared = ?, present = ?", (newest, *kept, *there)
        )
        more: bool = max(kept[0] - oldest, there[0] - cleared) >= SLICE
        return more

    def _end(
        self, position: int, size: int, most: int, newest: int, limits: tuple[float, float, float]
    ) -> tuple[int, int]:
        """The position before the first event within limits of count, bytes and time, and the bytes behind it; from a
        position with so many bytes behind it on, but not beyond `most`."""
        events, bytes, since = limits
        rows = self._connection.execute(
            "SELECT position, size, at FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
            (position, most, SLICE),
        )
        for place, length, at in rows:
            if newest - position <= events and size <= bytes and at > since:
                break
            position, size = place, size - length
        return position, size

    def _move_log(self) -> None:
        """Write the log into the database if it is long; the next transaction begins it anew.

        SQLite would do it by itself, but while others commit, and that spoils the database in very rare cases before
        SQLite 3.51.3 (its "WAL-reset bug"). So one connection keeps others from writing while the second does it.
        """
        with contextlib.suppress(FileNotFoundError, sqlite3.Error):  # a full disk, say; it is tried again next time
            if os.stat(f"{self._path}-wal").st_size > LOG_BYTES:
                with transaction(self._connection):
                    self._second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    # Reading.

    def bounds(self) -> Bounds:
        """What is kept."""
        row = self._connection.execute("SELECT epoch, oldest, newest, bytes FROM history").fetchone()
        return Bounds(*row)

    def read(self, epoch: str, after: int, most: int) -> list[Entry] | None:
        """Entries that are kept behind a position; None if this is not the history that is asked for."""
        if epoch != self.epoch:
            return None
        return self._page("position > max(?, (SELECT oldest FROM history))", after, most)

    def follow(self, epoch: str, after: int) -> list[Entry] | None:
        """As `read`, for who has all up to there: what is kept no longer comes too, if it is there. None if this is not
        the history that was followed."""
        return self._page("position > ?", after, PAGE) if epoch == self.epoch else None

    def find(self, id: str) -> int | None:
        """The position of an event that is kept."""
        newest, oldest = self._ends()
        position = self._chosen(id, oldest)
        epoch, _, number = id.rpartition("-")
        if position is None and epoch == self.epoch and _POSITION.fullmatch(number) and oldest < int(number) <= newest:
            position = int(number)
        return position

    def last_message(self) -> int:
        """The number of the message that was sent last."""
        row = self._connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return row[0] or 0

    def messages(self, after: int) -> list[tuple[int, bytes]]:
        """The next messages behind a number, and theirs."""
        return self._connection.execute(
            "SELECT number, message FROM messages WHERE number > ? ORDER BY number LIMIT ?", (after, MESSAGES)
        ).fetchall()

    def _page(self, which: str, after: int, most: int) -> list[Entry]:
        rows = self._connection.execute(
            f"SELECT position, id, topics, frame, private FROM events WHERE {which} ORDER BY position LIMIT ?",
            (after, min(most, PAGE)),
        )
        entries: list[Entry] = []
        size = 0
        for position, id, topics, frame, private in rows:
            entries.append(Record(frame, _topics(topics), bool(private), id).entry(self.epoch, position))
            size += len(frame)
            if size >= PAGE_BYTES:
                break
        rows.close()
        return entries


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file that is now."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
