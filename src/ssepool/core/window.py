"""Window: which events of the order are kept, topic by topic, and the newest of them at hand."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from ssepool.config import MiB
from ssepool.core.aging import Aging
from ssepool.core.beginning import Found
from ssepool.core.chosen import Chosen, is_made
from ssepool.core.cut import Cut
from ssepool.core.cuts import CUT_BYTES, MAX_CUTS, Cuts
from ssepool.core.event import Entry, topic_set
from ssepool.core.kept import DROP_REASONS, UNMISSED, Absent, DropReason, Held, Kept
from ssepool.core.lines import Line
from ssepool.core.order import Order
from ssepool.core.rules import Rules
from ssepool.core.timelines import Timelines
from ssepool.core.topic_lines import TopicLines
from ssepool.core.topics import Subscription

STEP_ENTRIES = 2000
"""Entries that are indexed in one call: about a millisecond."""

CUTS_SHARE = 16
"""The part of `bytes` beyond it that cuts of topics may take that have nothing any more."""

MIN_CUTS = 100
"""Cuts that are remembered in any case."""

SHARE = 8
"""The part of a line's events that a large history takes at a time."""

SLACK = 1.01
"""By how much large histories are beyond their bound of events, or below that of bytes, at times."""

LARGE_EVENTS, LARGE_BYTES = 1000, MiB
"""From when on a history is large."""

REMOVED_SECONDS = 86_400.0
"""Seconds at most that an event is kept which says that nothing is there any more."""


