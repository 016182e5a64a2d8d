"""A sequence of numbers on its way to one subscriber, and how many were lost, doubled or reordered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Range = tuple[int, int]
"""The numbers from the first one up to the second, which is not included."""

MAX_GAPS = 10_000
"""Gaps that one sequence remembers at most. Numbers of a forgotten gap stay lost; if they come, they are doubled."""


class Sequence:
    """The numbers 0, 1, 2, ... that one publisher sends to one subscriber.

    The fast path is the caller's: if the numbers that came begin with `expected`, it sets `expected` to the one after
    the last. All other numbers it gives to `take`.
    """

    __slots__ = ("_gaps", "_given_up", "doubled", "expected", "reordered")

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        """The number that comes next if nothing goes wrong."""
        self.doubled = 0
        """How many numbers came again."""
        self.reordered = 0
        """How many numbers came after a greater one."""
        self._gaps: list[Range] = []  # in ascending order
        self._given_up = 0  # numbers in gaps that are forgotten

    def take(self, first: int, after: int) -> int:
        """Take the numbers from `first` up to `after`, which is not included; return by how much `expected` moved."""
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
        """How many numbers below `expected` have not come."""
        return self._given_up + size(self._gaps)

    def lost(self, sent: int, void: Iterable[Range] = ()) -> int:
        """How many of the first `sent` numbers have not come, without those in `void`.

        `void` has the numbers that were never to come, as ranges in ascending order.
        """
        tail = [(self.expected, sent)] if self.expected < sent else []
        gaps = [*self._gaps, *tail]
        return self._given_up + size(gaps) - _overlap(gaps, void)

    def _fill(self, first: int, after: int) -> int:
        """Take numbers out of the gaps, and return how many were in them."""
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
    """How many numbers there are in ranges that do not overlap."""
    return sum(after - first for first, after in ranges)


def _overlap(ranges: list[Range], others: Iterable[Range]) -> int:
    """How many numbers are in both; each has its ranges in ascending order."""
    found, index = 0, 0
    for low, high in others:
        while index < len(ranges) and ranges[index][1] <= low:
            index += 1
        at = index
        while at < len(ranges) and ranges[at][0] < high:
            found += min(high, ranges[at][1]) - max(low, ranges[at][0])
            at += 1
    return found
