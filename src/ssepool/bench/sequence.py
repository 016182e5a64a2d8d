"""What became of a sequence of numbers on its way to one subscriber: lost, doubled, reordered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Range = tuple[int, int]
"""Numbers from the first up to, not including, the second."""

MAX_GAPS = 10_000
"""Gaps of one sequence that are remembered. The oldest of more stays lost: what comes of it later counts as doubled."""


class Sequence:
    """The numbers 0, 1, 2, ... that one publisher sends to one subscriber.

    `expected` is the next one if nothing goes wrong. Whoever reads may set it on where exactly that came, which is all
    there is to do as long as nothing goes wrong, and gives the rest to `take`.
    """

    __slots__ = ("_gaps", "_given_up", "doubled", "expected", "reordered")

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        self.doubled = 0
        """Numbers that came again."""
        self.reordered = 0
        """Numbers that came after a greater one."""
        self._gaps: list[Range] = []  # in order
        self._given_up = 0  # numbers in gaps that are not remembered

    def take(self, first: int, after: int) -> int:
        """Take the numbers from `first` up to, not including, `after`; returns by how much `expected` moved."""
        was = self.expected
        if first > was:
            self._gaps.append((was, first))
            if len(self._gaps) > MAX_GAPS:
                oldest, end = self._gaps.pop(0)
                self._given_up += end - oldest
        elif first < was:
            late = min(after, was) - first
            found = self._fill(first, first + late)
            self.reordered += found
            self.doubled += late - found
        self.expected = max(was, after)
        return self.expected - was

    @property
    def missing(self) -> int:
        """Numbers below `expected` that have not come."""
        return self._given_up + size(self._gaps)

    def lost(self, sent: int, void: Iterable[Range] = ()) -> int:
        """How many of the first `sent` numbers have not come; those in `void` (in order) were never to come."""
        tail = [(self.expected, sent)] if self.expected < sent else []
        gaps = [*self._gaps, *tail]
        return self._given_up + size(gaps) - _overlap(gaps, void)

    def _fill(self, first: int, after: int) -> int:
        """Take numbers out of the gaps; returns how many were in them."""
        gaps = self._gaps
        start = max(0, bisect_right(gaps, (first, first)) - 1)
        left: list[Range] = []
        found, end = 0, start
        for gap_first, gap_after in gaps[start:]:
            if gap_first >= after:
                break
            end += 1
            low, high = max(first, gap_first), min(after, gap_after)
            if low >= high:
                left.append((gap_first, gap_after))
                continue
            found += high - low
            left += [piece for piece in ((gap_first, low), (high, gap_after)) if piece[0] < piece[1]]
        gaps[start:end] = left
        return found


def size(ranges: Iterable[Range]) -> int:
    """How many numbers are in ranges that have none in common."""
    return sum(after - first for first, after in ranges)


def _overlap(ranges: list[Range], others: Iterable[Range]) -> int:
    """How many numbers are in both; each is in order."""
    found, index = 0, 0
    for low, high in others:
        while index < len(ranges) and ranges[index][1] <= low:
            index += 1
        at = index
        while at < len(ranges) and ranges[at][0] < high:
            found += min(high, ranges[at][1]) - max(low, ranges[at][0])
            at += 1
    return found
