"""Lines: what each topic holds, and whose turn it is to give something up."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from ssepool.core.cut import Cut
from ssepool.core.rules import Rule


class Line:
    """What one topic holds: the positions of its events, of which it has released the first ones.

    An event that it has released may still be there, because another topic holds it. One that it holds may be gone
    already, because another event has taken its place: `discard` has counted it off then.
    """

    __slots__ = (
        "bounds",
        "bytes",
        "events",
        "is_plain",
        "limit",
        "positions",
        "private",
        "public",
        "released",
        "rule",
        "topic",
    )

    def __init__(self, topic: str, rule: Rule) -> None:
        self.topic = topic
        """The name of the topic."""
        self.rule = rule
        """How much it may hold."""
        self.positions: list[int] = []
        """The positions of its events, in order."""
        self.released = 0
        """How many of `positions` it holds no longer."""
        self.events = 0
        """Events that it holds."""
        self.bytes = 0
        """Bytes of memory of these."""
        self.public = 0
        """The position of its newest event that was dropped and not private."""
        self.private = 0
        """The position of its newest private event that was dropped."""
        self.is_plain = True
        """Whether its events are of no other topic and replace nothing, all of them."""
        self.limit = 16
        """Positions from which on a look at those that are gone is worth it."""
        self.bounds: dict[Biggest, Weight] = {}
        """What it cannot exceed, as far as those who look for the biggest know."""

    @property
    def cut(self) -> Cut:
        """How far it has been dropped, as far as it knows."""
        return Cut(self.public, self.private)

    @property
    def oldest(self) -> int:
        """The position of the oldest that it holds."""
        return self.positions[self.released]

    @property
    def is_over(self) -> bool:
        """Whether it holds more than its rule allows."""
        return self.events > self.rule.events or self.bytes > self.rule.bytes

    def add(self, position: int, size: int) -> None:
        """Hold one more event."""
        self.positions.append(position)
        self.events += 1
        self.bytes += size

    def release(self, size: int) -> None:
        """Hold the oldest no longer, of this size."""
        self.released += 1
        self.events -= 1
        self.bytes -= size

    def discard(self, position: int, size: int) -> None:
        """An event is gone from its midst, or was released before."""
        if self.released < len(self.positions) and position >= self.oldest:
            self.events -= 1
            self.bytes -= size

    def skip(self, is_kept: Callable[[int], bool]) -> None:
        """Release those in front that are gone, so that `oldest` is one that is there."""
        positions, place = self.positions, self.released
        while place < len(positions) and not is_kept(positions[place]):
            place += 1
        self.released = place

    def compact(self, is_kept: Callable[[int], bool]) -> None:
        """Forget the positions of those that are gone, once there are so many that it costs little."""
        if len(self.positions) <= self.limit:
            return
        before = [position for position in self.positions[: self.released] if is_kept(position)]
        held = [position for position in self.positions[self.released :] if is_kept(position)]
        self.positions, self.released = before + held, len(before)
        self.limit = 2 * len(self.positions) + 16


Weight = tuple[float, int]
"""What a line has, and the position of its oldest event, negative: of two that have the same the older one is more."""


class Biggest:
    """Finds the line that has most of something, and of several the one with the oldest event: all that see the same
    order find the same. Lines with a single event do not take part."""

    __slots__ = ("_grown", "_heap", "_lines", "_serial", "_top", "_weight", "is_asked")

    def __init__(self, lines: Callable[[], Iterable[Line]], weight: Callable[[Line], Weight]) -> None:
        """`lines` are all that may take part now, and `weight` says what one has, exactly."""
        self._lines = lines
        self._weight = weight
        self.is_asked = False
        """Whether anybody has asked, so that it must be told."""
        self._heap: list[tuple[float, int, int, Line]] = []
        """Lines by a bound of their weight: none has more, but for those that have grown since."""
        self._grown: dict[Line, None] = {}
        """Lines that have grown since somebody asked: each is weighed once, however many of its events have come."""
        self._serial = 0
        self._top: Line | None = None
        """The line that was found last; it is not in the heap."""

    def note(self, line: Line) -> None:
        """A line has grown."""
        self._grown[line] = None

    def find(self) -> Line | None:
        """The line with the most; None if no line has two events."""
        self._weigh()
        heap, top = self._heap, self._top
        if top is not None:
            if not heap and top.events > 1:
                return top
            weight = self._weight(top)
            if top.events > 1 and self._is_most(weight):
                return top
            self._top = None
            self._push(top, weight)
        while heap:
            amount, oldest, _, line = heapq.heappop(heap)
            if line.bounds.get(self) != (-amount, -oldest):  # one that was pushed again since, or is no more
                continue
            del line.bounds[self]
            weight = self._weight(line)
            if line.events < 2:
                continue
            if self._is_most(weight):
                self._top = line
                return line
            self._push(line, weight)
        return None

    def forget(self, line: Line) -> None:
        """A line is no more."""
        line.bounds.pop(self, None)
        self._grown.pop(line, None)
        if self._top is line:
            self._top = None

    def _weigh(self) -> None:
        grown: Iterable[Line] = self._grown
        if not self.is_asked:
            self.is_asked, grown = True, self._lines()
        for line in grown:
            if line is not self._top and line.events > 1:
                self._push(line, self._weight(line))
        self._grown.clear()

    def _is_most(self, weight: Weight) -> bool:
        return not self._heap or weight >= (-self._heap[0][0], -self._heap[0][1])

    def _push(self, line: Line, bound: Weight) -> None:
        line.bounds[self] = bound
        self._serial += 1
        heapq.heappush(self._heap, (-bound[0], -bound[1], self._serial, line))
        if self._serial % 4096 == 0:
            self._heap[:] = [one for one in self._heap if one[3].bounds.get(self) == (-one[0], -one[1])]
            heapq.heapify(self._heap)
