"""Window: the newest entries of the order, kept in memory to be replayed."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ssepool.core.event import Entry
from ssepool.core.names import Names

STEP_ENTRIES = 2000
"""Entries that are indexed in one call: about a millisecond."""


class Kept(NamedTuple):
    """How much is kept."""

    events: int
    """Entries."""
    bytes: int
    """Bytes of memory that they take: `Entry.size`."""


class Window:
    """Entries by position, without holes, bounded by count, bytes of memory (`Entry.size`) and age (seconds).

    Ids that brokers make are `<epoch>-<position>`: an id of another epoch is recognised as one that is not kept, and
    the position is found without any table. Only ids that publishers chose need one. Such an id may name several
    events, one for each set of topics.
    """

    def __init__(self, epoch: str, *, after: int = 0, events: float, bytes: float, age: float) -> None:
        """Empty; the first entry comes at the position behind `after`."""
        self.epoch = epoch
        """Names the history that the entries are of."""
        self.newest = after
        """The position of the newest entry, kept or dropped."""
        self._prefix = epoch + "-"
        self._limits = (events, bytes, age)
        self._entries: dict[int, Entry] = {}
        self._times: deque[float] = deque()
        self._names = Names(self._entry)
        self._topics: dict[str, list[int]] = {}
        """The positions of each topic, in order, up to `_indexed`; a topic's last is one of an entry that is kept."""
        self._indexed = after
        self._dropped: Entry | None = None
        """The chosen entry that was dropped last, without its frame, if it was the last to be dropped."""
        self._bytes = 0

    @property
    def oldest(self) -> int:
        """The position before the oldest entry that is kept: replay can start behind it, not earlier."""
        return self.newest - len(self._entries)

    @property
    def kept(self) -> Kept:
        """How much is kept now."""
        return Kept(len(self._entries), self._bytes)

    def append(self, entries: Sequence[Entry], now: float) -> None:
        """Take the next entries in; they come in order and without holes."""
        self.keep(entries, [entry for entry in entries if not self._is_made(entry)], now)

    def keep(self, entries: Sequence[Entry], chosen: Iterable[Entry], now: float) -> None:
        """As `append`, when it is known which of the entries have ids that a publisher chose."""
        if not entries:
            return
        kept, times, size = self._entries, self._times, self._bytes
        for entry in entries:
            kept[entry.position] = entry
            times.append(now)
            size += entry.size
        self.newest = entry.position
        self._bytes = size
        for entry in chosen:
            self._names.add(entry)
        max_entries, max_bytes, _ = self._limits
        excess = len(kept) - max_entries
        while excess > 0 or self._bytes > max_bytes:
            self._drop()
            excess -= 1

    def expire(self, now: float) -> None:
        """Drop what is too old."""
        oldest = now - self._limits[2]
        while self._times and self._times[0] <= oldest:
            self._drop()

    def made(self, id: str) -> int | None:
        """The place that an id of the broker's making names, if this window can tell; it may lie before `oldest`."""
        number = id.removeprefix(self._prefix)
        if number != id and number.isascii() and number.isdigit() and len(number) < 20 and int(number) <= self.newest:
            return int(number)
        return None

    def named(self, id: str, topics: Iterable[str] | None = None) -> Sequence[int]:
        """The places, in order, of the events for which publishers chose this id, as far as they are remembered: those
        that are kept, and the one dropped last. With `topics` those of no other topics may be left out."""
        return self._names.positions(id, topics)

    def chosen(self, id: str, topics: tuple[str, ...]) -> Entry | None:
        """The entry that is kept of this chosen id and these topics."""
        return self._entries.get(self._names.position(id, topics) or 0)

    def first(self, places: Iterable[int], wants: Callable[[tuple[str, ...], bool], bool]) -> int | None:
        """The first of these places of which `wants` takes the entry's topics and privacy."""
        for place in places:
            entry = self._entry(place)
            if entry is not None and wants(entry.topics, entry.private):
                return place
        return None

    def read(self, after: int, *, max_entries: int) -> list[Entry]:
        """At most `max_entries` of the entries kept behind a position, in order."""
        start = max(after, self.oldest) + 1
        return [self._entries[position] for position in range(start, min(start + max_entries, self.newest + 1))]

    def at(self, position: int) -> Entry | None:
        """The entry at a position, if it is kept."""
        return self._entries.get(position)

    def back(self, topic: str | None, *, until: int) -> Iterator[Entry]:
        """The entries of a topic (None: of all) up to a position, as far as they are kept, the newest first. Of a topic
        those that are indexed. Entries may come and go meanwhile."""
        while until > self.oldest:
            if topic is not None:
                positions = self._topics.get(topic, ())
                place = bisect_right(positions, until)
                until = positions[place - 1] if place else 0
            entry = self._entries.get(until)
            if entry is None:
                return
            yield entry
            until -= 1

    def select(self, topics: Iterable[str], *, after: int, until: int, max_entries: int) -> tuple[list[Entry], int]:
        """At most `max_entries` of the entries of these topics behind `after` (from `oldest` on) and up to `until`, in
        order; and the position up to which there are no others.

        It costs what is found, however much else there is: were all clients that come back at once to look through
        everything that was published meanwhile, they would fall behind faster than they catch up. So the entries are
        indexed by topic, but only once somebody asks, a bounded number in each call.
        """
        self.index()
        until = min(until, self._indexed)
        runs = []
        for topic in topics:
            if positions := self._topics.get(topic):
                start = bisect_right(positions, after)
                runs.append(positions[start : start + max_entries])
        found = runs[0] if len(runs) == 1 else sorted(set().union(*runs))[:max_entries]
        reached = found[-1] if len(found) == max_entries else until
        found = found[: bisect_right(found, until)]
        return [self._entries[position] for position in found], max(after, min(reached, until))

    @property
    def is_indexed(self) -> bool:
        """Whether the topics of all entries have been looked at."""
        return self._indexed >= self.newest

    def index(self) -> None:
        """Look at the topics of the next entries, a bounded number of them."""
        start = max(self._indexed, self.oldest)
        self._indexed = min(self.newest, start + STEP_ENTRIES)
        for place in range(start + 1, self._indexed + 1):
            entry = self._entries[place]
            position = entry.position  # `place` would be an object of its own
            for topic in dict.fromkeys(entry.topics):  # an event may name a topic twice
                if topic in self._topics:
                    self._topics[topic].append(position)
                else:
                    self._topics[topic] = [position]

    def _forget(self, entry: Entry) -> None:
        """Take an entry that is dropped out of the index: its topics if they have no other, else half of a topic's
        positions at a time, so that it costs little."""
        for topic in entry.topics:
            if positions := self._topics.get(topic):
                if positions[-1] <= entry.position:
                    del self._topics[topic]
                elif positions[len(positions) // 2] <= entry.position:
                    del positions[: len(positions) // 2 + 1]

    def _is_made(self, entry: Entry) -> bool:
        return entry.id is not None and entry.id == self._prefix + str(entry.position)

    def _drop(self) -> None:
        entry = self._entries.pop(self.newest - len(self._entries) + 1)
        self._times.popleft()
        self._bytes -= entry.size
        if entry.position <= self._indexed and self._topics:
            self._forget(entry)
        if self._names:
            # The id of the one dropped last is still good to go on from: all that came after it is kept.
            if self._dropped is not None:
                self._names.discard(self._dropped)
            self._dropped = None if self._is_made(entry) else msgspec.structs.replace(entry, chunk=b"")

    def _entry(self, position: int) -> Entry | None:
        dropped = self._dropped
        return dropped if dropped is not None and dropped.position == position else self._entries.get(position)

    def __repr__(self) -> str:
        return f"<Window {self.epoch} {self.oldest + 1} to {self.newest}>"
