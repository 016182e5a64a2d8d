"""History: reads and writes the events and messages in a database. Everything here blocks."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ssepool.brokers.base import (
    MAX_MESSAGE_BYTES,
    PAGE_FACTS,
    PAGE_PLACES,
    Bounds,
    Fact,
    Kept,
    Place,
    Stored,
    assign,
    new_epoch,
)
from ssepool.brokers.record import AROUND_ID_BYTES, STORED_BYTES, UNREADABLE_ERRORS, Record, unreadable
from ssepool.brokers.sqlite.file import connect, read_topics, transaction
from ssepool.brokers.sqlite.files import Files, identity
from ssepool.clock import wall_clock
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry

logger = logging.getLogger("ssepool")

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Bytes of memory (`Entry.size`) at which a page ends; its last entry may exceed them."""

PAGE_MESSAGES = 4 * MiB // MAX_MESSAGE_BYTES
"""Messages of a page at most: 4 MiB if all are as large as they may be."""

MESSAGE_SECONDS = 60.0
"""Seconds until a message is deleted. All listeners have received it long before."""

SPARE_EVENTS = 1000
"""The newest events that stay in the table for tails, even if the history keeps fewer."""

SPARE_BYTES = 4 * MiB
"""Bytes of the events that stay in the table for tails, even if the history keeps fewer."""

SPARE_SECONDS = 10.0
"""Seconds that events beyond the history stay in the table for tails."""

SLICE_ENTRIES = 10_000
"""Entries that one transaction looks at when it trims, so that publishers do not wait long for it."""

WAL_BYTES = 4 * MiB
"""The size of the write-ahead log, in bytes, above which its content is moved into the database."""

MAX_SEEN = 100
"""Histories of one file that a process remembers."""

_POSITION = re.compile("[1-9][0-9]{0,18}")
_json = msgspec.json.Encoder().encode


