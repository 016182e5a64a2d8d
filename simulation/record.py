"""Record: what is written down of a run, and its summary."""

from __future__ import annotations

from array import array
from typing import Any

TENTHS_PER_SECOND = 10
"""Attempts are counted by the tenth of a second in which they are made."""


class Record:
    """Counts, times away, and samples. `began` is when the fault began."""

    def __init__(self, began: float = 0.0) -> None:
        self.began = began
        self.attempts: dict[int, int] = {}
        self.away = array("d")
        """How long each client was away that came back, in seconds."""
        self.samples: list[tuple[float, int, int, int]] = []
        """Time, clients away, and the most and fewest connections of a node."""
        self.refused = 0
        """Answered with `retry:`: the pool was full or closed, or the wait in its queue took too long."""
        self.queued = self.timed_out = 0
        self.dropped = 0
        """SYNs that found the kernel's queue full."""
        self.failed = 0
        """Attempts that met a node which was down."""
        self.gaps = 0
        """Times that the history no longer had what a client missed."""

    def attempt(self, now: float) -> None:
        tenth = int(now * TENTHS_PER_SECOND)
        self.attempts[tenth] = self.attempts.get(tenth, 0) + 1

    def busiest_second(self) -> int:
        """The most attempts in any second."""
        return max((sum(self._tenths(tenth, TENTHS_PER_SECOND)) for tenth in self.attempts), default=0)

    def per_second(self) -> list[tuple[float, float]]:
        """Attempts a second over time since the fault, in some 150 steps."""
        first = int(self.began * TENTHS_PER_SECOND)
        last = max(self.attempts, default=first)
        step = max(1, (last - first) // 150)
        return [
            (
                round((tenth - first) / TENTHS_PER_SECOND, 1),
                round(sum(self._tenths(tenth, step)) * TENTHS_PER_SECOND / step, 1),
            )
            for tenth in range(first, last + 2, step)
        ]

    def summary(self) -> dict[str, Any]:
        """All but the curves, for the table."""
        away = sorted(self.away)
        return {
            "attempts": sum(self.attempts.values()),
            "peak": self.busiest_second(),
            "back": len(away),
            "p50": quantile(away, 0.5),
            "p99": quantile(away, 0.99),
            "max": quantile(away, 1.0),
            "refused": self.refused,
            "queued": self.queued,
            "timed_out": self.timed_out,
            "dropped": self.dropped,
            "failed": self.failed,
            "gaps": self.gaps,
        }

    def _tenths(self, first: int, count: int) -> list[int]:
        return [self.attempts.get(tenth, 0) for tenth in range(first, first + count)]


def quantile(ordered: list[float], share: float) -> float:
    """The value that this share of an ordered list does not exceed; 0 for an empty one."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0
