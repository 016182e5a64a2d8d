"""Timeline: virtual time, and what happens in it, in order."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

NEVER = float("inf")


class Timeline:
    """Runs actions at their time; those of one moment in the order in which they were put down. Seconds from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._coming: list[tuple[float, int, Callable[[Any], None], Any]] = []

    def at(self, when: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action(argument)` at `when`."""
        self._count += 1
        heappush(self._coming, (when, self._count, action, argument))

    def run(self, until: float = NEVER) -> None:
        """Go on until nothing is to come, or to that moment."""
        coming = self._coming
        while coming and coming[0][0] <= until:
            self.now, _, action, argument = heappop(coming)
            action(argument)