class Seen:
    """How far a process has seen the histories of a file: no position up to there is given out a second time."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def note(self, epoch: str, newest: int) -> None:
        """The history of this name has come so far."""
        if newest >= self._newest.get(epoch, 0):
            self._newest[epoch] = newest
            if len(self._newest) > MAX_SEEN:
                del self._newest[next(iter(self._newest))]

    def is_behind(self, epoch: str, newest: int) -> bool:
        """Whether a history that ends there is an older state of one that was seen."""
        return newest < self._newest.get(epoch, 0)


class History:
    """A connection to a database of events, for one thread."""

    def __init__(self, path: Path, config: HubConfig, seen: Seen | None = None) -> None:
        """Open the file. If it has an older state of the history than was `seen`, another history begins with it.

        Raises `ConfigError`, and, as every method does, `sqlite3.Error`.
        """
        self._path = path
        self._config = config
        self._seen = seen or Seen()
        before = identity(path)
        self._connection = connect(path)
        try:
            self._second = connect(path)
        except BaseException:  # whatever it is: nobody else knows of the first one
            self._connection.close()
            raise
        self.epoch = ""
        """The name of the history in this file."""
        try:
            self.bounds()
            self._files = Files(path)
            if before not in (None, identity(path)):
                raise sqlite3.OperationalError("the file was replaced while it was opened")
        except BaseException:  # as above
            self.close()
            raise

    @property
    def is_lost(self) -> bool:
        """Whether somebody has deleted or replaced the file or its log, so that others do not see what we have open."""
        return self._files.are_gone

    def leave(self) -> None:
        """Give up files that are lost. What can be saved of the history is in the file when this returns."""
        files = self._files
        with transaction(self._connection):  # all who have these files open wait, and then see that they are lost
            newest, _ = self._ends()
            self._seen.note(self.epoch, newest)
            if files.is_renamed:  # with another name it is to be whole
                self._second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                files.leave()
            else:
                files.replace(self._second)

    def close(self) -> None:
        """Close the connections to the file."""
        self._second.close()
        self._connection.close()

    # Writing.

    def append(self, records: Sequence[Record]) -> list[Stored]:
        """Store events, all or nothing, and drop the entries beyond the bounds. Raises `DuplicateEvent`."""
        self._move_log()
        with transaction(self._connection):
            newest, oldest = self._ends()
            if self._seen.is_behind(self.epoch, newest):
                self._begin_anew()
            newest = self._behind_foreign(newest, len(records))
            refuse = self._config.on_duplicate == "refuse"
            positions = assign(records, self._kept(records, oldest), newest, refuse=refuse)
            stored: list[Stored] = []
            rows: list[tuple[object, ...]] = []
            size, now = 0, wall_clock()
            for record, position in zip(records, positions, strict=True):
                id = record.id or f"{self.epoch}-{position}"
                stored.append(Stored(id, position))
                if position <= newest:  # it is there already
                    continue
                topics, claim = _json(record.topics).decode(), record.claim
                length = len(record.frame) + len(id) + len(topics) + AROUND_ID_BYTES + STORED_BYTES
                rows.append((position, record.id, now, length, record.private, topics, record.frame, claim))
                newest, size = position, size + length
            if rows:
                self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._shrink(newest, size, float("-inf"))
        self._seen.note(self.epoch, newest)
        return stored

    def trim(self) -> bool:
        """Drop a slice of the entries that are too old or beyond the bounds. Returns whether there may be more."""
        now = wall_clock()
        self._move_log()
        with transaction(self._connection):
            more = self._shrink(self._ends()[0], 0, now)
            self._connection.execute("DELETE FROM messages WHERE at <= ?", (now - MESSAGE_SECONDS,))
        return more

    def send(self, message: bytes) -> None:
        """Leave a message for all listeners. It need not survive the loss of power, so nothing waits for the disk."""
        now = wall_clock()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            with transaction(self._connection):
                self._connection.execute("DELETE FROM messages WHERE at <= ?", (now - MESSAGE_SECONDS,))
                self._connection.execute("INSERT INTO messages (at, message) VALUES (?, ?)", (now, message))
        finally:
            self._connection.execute("PRAGMA synchronous = FULL")

    def keep(self, name: str, data: bytes, seconds: float, most: int) -> bool:
        """Keep a fact; false, and nothing has been done, if there are so many others."""
        now = wall_clock()
        with transaction(self._connection):
            self._connection.execute("DELETE FROM facts WHERE until <= ?", (now,))
            ((others, newest),) = self._connection.execute(
                "SELECT count(*) - count(CASE name WHEN ? THEN 1 END), coalesce(max(number), 0) FROM facts", (name,)
            )
            if others >= most:
                return False
            number = max(newest + 1, int(now * 1e6))  # also behind those that are gone, if all are
            self._connection.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", (name, number, now + seconds, data)
            )
        return True

    def _ends(self) -> tuple[int, int]:
        ((self.epoch, newest, oldest),) = self._connection.execute("SELECT epoch, newest, oldest FROM history")
        return newest, oldest

    def _behind_foreign(self, newest: int, wanted: int) -> int:
        """The position behind which there is room for so many events: behind rows that nobody of ours has put there.
        Who reads them meets an event, something unreadable, or a hole."""
        while True:
            ((foreign,),) = self._connection.execute(
                "SELECT max(position) FROM events WHERE position > ? AND position <= ?", (newest, newest + wanted)
            )
            if foreign is None:
                return newest
            self._connection.execute(
                "UPDATE events SET size = 0, at = ? WHERE position > ? AND position <= ?",
                (wall_clock(), newest, foreign),
            )
            newest = foreign

    def _begin_anew(self) -> None:
        """Give the history another name: its next positions have been given to other events already."""
        self.epoch = new_epoch()
        self._connection.execute("UPDATE history SET epoch = ?", (self.epoch,))
        logger.error("%s has been replaced by an older state of it; the history %s begins", self._path, self.epoch)

    def _kept(self, records: Sequence[Record], oldest: int) -> dict[str, Kept]:
        """What the history has of the claims of these events."""
        kept: dict[str, Kept] = {}
        for claim in {record.claim for record in records if record.id is not None}:
            for position, frame, private in self._connection.execute(
                "SELECT position, CAST(frame AS BLOB), private FROM events WHERE claim = ? AND position > ?",
                (claim, oldest),
            ):
                kept[claim or ""] = Kept(position, Record(frame, (), bool(private)).content)
        return kept

    def _shrink(self, newest: int, added: int, now: float) -> bool:
        """Count `added` bytes up to the position `newest`, move the end of the history to its bounds, and delete the
        rows that tails no longer need either.

        `now` decides which entries are too old; minus infinity drops none for its age. Returns whether there may be
        more to do.
        """
        config = self._config
        ((oldest, size, cleared, present),) = self._connection.execute(
            "SELECT oldest, bytes, cleared, present FROM history"
        )
        limits = (config.history_events, config.history_bytes, now - config.history_age)
        spare = (SPARE_EVENTS, SPARE_BYTES, now - SPARE_SECONDS)
        kept = self._end(oldest, size + added, newest, newest, limits)
        there = self._end(cleared, present + added, kept[0], newest, spare)
        if there[0] > cleared:
            self._connection.execute("DELETE FROM events WHERE position <= ?", (there[0],))
        self._connection.execute(
            "UPDATE history SET newest = ?, oldest = ?, bytes = ?, cleared = ?, present = ?", (newest, *kept, *there)
        )
        more: bool = max(kept[0] - oldest, there[0] - cleared) >= SLICE_ENTRIES
        return more

    def _end(
        self, position: int, size: int, max_entries: int, newest: int, limits: tuple[float, float, float]
    ) -> tuple[int, int]:
        """Where the history ends: the position before the first event within `limits`, and the bytes behind it.

        The search begins at `position`, which has `size` bytes behind it, and goes no further than `max_entries`.
        `limits` are a number of events, a number of bytes, and the time (seconds since the epoch) of the oldest event.
        """
        events, bytes, since = limits
        rows = self._connection.execute(
            "SELECT position, size, at FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
            (position, max_entries, SLICE_ENTRIES),
        )
        for place, length, at in rows:
            if newest - position <= events and size <= bytes and at > since:
                break
            position, size = place, size - length
        return position, size

    def _move_log(self) -> None:
        """Move the content of a long write-ahead log into the database; the next transaction begins it anew.

        SQLite would do it by itself, but while other processes commit. Before SQLite 3.51.3 that damages the database
        in very rare cases (its "WAL-reset bug"). So one connection keeps others from writing while the second does it.
        """
        with contextlib.suppress(FileNotFoundError, sqlite3.Error):  # a full disk, say; the next call tries again
            if os.stat(f"{self._path}-wal").st_size > WAL_BYTES:
                with transaction(self._connection):
                    self._second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    # Reading.

    def bounds(self) -> Bounds:
        """What the history has now."""
        bounds = self._bounds()
        if self._seen.is_behind(bounds.epoch, bounds.newest):
            with transaction(self._connection):
                # Else another process has been quicker, or our own writer has stored events since we looked.
                newest, _ = self._ends()
                if self._seen.is_behind(self.epoch, newest):
                    self._begin_anew()
            bounds = self._bounds()
        self.epoch = bounds.epoch
        self._seen.note(bounds.epoch, bounds.newest)
        return bounds

    def _bounds(self) -> Bounds:
        row = self._connection.execute("SELECT epoch, oldest, newest, bytes FROM history").fetchone()
        return Bounds(*row)

    def read(self, epoch: str, after: int, max_entries: int) -> list[Entry] | None:
        """At most `max_entries` of the entries kept behind a position; None if `epoch` names another history."""
        if epoch != self._bounds().epoch:
            return None
        return self._page(
            epoch,
            "position > max(?, (SELECT oldest FROM history)) AND position <= (SELECT newest FROM history)",
            after,
            max_entries,
        )

    def follow(self, epoch: str, after: int) -> list[Entry] | None:
        """The next page for a tail that has every entry up to a position; None if `epoch` names another history.

        Unlike `read`, it also returns entries beyond the history that are still in the table.
        """
        if epoch != self._bounds().epoch:
            return None
        return self._page(epoch, "position > ? AND position <= (SELECT newest FROM history)", after, PAGE_ENTRIES)

    def places(self, id: str, after: int) -> list[Place]:
        """The next events with this chosen id that are kept behind a position, at most `PAGE_PLACES`."""
        places: list[Place] = []
        for position, topics, private in self._connection.execute(
            "SELECT position, CAST(topics AS BLOB), private FROM events "
            "WHERE id = ? AND position > max(?, (SELECT oldest FROM history)) ORDER BY position LIMIT ?",
            (id, after, PAGE_PLACES),
        ):
            try:
                places.append(Place(position, read_topics(topics), bool(private)))
            except UNREADABLE_ERRORS:
                places.append(Place(position, (), True))  # nobody's, but the next page begins behind it
        return places

    def made(self, id: str) -> int | None:
        """The position that an id of our making names; None if it is not kept."""
        newest, oldest = self._ends()
        epoch, _, number = id.rpartition("-")
        if epoch == self.epoch and _POSITION.fullmatch(number) and oldest < int(number) <= newest:
            return int(number)
        return None

    def kept(self, after: int) -> list[Fact]:
        """The next facts behind a number."""
        rows = self._connection.execute(
            "SELECT name, number, data FROM facts WHERE number > ? AND until > ? ORDER BY number LIMIT ?",
            (after, wall_clock(), PAGE_FACTS),
        )
        return [Fact(*row) for row in rows]

    def last_message(self) -> int:
        """The number of the newest message; 0 before the first."""
        row = self._connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return row[0] or 0

    def messages(self, after: int) -> list[tuple[int, bytes]]:
        """The next messages behind a number, each with its own number."""
        return self._connection.execute(
            "SELECT number, message FROM messages WHERE number > ? ORDER BY number LIMIT ?", (after, PAGE_MESSAGES)
        ).fetchall()

    def _page(self, epoch: str, which: str, after: int, max_entries: int) -> list[Entry]:
        rows = self._connection.execute(
            # Text as bytes: text that is not UTF-8 would be an error of the whole page.
            "SELECT position, CAST(id AS BLOB), CAST(topics AS BLOB), frame, private FROM events "
            f"WHERE {which} ORDER BY position LIMIT ?",
            (after, min(max_entries, PAGE_ENTRIES)),
        )
        entries: list[Entry] = []
        size = 0
        for position, id, topics, frame, private in rows:
            try:
                record = Record(frame, read_topics(topics), bool(private), None if id is None else id.decode())
                entries.append(record.entry(epoch, position))
            except UNREADABLE_ERRORS:
                entries.append(unreadable(position))
            size += entries[-1].size
            if size >= PAGE_BYTES:
                break
        rows.close()
        return entries