class Window:
    """Decides which entries of one order are kept: by topic, and bounded by count, bytes of memory (`Entry.size`) and
    age (seconds). The newest of them are at hand, in at most `at_hand` bytes; of the others it is known what they are.

    What is dropped is a function of the entries and the times, so that all who see the same order drop the same.
    `docs/design/history.md` says by which rules.
    """

    def __init__(
        self,
        timelines: str | Timelines,
        *,
        after: int = 0,
        events: float,
        bytes: float,
        age: float,
        rules: Rules | None = None,
        at_hand: float = math.inf,
    ) -> None:
        """Empty; the first entry comes behind the position `after`. `timelines` may be the name of a new history."""
        self.timelines = Timelines(timelines) if isinstance(timelines, str) else timelines
        """The names of the history that the entries are of."""
        self.newest = after
        """The position of the newest entry, kept or dropped."""
        self.rules = rules or Rules()
        """How much of each topic is kept."""
        self.drops: deque[tuple[float, Kept, bool]] | None = None
        """What has been dropped since somebody put a list here, with the time (seconds), and whether anybody can have
        missed it."""
        self.dropped: dict[str, int] = dict.fromkeys(DROP_REASONS, 0)
        """How many were dropped, by reason."""
        self.cuts = Cuts(min(MAX_CUTS, max(MIN_CUTS, bytes / CUTS_SHARE / CUT_BYTES)))
        """How far topics have been dropped that have nothing any more."""
        self._limits = (events, bytes, age)
        self._most_events = events * SLACK if events >= LARGE_EVENTS else events
        self._at_hand = at_hand
        self._kept: dict[int, Kept] = {}
        self._order = Order(self._kept)
        self._base = after
        """Kept entries up to here are not at hand."""
        self._chosen = Chosen(self._kept)
        self._keys: dict[tuple[tuple[str, ...], str], int] = {}
        self._lines = TopicLines(self.rules, self.cuts, self._kept)
        self._indexed = after
        self._aging = Aging(self.rules, age, self._lines)
        self._removed: deque[tuple[float, int]] = deque()
        """When the events came that say that nothing is there any more."""
        self._promised = 0
        self._size = self._bytes = 0

    @property
    def epoch(self) -> str:
        """The name of the history: the first part of the ids that are made now."""
        return self.timelines.epoch

    @property
    def oldest(self) -> int:
        """The position before the oldest entry that is kept."""
        first = self._order.first
        return self.newest if first is None else first - 1

    @property
    def is_whole(self) -> bool:
        """Whether all that is kept is at hand."""
        return self._base <= self.oldest

    @property
    def kept(self) -> Held:
        """How much is kept now."""
        return Held(len(self._kept), self._bytes)

    @property
    def topics(self) -> int:
        """How many topics have events that are kept, of what is indexed."""
        return self._lines.topics

    # Coming.

    def append(self, entries: Sequence[Entry], now: float, came: Callable[[Entry], float] | None = None) -> None:
        """Take the next entries in, in their order; positions behind `newest` that are left out were dropped. `came`
        says when one came (seconds), if that is not now."""
        self.keep(entries, [entry for entry in entries if not is_made(entry)], now, came)

    def keep(
        self,
        entries: Sequence[Entry],
        chosen: Iterable[Entry],
        now: float,
        came: Callable[[Entry], float] | None = None,
    ) -> None:
        """As `append`, when it is known which of the entries have ids that a publisher chose."""
        if not entries:
            return
        self._lines.now = now
        named = iter(chosen)
        next_named = next(named, None)
        kept, add, most_bytes, most = self._kept, self._order.add, self._limits[1], self._most_events
        is_ruled = self.rules.is_bound or self.rules.ages
        for entry in entries:  # one by one: pages begin elsewhere for others, who are to come to the same
            position = self.newest = entry.position
            kept[position] = entry
            at = now if came is None else came(entry)
            add(position, at)
            self._size += entry.size
            self._bytes += entry.size
            if entry is next_named:
                self._chosen.add(entry)
                next_named = next(named, None)
            if entry.key is not None:
                self._replace(entry, at)
            if is_ruled:
                self._index(math.inf)
            if self._bytes > most_bytes or len(kept) - self._promised > most:
                self._bound()
        while self._size > self._at_hand:
            self._put_away()

    def _replace(self, entry: Entry, at: float) -> None:
        """An entry takes the place of the one before it with its key and topics."""
        key = topic_set(entry.topics), entry.key or ""
        known = self._kept.get(self._keys.get(key, 0))
        self._keys[key] = entry.position
        if entry.removed:
            self._removed.append((at, entry.position))
        if known is not None:
            self._drop(known, "replaced")

    def _bound(self) -> None:
        """Drop what is beyond the bounds of all. Of large histories a hundredth at a time, which costs less."""
        most_events, most_bytes, _ = self._limits
        lines, kept = self._lines, self._kept
        if len(kept) - self._promised > self._most_events:
            self._index(math.inf)
            while (excess := len(kept) - self._promised - most_events) > 0:
                if (line := lines.by_events.find()) is None:
                    self._give_way(None, "events")
                    continue
                if most_events >= LARGE_EVENTS and line.is_plain and line.events >= SHARE:
                    self._drop_first(line, min(int(excess), line.events // SHARE))
                else:
                    self._give_way(line, "events")
        if self._bytes > most_bytes:
            newest = kept.get(self.newest)
            if newest is not None and newest.size > most_bytes:
                self._drop(newest, "bytes")
            self._index(math.inf)
            left = most_bytes / SLACK if most_bytes >= LARGE_BYTES else most_bytes
            while self._bytes > left and self._give_way(lines.by_bytes.find(), "bytes"):
                pass

    def _give_way(self, line: Line | None, why: DropReason) -> bool:
        """Drop the oldest of a line; if there is none, of all, or for `events` of those that no rule promises."""
        if line is not None:
            if position := self._lines.release(line):
                self._drop(self._kept[position], why)
            return position is not None
        for position in self._order:
            entry = self._kept[position]
            if why == "bytes" or not (self._promised and self.rules.promise(entry.topics)):
                self._drop(entry, why)
                return True
        return False

    def _drop_first(self, line: Line, count: int) -> None:
        """As to give way so many times, of a line that holds more, for less."""
        kept, positions, place = self._kept, line.positions, line.released
        dropped: list[Kept] = []
        while len(dropped) < count:
            entry = kept.pop(positions[place], None)
            place += 1
            if entry is not None:
                dropped.append(entry)
                if entry.private:
                    line.private = entry.position
                else:
                    line.public = entry.position
        size = sum([entry.size for entry in dropped])
        line.released = place
        line.events -= count
        self.dropped["events"] += count
        line.bytes -= size
        self._bytes -= size
        self._size -= sum([entry.size for entry in dropped if entry.position > self._base])
        self._order.forget([entry.position for entry in dropped])
        self.cuts.drop_all(dropped)
        if self._chosen:
            for entry in dropped:
                self._chosen.drop(entry)
        if self.drops is not None:
            self.drops.extend([(self._lines.now, entry, True) for entry in dropped])

    # Going.

    def expire(self, now: float) -> None:
        """Drop what is too old."""
        self._lines.now = now
        while self._removed and self._removed[0][0] <= now - REMOVED_SECONDS:
            entry = self._kept.get(self._removed.popleft()[1])
            if entry is not None:
                self._drop(entry, "age")
        aged = self._aging.expire(now) if self.rules.ages else self._order.until(now - self._limits[2])
        for position in aged:
            if (old := self._kept.get(position)) is not None:
                self._drop(old, "age")
        self.cuts.forget(now)

    def clear(self) -> None:
        """Drop everything, as if all of it were too old."""
        for entry in list(self._kept.values()):
            self._drop(entry, "age")

    def branched(self, timelines: Timelines, end: int) -> Window:
        """What is left where the history goes on under another name and all behind `end` is lost."""
        events, bytes, age = self._limits
        left = Window(
            timelines, after=end, events=events, bytes=bytes, age=age, rules=self.rules, at_hand=self._at_hand
        )
        left._base = min(self._base, end)
        left._indexed = 0
        for position in self._order:
            if position <= end:
                left._take_over(self._kept[position], self._order.time(position))
        left.cuts = self.cuts.until(end)
        left.cuts.load(((topic, cut.until(end)) for topic, cut in self._lines.cuts()), self._lines.now)
        left._lines = TopicLines(left.rules, left.cuts, left._kept)
        left._aging = Aging(left.rules, age, left._lines)
        left.drops = None if self.drops is None else deque()
        left._index(math.inf)
        return left

    def _take_over(self, entry: Kept, at: float) -> None:
        self._kept[entry.position] = entry
        self._order.add(entry.position, at)
        self._bytes += entry.size
        if entry.position > self._base:
            self._size += entry.size
        if entry.key is not None:
            self._keys[topic_set(entry.topics), entry.key] = entry.position
            if entry.removed:
                self._removed.append((at, entry.position))
        if isinstance(entry, Entry) and not is_made(entry):
            self._chosen.add(entry)

    def _drop(self, entry: Kept, why: DropReason) -> None:
        is_missed = why not in UNMISSED
        self.dropped[why] += 1
        del self._kept[entry.position]
        self._order.forget((entry.position,))
        self._bytes -= entry.size
        if entry.position > self._base:
            self._size -= entry.size
        is_held = entry.position <= self._indexed
        if self._promised and is_held and self.rules.promise(entry.topics):
            self._promised -= 1
        self._lines.remove(entry, is_held=is_held, is_missed=is_missed)
        if is_missed:
            self.cuts.drop(entry.position, entry.topics, entry.private)
        if entry.key is not None:
            key = topic_set(entry.topics), entry.key
            if self._keys.get(key) == entry.position:
                del self._keys[key]
        self._left(entry, is_missed)

    def _left(self, entry: Kept, is_missed: bool) -> None:
        self._chosen.drop(entry)
        if self.drops is not None:
            self.drops.append((self._lines.now, entry, is_missed))

    def _put_away(self) -> None:
        """Keep of the oldest entry at hand only what must be known of it."""
        position = self._order.after(self._base)
        assert position is not None
        entry = self._kept[position]
        self._base = position
        self._size -= entry.size
        if isinstance(entry, Entry):
            self._kept[position] = Absent.of(entry)
            self._chosen.put_away(entry)

    # Places.

    def place(self, id: str) -> Found | None:
        """Where a client goes on that has all up to an id of the broker's making, if this window can tell."""
        return self.timelines.place(id, self.newest)

    def named(self, id: str, topics: Iterable[str] | None = None) -> Sequence[int]:
        """The places, in order, of the events for which publishers chose this id, as far as they are remembered: those
        at hand, and those dropped last. With `topics` those of no other topics may be left out."""
        return self._chosen.positions(id, topics)

    def chosen(self, id: str, topics: tuple[str, ...]) -> Entry | None:
        """The entry that is at hand of this chosen id and these topics."""
        return self._chosen.entry(id, topics)

    def first(self, places: Iterable[int], wants: Callable[[tuple[str, ...], bool], bool]) -> int | None:
        """The first of these places of which `wants` takes the entry's topics and privacy."""
        return self._chosen.first(places, wants)

    def lost(
        self, subscription: Subscription, after: int, matches: Callable[[tuple[str, ...], bool], bool] | None = None
    ) -> int:
        """The position of the newest entry behind `after` that the subscription would have had and that was dropped; 0
        if it has missed nothing (`Cuts.lost`). `matches` is a quicker way to ask what belongs to it."""
        return self.cuts.lost(subscription, after, self._lines.cut, matches or subscription.matches)

    # Reading.

    def read(self, after: int, *, max_entries: int) -> list[Kept]:
        """At most `max_entries` of the entries kept behind a position, in order."""
        return [self._kept[position] for position in self._order.behind(after, max_entries)]

    def at(self, position: int) -> Kept | None:
        """The entry at a position, if it is kept."""
        return self._kept.get(position)

    def back(self, topic: str | None, *, until: int) -> Iterator[Kept]:
        """The entries of a topic (None: of all) up to a position, the newest first. Of a topic those that are indexed.
        Entries may come and go meanwhile."""
        while until:
            position = self._order.before(until) if topic is None else self._lines.before(topic, until)
            if entry := self._kept.get(position):
                yield entry
            until = position - 1 if position else 0

    def select(self, topics: Iterable[str], *, after: int, until: int, max_entries: int) -> tuple[list[Kept], int]:
        """At most `max_entries` of the entries of these topics behind `after` and up to `until`, in order; and the
        position up to which there are no others.

        It costs what is found, however much else there is: were all clients that come back at once to look through
        everything that was published meanwhile, they would fall behind faster than they catch up. So the entries are
        indexed by topic, but only once somebody asks, a bounded number in each call.
        """
        self.index()
        until, kept = min(until, self._indexed), self._kept
        runs = [self._lines.behind(topic, after, max_entries) for topic in topics]
        found = runs[0] if len(runs) == 1 else sorted(set().union(*runs))[:max_entries]
        reached = found[-1] if len(found) == max_entries else until
        if found and found[-1] > until:
            del found[bisect_right(found, until) :]
        return [kept[position] for position in found], max(after, min(reached, until))

    @property
    def is_indexed(self) -> bool:
        """Whether the topics of all entries have been looked at."""
        return self._indexed >= self.newest

    def index(self) -> None:
        """Look at the topics of the next entries, a bounded number of them."""
        self._index(STEP_ENTRIES)

    def _index(self, most: float) -> None:
        lines, kept = self._lines, self._kept
        while self._indexed < self.newest and most > 0:
            positions = self._order.behind(self._indexed, int(min(most, STEP_ENTRIES)))
            for position in positions:
                self._indexed = position
                entry = kept.get(position)
                if entry is None:  # another of these has been more than its topic may hold
                    continue
                if self.rules.is_bound:
                    self._promised += self.rules.promise(entry.topics)
                for gone in lines.add(entry):
                    is_live_only = gone == position and self.rules.is_live_only(entry.topics)
                    self._drop(kept[gone], "live_only" if is_live_only else "topic")
                if self.rules.ages:
                    self._aging.add(entry, self._order.time(position))
            most -= len(positions)
            if len(positions) < STEP_ENTRIES and most > 0:
                self._indexed = self.newest

    # What is known of each.

    def names(self, after: int) -> tuple[set[str], int]:
        """The topics of the next entries behind a position, a bounded number of them, and the position of the last; 0
        if there are none."""
        positions = self._order.behind(after, STEP_ENTRIES)
        kept = self._kept
        return {topic for position in positions for topic in kept[position].topics}, positions[-1] if positions else 0

    def holding(self, topic: str) -> Held:
        """How much a topic holds, of what is indexed."""
        return self._lines.holding(topic)

    def ages(self, topic: str, now: float) -> tuple[float, float] | None:
        """Seconds since the oldest and the newest came that a topic holds, of what is indexed."""
        ends = self._lines.ends(topic)
        return None if ends is None else (now - self._order.time(ends[0]), now - self._order.time(ends[1]))

    def cut(self, topic: str) -> Cut:
        """How far a topic has been dropped."""
        return self._lines.cut(topic)

    def __repr__(self) -> str:
        return f"<Window {self.epoch} {self.oldest + 1} to {self.newest}, {len(self._kept)} entries>"
