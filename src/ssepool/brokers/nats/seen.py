"""Seen: how far a process has seen a history under each of its names."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ssepool.core.timelines import Timelines


class Seen:
    """What a broker has appended, read, or named in bounds. A history that has less has lost its end."""

    def __init__(self, newest: Mapping[str, float] | None = None) -> None:
        self._newest = dict(newest or {})

    def now(self) -> Seen:
        """What has been seen up to now: what an answer is compared with has to be older than the question."""
        return Seen(self._newest)

    def note(self, epoch: str, newest: int) -> None:
        """The history has had a position under this name."""
        if newest > self._newest.get(epoch, -1):
            self._newest[epoch] = newest

    def note_names(self, timelines: Timelines) -> None:
        """The history goes on under the last of these names: never again under one before."""
        self._newest.update((one.epoch, math.inf) for one in timelines.before)

    def at(self, epoch: str) -> tuple[str, float]:
        """This name, and the newest position that was seen under it."""
        return epoch, self._newest.get(epoch, 0)

    def has_lost(self, epoch: str, newest: int) -> bool:
        """Whether a history that ends here, under this name, has less than was seen."""
        return newest < self._newest.get(epoch, 0)
