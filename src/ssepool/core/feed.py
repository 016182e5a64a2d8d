"""Feed: the shared frame log of one subscription, and the cursors over it.

A cursor is a number: how many entries of its feed a connection has been given since the feed began. All connections
with the same subscription share one feed, so an event is encoded once and kept once, and a slow client costs no
memory of its own: its cursor lags, that is all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ssepool.config import KiB
from ssepool.core.topics import Subscription

JOIN_BYTES = 256 * KiB
"""One read joins about this much: more than a socket buffer takes, little enough that a join is quick."""


class Entry(NamedTuple):
    """An event as it is kept and delivered: its place in the broker's order, and its frame."""

    position: int
    """Place in the broker's order; 0 for what is live only."""
    id: str | None
    """The `id:` that the frame carries, if it carries one."""
    topics: tuple[str, ...]
    frame: bytes
    private: bool = False


class Feed:
    """The entries that some connection of one subscription has still to be given.

    `head` is the cursor of a connection that has everything, `first` the oldest cursor that can still be served.
    `members` and `behind` are kept by the runtime: all connections, and those known to lack entries.
    """

    __slots__ = (
        "_joined",
        "_size",
        "appended_at",
        "behind",
        "cut_latest",
        "entries",
        "head",
        "members",
        "subscription",
    )

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.members: dict[Any, None] = {}
        self.behind: dict[Any, None] = {}
        self.entries: list[Entry] = []
        self.head = 0
        self.appended_at = float("-inf")
        self.cut_latest: dict[str, Entry] = {}
        """The newest entry of each topic among those cut off the tail while somebody lagged (policy `latest`)."""
        self._size = 0
        self._joined: dict[int, tuple[bytes, int]] = {}

    @property
    def first(self) -> int:
        return self.head - len(self.entries)

    @property
    def size(self) -> int:
        """Bytes of all entries kept."""
        return self._size

    def append(self, entry: Entry, now: float) -> None:
        self.entries.append(entry)
        self.head += 1
        self.appended_at = now
        self._size += len(entry.frame)
        if self._joined:
            self._joined.clear()

    def read(self, cursor: int) -> tuple[bytes, int]:
        """Frames from `cursor` on, joined, and the cursor after them. The join is shared by all who read there."""
        joined = self._joined.get(cursor)
        if joined is None:
            joined = self._joined[cursor] = self._join(cursor)
        return joined

    def split(self, cursor: int, written: int) -> tuple[int, memoryview]:
        """After only `written` bytes of `read(cursor)` went out: the cursor behind the frame that was cut in two,
        and the rest of that frame. Where a frame ended exactly there, the rest is empty."""
        for entry in self.entries[cursor - self.first :]:
            if written == 0:
                break
            cursor += 1
            if written < len(entry.frame):
                return cursor, memoryview(entry.frame)[written:]
            written -= len(entry.frame)
        return cursor, memoryview(b"")

    def trim(self, slowest: int, healthy: int, *, most: int, most_bytes: int, keep_latest: bool = False) -> None:
        """Drop what no cursor needs, and what the bounds forbid.

        All before `slowest` goes. Of the rest the oldest goes while there are more than `most` entries or
        `most_bytes` bytes, but nothing from `healthy` on: the cursor of the slowest connection that is not stalled,
        only waiting for its turn. With `keep_latest`, the newest entry of each topic that was cut is remembered.
        """
        entries, first = self.entries, self.first
        drop = slowest - first
        size = self._size - sum([len(entry.frame) for entry in entries[:drop]])
        needed = drop
        while drop < healthy - first and (len(entries) - drop > most or size > most_bytes):
            size -= len(entries[drop].frame)
            drop += 1
        if drop <= 0:
            return
        if keep_latest:
            for entry in entries[needed:drop]:
                for topic in entry.topics:
                    self.cut_latest[topic] = entry
        del entries[:drop]
        self._size = size
        self._joined.clear()

    def clear(self) -> None:
        """Nobody is behind: keep nothing."""
        if self.entries:
            self.entries = []
            self._size = 0
            self._joined.clear()
        if self.cut_latest:
            self.cut_latest = {}

    def newest(self) -> int:
        """Where a client that lagged too far goes on under the policy `skip`: at the newest entry that is kept."""
        return max(self.head - 1, self.first)

    def latest(self) -> list[Entry]:
        """What a client that lagged too far is given under the policy `latest`: each topic's newest, in order."""
        newest = dict(self.cut_latest)
        for entry in self.entries:
            for topic in entry.topics:
                newest[topic] = entry
        kept = {id(entry): place for place, entry in enumerate(self.entries)}
        chosen = {id(entry): entry for entry in newest.values()}
        return sorted(chosen.values(), key=lambda entry: (kept.get(id(entry), -1), entry.position))

    def _join(self, cursor: int) -> tuple[bytes, int]:
        start = cursor - self.first
        entries: Sequence[Entry] = self.entries[start:] if start else self.entries
        if self._size <= JOIN_BYTES:
            return b"".join([entry.frame for entry in entries]), self.head
        frames: list[bytes] = []
        size = 0
        for entry in entries:
            if frames and size + len(entry.frame) > JOIN_BYTES:
                break
            frames.append(entry.frame)
            size += len(entry.frame)
        return b"".join(frames), cursor + len(frames)

    def __repr__(self) -> str:
        return f"<Feed head={self.head} kept={len(self.entries)} members={len(self.members)}>"


def joined(entries: Iterable[Entry]) -> bytes:
    return b"".join([entry.frame for entry in entries])
