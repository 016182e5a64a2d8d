"""Order: the positions that are kept, in order, with the times at which they came."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence

SPARE = 1000
"""Positions that are gone and still stand here, at least, until they are taken out."""


def behind(positions: Sequence[int], position: int, most: int, kept: Container[int], *, start: int = 0) -> list[int]:
    """The first of `positions` (in order, from the place `start` on) behind one that are `kept`, so many at most."""
    place = max(start, bisect_right(positions, position))
    found: list[int] = []
    while (left := most - len(found)) > 0 and place < len(positions):
        found += [one for one in positions[place : place + left] if one in kept]
        place += left
    return found


class Order:
    """Positions in order. Those that are gone are passed over, and taken out when they are the most."""

    __slots__ = ("_first", "_gone", "_kept", "_positions", "_times")

    def __init__(self, kept: Container[int]) -> None:
        """`kept` has those that are there."""
        self._kept = kept
        self._positions: list[int] = []
        self._times: list[float] = []
        self._first = 0
        """The place of the first that may be there."""
        self._gone = 0

    @property
    def first(self) -> int | None:
        """The first that is there."""
        return self._positions[self._first] if self._first < len(self._positions) else None

    def add(self, position: int, now: float) -> None:
        """The next one has come (seconds)."""
        self._positions.append(position)
        self._times.append(now)

    def forget(self, gone: Sequence[int]) -> None:
        """These are gone, in their order."""
        self._gone += len(gone)
        positions, place, kept = self._positions, self._first, self._kept
        if gone[0] == positions[place]:
            while place < len(positions) and positions[place] not in kept:
                place += 1
            self._first = place
        if self._gone > SPARE and 2 * self._gone > len(positions):
            left = [place for place in range(self._first, len(positions)) if positions[place] in kept]
            self._times = [self._times[place] for place in left]
            self._positions = [positions[place] for place in left]
            self._first = self._gone = 0

    def time(self, position: int) -> float:
        """When one came."""
        return self._times[bisect_right(self._positions, position) - 1]

    def until(self, time: float) -> list[int]:
        """Those that came at this time or before it."""
        place, found = self._first, []
        while place < len(self._positions) and self._times[place] <= time:
            if self._positions[place] in self._kept:
                found.append(self._positions[place])
            place += 1
        return found

    def after(self, position: int) -> int | None:
        """The first behind a position."""
        return next(iter(self.behind(position, 1)), None)

    def before(self, position: int) -> int:
        """The last up to a position; 0 if there is none."""
        place = bisect_right(self._positions, position) - 1
        while place >= self._first and self._positions[place] not in self._kept:
            place -= 1
        return self._positions[place] if place >= self._first else 0

    def behind(self, position: int, most: int) -> list[int]:
        """The first ones behind a position, so many at most."""
        return behind(self._positions, position, most, self._kept, start=self._first)

    def __iter__(self) -> Iterator[int]:
        """All that are there."""
        for place in range(self._first, len(self._positions)):
            if self._positions[place] in self._kept:
                yield self._positions[place]
