"""Seen: how far a history has come, so that an older state of it is known when it comes back."""

from __future__ import annotations

from math import inf

from ssepool.brokers.sqlite.openers import Openers
from ssepool.core.timelines import MAX_TIMELINES, Timelines

MAX_SEEN = 2 * MAX_TIMELINES
"""Names of histories that a process remembers."""


class Seen:
    """How far a broker has seen the histories of a file: no position up to there is given out a second time under the
    same name. Its threads share it."""

    def __init__(self, openers: Openers) -> None:
        """What others have seen stands with the `openers`."""
        self._openers = openers
        self._newest: dict[str, float] = {}

    def note(self, now: Timelines, newest: int) -> None:
        """A history with these names has come so far."""
        seen = self._newest
        if now.epoch not in seen:
            seen.update((timeline.epoch, inf) for timeline in now.before)  # who has one of these is behind
            for epoch in list(seen)[: max(0, len(seen) + 1 - MAX_SEEN)]:
                seen.pop(epoch, None)
        seen[now.epoch] = max(newest, seen.get(now.epoch, 0))

    def begun(self, now: Timelines, newest: int) -> None:
        """A timeline begins there: whoever asks meanwhile knows that it is none of another history."""
        self.note(now, newest)
        self._openers.mark(now.epoch, newest)

    def is_behind(self, now: Timelines, newest: int) -> bool:
        """Whether a history that ends there is an older state of one that was seen, or another one in its place."""
        if not newest:  # it has just begun
            return False
        if newest < self._newest.get(now.epoch, 0):
            return True
        epoch, most = self._openers.marked() or (now.epoch, 0)
        return newest < most if epoch == now.epoch else now.end_of(epoch) is None
