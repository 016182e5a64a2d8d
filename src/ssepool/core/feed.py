"""Feed: the shared frame log of one subscription in one dialect, and the cursors over it.

A cursor is a number: how many entries of its feed a connection has been given since the feed began. All connections
with the same subscription share one feed, so an event is encoded once and kept once, and a slow client costs no
memory of its own: its cursor lags, that is all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ssepool.config import KiB
from ssepool.core.event import Entry
from ssepool.core.frames import DIALECT, Dialect
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription

JOIN_BYTES = 256 * KiB
"""One read joins about this much: more than a socket buffer takes, little enough that a join is quick."""

MAX_JOINS = 8
"""Joins that a feed keeps: clients that lag do so at cursors of their own, and share little."""

MAX_JOINING_FEEDS = 8
"""Feeds of a hub that keep large joins at a time: those that made one last. All joins together take 16 MiB."""

SMALL_JOIN_BYTES = 4 * KiB
"""A join up to this size is not worth counting: it takes less than the connection that it is for."""


class Member(Protocol):
    """A connection that follows a feed, as the feed and its delivery see it."""

    weight: int
    """What a flush costs later in this turn of the event loop; delivery limits the sum per slice."""
    stalled: bool
    """Whether the transport takes no more at the moment."""

    @property
    def cursor(self) -> int:
        """The place in the feed up to which the connection has been written to."""

    def flush(self) -> None:
        """Write what there is to write, or see that it is written soon."""

    def close(self, reason: Reason) -> None:
        """End the stream with a goodbye."""

    def end(self, reason: Reason) -> None:
        """End the stream, whatever has been written."""


class Joins:
    """Which feeds of a hub keep large joins, so that all of them together keep a bounded number."""

    def __init__(self) -> None:
        self._feeds: dict[Feed, None] = {}

    def keep(self, feed: Feed) -> None:
        """A feed keeps a large join; the feed that began to do so longest ago may have to let its own go."""
        if feed not in self._feeds:
            self._feeds[feed] = None
            if len(self._feeds) > MAX_JOINING_FEEDS:
                oldest = next(iter(self._feeds))
                self.let_go(oldest)

    def let_go(self, feed: Feed) -> None:
        """A feed is to keep no joins, or is needed no longer."""
        if feed in self._feeds:
            del self._feeds[feed]
            feed.forget_joins()


class Feed:
    """The entries that some connection of one subscription has still to be given.

    `members` and `behind` are kept by the runtime.
    """

    __slots__ = (
        "_cut",
        "_cut_size",
        "_joined",
        "_joins",
        "_size",
        "appended_at",
        "behind",
        "dialect",
        "entries",
        "first",
        "head",
        "members",
        "subscription",
    )

    def __init__(self, subscription: Subscription, joins: Joins | None = None, dialect: Dialect = DIALECT) -> None:
        """`joins` is what all feeds of a hub share."""
        self.subscription = subscription
        """What all connections of this feed want."""
        self.dialect = dialect
        """In which all of them are told what the hub itself has to say."""
        self.members: dict[Member, None] = {}
        """All connections of this feed."""
        self.behind: dict[Member, None] = {}
        """The connections that are known to lack entries."""
        self.entries: list[Entry] = []
        """The entries kept, in order; the first is at the cursor `first`."""
        self.first = 0
        """The oldest cursor that can still be served."""
        self.head = 0
        """The cursor of a connection that has everything."""
        self.appended_at = float("-inf")
        """When the last entry came, in seconds of the clock that `append` is given."""
        self._cut: dict[str, tuple[int, Entry]] = {}
        """The newest of each topic, with its cursor, among the entries cut off although somebody needed them; the topic
        that was cut last is the last."""
        self._cut_size = 0
        """Bytes of these entries, each counted for every topic that keeps it."""
        self._size = 0
        self._joins = joins or Joins()
        self._joined: dict[int, tuple[bytes, int]] = {}
        """By cursor; those that are not chunked by its complement, which no cursor is."""

    @property
    def size(self) -> int:
        """Bytes of memory of all entries kept: `Entry.size`."""
        return self._size

    def append(self, entry: Entry, now: float) -> None:
        """Put an entry at the head."""
        self.entries.append(entry)
        self.head += 1
        self.appended_at = now
        self._size += entry.size
        if self._joined:
            self._joined.clear()

    def read(self, cursor: int, until: int | None = None, chunked: bool = True) -> tuple[bytes, int]:
        """Frames from `cursor` on, joined, and the cursor after them. All connections that read there
        share the join. Each frame is a chunk, if they are to be `chunked`, so that a join is chunks too.

        With `until`, no further than that cursor. Raises `IndexError` for a cursor that is not from `first` to `head`.
        """
        if until is not None and until < self.head:
            return self._join(cursor, until, chunked)
        key = cursor if chunked else ~cursor
        found = self._joined.get(key)
        if found is None:
            found = self._join(cursor, self.head, chunked)
            if len(self._joined) >= MAX_JOINS:
                self._joined.clear()
            self._joined[key] = found
            if len(found[0]) > SMALL_JOIN_BYTES:
                self._joins.keep(self)
        return found

    def forget_joins(self) -> None:
        """Keep no joins; who reads makes them anew."""
        self._joined.clear()

    def split(self, cursor: int, written: int, chunked: bool = True) -> tuple[int, memoryview]:
        """After only `written` bytes of such a `read` went out: the cursor behind the frame that was cut in two,
        and the rest of that frame. Where a frame ended exactly there, the rest is empty."""
        while written:
            entry = self.entries[cursor - self.first]
            data = entry.chunk if chunked else entry.frame
            cursor += 1
            if written < len(data):
                return cursor, memoryview(data)[written:]
            written -= len(data)
        return cursor, memoryview(b"")

    def trim(self, slowest: int, healthy: int, *, max_entries: int, max_bytes: int, keep_latest: bool = False) -> None:
        """Drop what no cursor needs, and what the bounds forbid.

        All before `slowest` goes; that cursor may have fallen off already. Of the rest the oldest goes while there are
        more than `max_entries` entries or `max_bytes` bytes, but nothing from `healthy` on: the cursor of the slowest
        connection that is not stalled, only waiting for its turn. With `keep_latest`, the newest entry of each topic
        that was cut is remembered, for as long as some cursor has fallen off; of these, too, the oldest go beyond
        `max_bytes`.
        """
        entries, first = self.entries, self.first
        if slowest >= first:
            self._forget_cut()
        drop = needed = max(0, slowest - first)
        size = self._size - sum([entry.size for entry in entries[:drop]])
        while drop < healthy - first and (len(entries) - drop > max_entries or size > max_bytes):
            size -= entries[drop].size
            drop += 1
        if not drop:
            return
        if keep_latest:
            for place in range(needed, drop):
                self._remember_cut(first + place, entries[place])
            while self._cut_size > max_bytes:
                self._cut_size -= self._cut.pop(next(iter(self._cut)))[1].size
        del entries[:drop]
        self.first += drop
        self._size = size
        self._joined.clear()

    def clear(self) -> None:
        """Nobody is behind: keep nothing."""
        if self.entries:
            self.entries = []
            self.first = self.head
            self._size = 0
            self._joined.clear()
        self._forget_cut()

    def _remember_cut(self, cursor: int, entry: Entry) -> None:
        for topic in entry.topics:
            if before := self._cut.pop(topic, None):
                self._cut_size -= before[1].size
            self._cut[topic] = (cursor, entry)
            self._cut_size += entry.size

    def _forget_cut(self) -> None:
        if self._cut:
            self._cut.clear()
            self._cut_size = 0

    def newest(self) -> int:
        """Where a client that lagged too far goes on under the policy `skip`: at the newest entry that is kept."""
        return max(self.head - 1, self.first)

    def latest(self, cursor: int) -> list[Entry]:
        """What a client at `cursor` is given under the policy `latest`: of all that it lacks each topic's newest, in
        order. It does not get again what it has already, even if that was cut because of a slower client."""
        newest = {topic: found for topic, found in self._cut.items() if found[0] >= cursor}
        first = self.first
        for place in range(max(0, cursor - first), len(self.entries)):
            for topic in self.entries[place].topics:
                newest[topic] = (first + place, self.entries[place])
        chosen = dict(newest.values())  # an event of several topics once
        return [chosen[number] for number in sorted(chosen)]

    def _join(self, cursor: int, until: int, chunked: bool) -> tuple[bytes, int]:
        entries, start, stop = self.entries, cursor - self.first, until - self.first
        if not 0 <= start <= len(entries):
            raise IndexError(f"cursor {cursor} is not from {self.first} to {self.head}")
        if self._size <= JOIN_BYTES:  # their frames are less
            return joined(entries[start:stop], chunked), until
        end, size = start, 0
        while end < stop and (end == start or size + len(entries[end].chunk) <= JOIN_BYTES):
            size += len(entries[end].chunk)
            end += 1
        return joined(entries[start:end], chunked), self.first + end

    def __repr__(self) -> str:
        return f"<Feed head={self.head} kept={len(self.entries)} members={len(self.members)}>"


def joined(entries: Iterable[Entry], chunked: bool) -> bytes:
    """The frames of these entries, one behind the other, each a chunk if they are to be `chunked`."""
    return b"".join([entry.chunk if chunked else entry.frame for entry in entries])
