"""TopicLines: which topic holds which of the events that are kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ssepool.core.cut import Cut
from ssepool.core.cuts import Cuts
from ssepool.core.kept import Held, Kept
from ssepool.core.lines import Biggest, Line, Weight
from ssepool.core.order import behind
from ssepool.core.rules import Rules

NO_TOPIC = ("",)
"""Where an event without topics belongs."""

NOTHING = Held(0, 0)
"""What a topic without events holds."""


class TopicLines:
    """The line of each topic. An event is held by all of its topics, and released by each of them by its own rule; when
    the last one has released it, it goes.

    A topic with one event has no line of its own, only a position: there may be hundreds of thousands of them.
    """

    def __init__(self, rules: Rules, cuts: Cuts, kept: Mapping[int, Kept]) -> None:
        """`kept` has the events that are there, by position."""
        self.rules = rules
        """How much each topic may hold."""
        self._cuts = cuts
        self._kept = kept
        self._at = kept.get
        self._is_kept = kept.__contains__
        self._lines: dict[str, int | Line] = {}
        self._holders: dict[int, int] = {}
        """By position, how many topics hold an event, where that is not one."""
        self.by_events = Biggest(self._counted, self._events)
        """Finds the topic with the most events, of those whose number is not promised."""
        self.by_bytes = Biggest(self._several, self._bytes)
        """Finds the topic whose events take the most memory."""

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def topics(self) -> int:
        """How many topics there are, without that of events without topics."""
        return len(self._lines) - (NO_TOPIC[0] in self._lines)

    # Coming and going.

    def add(self, entry: Kept) -> Sequence[int]:
        """Hold a new event. Returns the positions of events that are held no longer, it among them perhaps."""
        topics = entry.topics or NO_TOPIC
        if len(topics) == 1 and not self.rules.is_bound:  # as nearly all are
            self._hold(topics[0], entry)
            return ()
        if len(topics) > 1:
            topics = tuple(dict.fromkeys(topics))
            if len(topics) > 1:
                self._holders[entry.position] = len(topics)
        gone: list[int] = []
        for topic in topics:
            known = self._lines.get(topic)
            if known is None:
                rule = self.rules.of(topic)
                if rule.events >= 1 and entry.size <= rule.bytes:
                    self._lines[topic] = entry.position
                    continue
            line = known if isinstance(known, Line) else self._line(topic, known)
            line.add(entry.position, entry.size)
            line.is_plain = line.is_plain and len(topics) == 1 and entry.key is None
            line.compact(self._is_kept)
            while line.is_over and (position := self.release(line)) is not None:
                if position:
                    gone.append(position)
            self._note(line)
        return gone

    def _hold(self, topic: str, entry: Kept) -> None:
        known = self._lines.get(topic)
        if known is None:
            self._lines[topic] = entry.position
            return
        line = known if isinstance(known, Line) else self._line(topic, known)
        line.add(entry.position, entry.size)
        if entry.key is not None:
            line.is_plain = False
        if len(line.positions) > line.limit:
            line.compact(self._is_kept)
        self._note(line)

    def _note(self, line: Line) -> None:
        if self.by_events.is_asked and not line.rule.is_promise:
            self.by_events.note(line)
        if self.by_bytes.is_asked:
            self.by_bytes.note(line)

    def release(self, line: Line) -> int | None:
        """Let a topic hold its oldest no longer. Returns the event's position if nobody holds it any more, 0 if another
        topic does, and None if the topic holds nothing."""
        if not line.events:
            return None
        line.skip(self._is_kept)
        position = line.oldest
        line.release(self._kept[position].size)
        return position if position not in self._holders or self._is_last_holder(position) else 0

    def release_until(self, topic: str, position: int) -> int:
        """Let a topic hold nothing up to a position. Returns that position if nobody holds the event there any more,
        and 0 otherwise: it is the only one that may go, if this is called for each event in their order."""
        known = self._lines.get(topic)
        if isinstance(known, int):
            if known != position:
                return 0
            if position not in self._holders:
                return position
            known = self._line(topic, known)
        last = 0
        while known is not None and known.events:
            known.skip(self._is_kept)
            if known.released >= len(known.positions) or known.oldest > position:
                break
            last = self.release(known) or 0
        return last

    def remove(self, entry: Kept, *, is_held: bool, is_missed: bool) -> None:
        """Forget an event that is not kept any more; `is_held` if it was added, and `is_missed` if a client that did
        not get it is to be told."""
        topics: Iterable[str] = entry.topics or NO_TOPIC
        if len(entry.topics) > 1:
            self._holders.pop(entry.position, None)
            topics = dict.fromkeys(entry.topics)
        for topic in topics:
            known = self._lines.get(topic)
            if known.__class__ is int:
                if known == entry.position:
                    del self._lines[topic]
                if is_missed:
                    self._put(topic, entry)
            elif known is None:
                if is_missed:
                    self._put(topic, entry)
            else:
                self._leave(known, entry, is_held, is_missed)  # type: ignore[arg-type]

    def _leave(self, line: Line, entry: Kept, is_held: bool, is_missed: bool) -> None:
        position = entry.position
        if is_held:
            line.discard(position, entry.size)
        if is_missed and entry.private:
            line.private = max(line.private, position)
        elif is_missed and position > line.public:
            line.public = position
        if not line.events and not any(self._at(position) for position in line.positions):
            del self._lines[line.topic]
            self.by_events.forget(line)
            self.by_bytes.forget(line)
            if any(line.cut):
                self._cuts.put(line.topic, line.cut, self.now)

    def _put(self, topic: str, entry: Kept) -> None:
        position = entry.position
        self._cuts.put(topic, Cut(0, position) if entry.private else Cut(position), self.now)

    now = 0.0
    """The time, for what becomes of cuts (seconds)."""

    def _is_last_holder(self, position: int) -> bool:
        holders = self._holders[position]
        self._holders[position] = holders - 1
        return holders == 1

    def _line(self, topic: str, position: int | None) -> Line:
        line = Line(topic, self.rules.of(topic))
        if position is not None and (entry := self._at(position)) is not None:
            line.add(position, entry.size)
            line.is_plain = len(entry.topics) == 1 and entry.key is None
        self._lines[topic] = line
        return line

    # Looking.

    def cut(self, topic: str) -> Cut:
        """How far a topic has been dropped."""
        known, cut = self._lines.get(topic), self._cuts.of(topic)
        return known.cut.joined(cut) if isinstance(known, Line) else cut

    def cuts(self) -> Iterator[tuple[str, Cut]]:
        """The cuts of topics that have a line."""
        for topic, known in self._lines.items():
            if isinstance(known, Line) and any(known.cut):
                yield topic, known.cut

    def behind(self, topic: str, position: int, most: int) -> list[int]:
        """The positions of the first of a topic's events behind one, so many at most."""
        known = self._lines.get(topic)
        if isinstance(known, Line):
            return behind(known.positions, position, most, self._kept)
        return [known] if known is not None and known > position and known in self._kept else []

    def before(self, topic: str, until: int) -> int:
        """The position of a topic's newest event up to one, which may be gone; 0 if there is none."""
        known = self._lines.get(topic)
        if isinstance(known, int):
            return known if known <= until else 0
        place = bisect_right(known.positions, until) if known is not None else 0
        return known.positions[place - 1] if known is not None and place else 0

    def holding(self, topic: str) -> Held:
        """How much a topic holds."""
        known = self._lines.get(topic)
        if isinstance(known, Line):
            return Held(known.events, known.bytes)
        entry = None if known is None else self._at(known)
        return NOTHING if entry is None else Held(1, entry.size)

    def ends(self, topic: str) -> tuple[int, int] | None:
        """The positions of the oldest and the newest event that a topic holds."""
        known = self._lines.get(topic)
        if isinstance(known, int):
            return known, known
        if known is None:
            return None
        known.skip(self._is_kept)
        newest = next(filter(self._is_kept, reversed(known.positions)), 0)
        return (known.oldest, newest) if known.events else None

    def _several(self) -> Iterator[Line]:
        return (line for line in self._lines.values() if isinstance(line, Line) and line.events > 1)

    def _counted(self) -> Iterator[Line]:
        return (line for line in self._several() if not line.rule.is_promise)

    def _events(self, line: Line) -> Weight:
        line.skip(self._is_kept)
        return (0 if line.rule.is_promise else line.events), -(line.oldest if line.events else 0)

    def _bytes(self, line: Line) -> Weight:
        line.skip(self._is_kept)
        return line.bytes, -(line.oldest if line.events else 0)
