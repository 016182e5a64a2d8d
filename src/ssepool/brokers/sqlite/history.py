"""History: reads and writes the events and messages in a database. Everything here blocks."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ssepool.brokers.base import (
    DROP_ENTRIES,
    MAX_MESSAGE_BYTES,
    PAGE_CUTS,
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
from ssepool.brokers.sqlite.file import check_version, connect, read_topics, transaction
from ssepool.brokers.sqlite.files import Files, Identity, identity
from ssepool.brokers.sqlite.seen import Seen
from ssepool.clock import wall_clock
from ssepool.config import HubConfig, MiB
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.core.timelines import Timeline, Timelines

logger = logging.getLogger("ssepool")

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Bytes of memory (`Entry.size`) at which a page ends; its last entry may exceed them."""

PAGE_MESSAGES = 4 * MiB // MAX_MESSAGE_BYTES
"""Messages of a page at most: 4 MiB if all are as large as they may be."""

MESSAGE_SECONDS = 60.0
"""Seconds until a message is deleted. All listeners have received it long before."""

WAL_BYTES = 4 * MiB
"""The size of the write-ahead log, in bytes, above which its content is moved into the database."""

_json = msgspec.json.Encoder().encode
_read_timelines = msgspec.json.Decoder(list[Timeline]).decode

_AMONG = "position IN (SELECT value FROM json_each(?))"


