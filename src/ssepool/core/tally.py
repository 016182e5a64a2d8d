"""Tally: how often is published to each topic, over the last minute."""

from __future__ import annotations

from collections import Counter, deque
from itertools import chain, islice

SECONDS = 60.0
"""What the rate is over."""

MARK_SECONDS = 1.0
"""Seconds between two marks at least."""

LEAST_SECONDS = 10.0
"""A hub that is younger has lower rates: its first event is no hundred a second."""

MAX_RECENT = 2048
"""Events whose topics are remembered."""

MAX_TOPICS = 4
"""Topics of one event that are remembered: names may be long, and all of them together take 8 MB at the most."""


class Tally:
    """Remembers the topics of the newest events, and counts them when somebody asks: their share of these, times the
    rate of all. Exact where no more than `MAX_RECENT` events came in the last minute."""

    __slots__ = ("_began", "_marks", "due", "recent")

    def __init__(self, now: float) -> None:
        """Begins now (seconds)."""
        self.recent: deque[tuple[str, ...]] = deque(maxlen=MAX_RECENT)
        """The topics of each event, put here as it comes."""
        self.due = now
        """When `mark` is to be called, before an event is put here."""
        self._began = now
        self._marks: deque[tuple[float, int]] = deque(maxlen=int(SECONDS / MARK_SECONDS) + 1)

    def mark(self, now: float, total: int) -> None:
        """So many events have come up to now."""
        self._marks.append((now, total))
        self.due = now + MARK_SECONDS

    def rates(self, now: float, total: int) -> dict[str, float]:
        """Events a second of each topic that has any; `total` have come up to now."""
        before = next((count for at, count in self._marks if at >= now - SECONDS), total)
        came = total - before
        sample = list(islice(reversed(self.recent), came))
        if not sample:
            return {}
        each = came / len(sample) / max(LEAST_SECONDS, min(SECONDS, now - self._began))
        return {topic: count * each for topic, count in Counter(chain.from_iterable(sample)).items()}