class History:
    """A connection to a database of events, for one thread."""

    def __init__(self, path: Path, config: HubConfig, seen: Seen) -> None:
        """Open the file. If it has an older state of the history than was `seen`, a new timeline begins.

        Raises `ConfigError`, and, as every method does, `sqlite3.Error`.
        """
        self._path = path
        self._config = config
        self._seen = seen
        self._now = Timelines("")
        self._noted = ("", 0)
        before = identity(path)
        self._connection = connect(path)
        try:
            self._second = connect(path)
        except BaseException:  # whatever it is: nobody else knows of the first one
            self._connection.close()
            raise
        try:
            self.bounds()
            self._files = Files(path)
            if before not in (None, identity(path)):
                raise sqlite3.OperationalError("the file was replaced while it was opened")
        except BaseException:  # as above
            self.close()
            raise

    @property
    def mark(self) -> tuple[str, int, Sequence[Identity | None]]:
        """The name of the history, how far we have seen it come, and in which files it is."""
        return (*self._noted, self._files.identities)

    @property
    def is_lost(self) -> bool:
        """Whether somebody has deleted or replaced the file or its log, so that others do not see what we have open."""
        return self._files.are_gone

    def leave(self) -> None:
        """Give up files that are lost. What can be saved of the history is in the file when this returns."""
        files = self._files
        with transaction(self._connection):  # all who have these files open wait, and then see that they are lost
            newest, _, _ = self._state()
            self._seen.note(self._now, newest)
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

    def begin(self) -> None:
        """Begin a new timeline, if there is something in a history that nobody but us has open: nobody knows then
        whether all that was published is still there."""
        with transaction(self._connection):
            newest, _, _ = self._state()
            if newest:
                self._renew(newest)
        self._note(newest)

    def renew(self, epoch: str) -> Bounds:
        """Begin a new timeline, if the history still has this name."""
        with transaction(self._connection):
            newest, _, _ = self._state()
            if self._now.epoch == epoch:
                self._renew(newest)
        return self.bounds()

    def append(self, records: Sequence[Record]) -> list[Stored]:
        """Store events, all or nothing. Raises `DuplicateEvent`."""
        self._move_log()
        with transaction(self._connection):
            newest, size, _ = self._state()
            if self._seen.is_behind(self._now, newest):
                self._renew_behind(newest)
            newest = self._behind_foreign(newest, len(records))
            refuse = self._config.on_duplicate == "refuse"
            positions = assign(records, self._kept(records), newest, refuse=refuse)
            stored: list[Stored] = []
            rows: list[tuple[Any, ...]] = []
            now = wall_clock()
            for record, position in zip(records, positions, strict=True):
                id = record.id or f"{self._now.epoch}-{position}"
                stored.append(Stored(id, position))
                if position > newest:  # else it is there already
                    rows.append(_row(record, position, now, len(id)))
                    newest, size = position, size + rows[-1][3]
            if rows:
                self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._connection.execute("UPDATE history SET newest = ?, bytes = ?", (newest, size))
        self._note(newest)
        return stored

    def drop(self, epoch: str, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> bool:
        """Forget entries, and remember cuts; false, and nothing is done, if the history has another name than `epoch`:
        the positions mean other entries then."""
        self._move_log()
        execute, there = self._connection.execute, _array(positions)
        with transaction(self._connection):
            _, _, before = self._state()
            if self._now.epoch != epoch:
                return False
            ((size,),) = execute(f"SELECT coalesce(sum(size), 0) FROM events WHERE {_AMONG}", (there,))
            execute(f"DELETE FROM events WHERE {_AMONG}", (there,))
            self._connection.executemany(
                "INSERT INTO cuts VALUES (?, ?, ?) ON CONFLICT (topic) DO UPDATE"
                " SET public = max(public, excluded.public), private = max(private, excluded.private)",
                [(topic, *cut) for topic, cut in cuts.items() if cut.newest > max(floor, before)],
            )
            if floor > before:
                execute("DELETE FROM cuts WHERE max(public, private) <= ?", (floor,))
            execute("UPDATE history SET bytes = bytes - ?, floor = max(floor, ?)", (size, floor))
        return True

    def trim(self) -> None:
        """Delete the messages and facts whose time is over."""
        now = wall_clock()
        self._move_log()
        with transaction(self._connection):
            self._connection.execute("DELETE FROM messages WHERE at <= ?", (now - MESSAGE_SECONDS,))
            self._connection.execute("DELETE FROM facts WHERE until <= ?", (now,))

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

    def _state(self) -> tuple[int, int, int]:
        """The newest position, the bytes of what is there, and the floor of the cuts, with the names of the history."""
        check_version(self._connection, self._path)
        ((epoch, newest, size, floor, timelines),) = self._connection.execute(
            "SELECT epoch, newest, bytes, floor, timelines FROM history"
        )
        if epoch != self._now.epoch:  # a name never gets others before it
            self._now = Timelines(epoch, _read_timelines(timelines))
        return newest, size, floor

    def _note(self, newest: int) -> None:
        self._seen.note(self._now, newest)
        self._noted = self._now.epoch, newest

    def _renew(self, newest: int) -> None:
        """Go on under another name behind `newest`."""
        now = self._now.followed(new_epoch(), newest)
        self._connection.execute("UPDATE history SET epoch = ?, timelines = ?", (now.epoch, _json(now.before).decode()))
        self._now = now
        self._seen.begun(now, newest)

    def _renew_behind(self, newest: int) -> None:
        before = self._now.epoch
        self._renew(newest)
        logger.error(
            "%s has been replaced by an older state of it: the history %s goes on as %s behind the position %d",
            self._path,
            before,
            self._now.epoch,
            newest,
        )

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

    def _kept(self, records: Sequence[Record]) -> dict[str, Kept]:
        """What the history has of the claims of these events."""
        kept: dict[str, Kept] = {}
        for claim in {record.claim for record in records if record.id is not None}:
            for position, frame, private, key, removed in self._connection.execute(
                "SELECT position, CAST(frame AS BLOB), private, key, removed FROM events WHERE claim = ?", (claim,)
            ):
                record = Record(frame, (), bool(private), key=key, removed=bool(removed))
                kept[claim or ""] = Kept(position, record.content)
        return kept

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
        if self._seen.is_behind(self._now, bounds.newest):
            with transaction(self._connection):
                newest, _, _ = self._state()
                if self._seen.is_behind(self._now, newest):  # else another process has been quicker
                    self._renew_behind(newest)
            bounds = self._bounds()
        self._note(bounds.newest)
        return bounds

    def _bounds(self) -> Bounds:
        with transaction(self._connection, "DEFERRED"):
            newest, size, floor = self._state()
            ((first,),) = self._connection.execute("SELECT min(position) FROM events")
        oldest = newest if first is None else min(first - 1, newest)
        return Bounds(self._now.epoch, oldest, newest, size, self._now.before, floor)

    def read(self, epoch: str, after: int, max_entries: int) -> list[Entry] | None:
        """At most `max_entries` of the entries behind a position; None if `epoch` names another history."""
        return self._page(epoch, "position > ?", after, max_entries)

    def fetch(self, epoch: str, positions: Sequence[int]) -> list[Entry] | None:
        """Those of the entries at these positions that are there; None if `epoch` names another history."""
        return self._page(epoch, _AMONG, _array(positions), DROP_ENTRIES)

    def cuts(self, after: str) -> list[tuple[str, Cut]]:
        """The next topics behind a name, each with how far it has been dropped."""
        rows = self._connection.execute(
            "SELECT topic, public, private FROM cuts WHERE topic > ? ORDER BY topic LIMIT ?", (after, PAGE_CUTS)
        )
        return [(topic, Cut(public, private)) for topic, public, private in rows]

    def places(self, id: str, after: int) -> list[Place]:
        """The next events with this chosen id that are kept behind a position, at most `PAGE_PLACES`."""
        places: list[Place] = []
        for position, topics, private in self._connection.execute(
            "SELECT position, CAST(topics AS BLOB), private FROM events "
            "WHERE id = ? AND position > ? AND position <= (SELECT newest FROM history) ORDER BY position LIMIT ?",
            (id, after, PAGE_PLACES),
        ):
            try:
                places.append(Place(position, read_topics(topics), bool(private)))
            except UNREADABLE_ERRORS:
                places.append(Place(position, (), True))  # nobody's, but the next page begins behind it
        return places

    def made(self, id: str) -> int | None:
        """The position that an id of our making names; None if nothing is kept there, or if what had it is lost."""
        with transaction(self._connection, "DEFERRED"):
            newest, _, _ = self._state()
            found = self._now.place(id, newest)
            if found is None or not found.complete:
                return None
            rows = self._connection.execute("SELECT position FROM events WHERE position = ?", (found.position,))
            return next((position for (position,) in rows), None)

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

    def _page(self, epoch: str, which: str, among: int | str, max_entries: int) -> list[Entry] | None:
        with transaction(self._connection, "DEFERRED"):
            newest, _, _ = self._state()
            if self._now.epoch != epoch:
                return None
            rows = self._connection.execute(
                # Text as bytes: text that is not UTF-8 would be an error of the whole page.
                "SELECT position, CAST(id AS BLOB), CAST(topics AS BLOB), frame, private, CAST(key AS BLOB), removed, "
                f"at FROM events WHERE {which} AND position <= ? ORDER BY position LIMIT ?",
                (among, newest, min(max_entries, PAGE_ENTRIES)),
            )
            entries = self._entries(rows)
            rows.close()
        if entries:
            self._note(entries[-1].position)
        return entries

    def _entries(self, rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        for position, id, topics, frame, private, key, removed, at in rows:
            try:
                record = Record(frame, read_topics(topics), bool(private), _text(id), _text(key), bool(removed))
                entries.append(record.entry(self._now.epoch_at(position), position, at))
            except UNREADABLE_ERRORS:
                entries.append(unreadable(position))
            size += entries[-1].size
            if size >= PAGE_BYTES:
                break
        return entries


def _row(record: Record, position: int, now: float, id_bytes: int) -> tuple[Any, ...]:
    """A row of the table of events."""
    topics = _json(record.topics).decode()
    size = len(record.frame) + id_bytes + len(topics) + AROUND_ID_BYTES + STORED_BYTES
    said = record.id, now, size, record.private, topics, record.frame, record.claim, record.key, record.removed
    return (position, *said)


def _text(column: bytes | None) -> str | None:
    return None if column is None else column.decode()


def _array(positions: Sequence[int]) -> str:
    return _json(list(positions)).decode()
