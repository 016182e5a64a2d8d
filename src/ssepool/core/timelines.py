"""Timelines: the names under which one history has gone on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from ssepool.core.beginning import Found
from ssepool.core.event import MADE_ID

MAX_TIMELINES = 100
"""Earlier timelines that are remembered; ids of older ones are unknown."""


class Timeline(NamedTuple):
    """A name under which a history went on, up to some place."""

    epoch: str
    """The name: the first part of the ids that brokers made then."""
    end: int
    """The newest position that the history still has of it: what was given out under this name behind it is lost."""


class Timelines:
    """The timelines of one history. After a place where its end may have been cut off it goes on under another name, so
    that positions which are given out a second time never make the same id twice."""

    __slots__ = ("_ends", "_found", "before", "epoch")

    def __init__(self, epoch: str, before: Sequence[Timeline] = ()) -> None:
        """The name that it has now, and the timelines before, in their order."""
        self.epoch = epoch
        """The name under which it goes on now."""
        self.before = tuple(before)
        """The timelines before, in their order; their ends never fall."""
        self._ends = [timeline.end for timeline in before]
        self._found = {timeline.epoch: timeline.end for timeline in before}

    def epoch_at(self, position: int) -> str:
        """The name under which this position was given out: the first part of the id that it has for ever."""
        if not self._ends or position > self._ends[-1]:
            return self.epoch
        return self.before[bisect_left(self._ends, position)].epoch

    def end_of(self, epoch: str) -> int | None:
        """Up to where the history has what was published under this name, or before it; None for a name that it does
        not know, and for the one that it has now, which has no end."""
        return self._found.get(epoch)

    def place(self, id: str, newest: int) -> Found | None:
        """Where a client goes on that has all up to an id that brokers make, if `newest` is the end of the history.

        It is not complete if what the client was at is lost. None for any other id, and for one of an unknown name.
        """
        if not MADE_ID.fullmatch(id):
            return None
        epoch, number = id[:8], int(id[9:])
        if epoch == self.epoch:
            return Found(number, True) if number <= newest else None
        end = self._found.get(epoch)
        return None if end is None else Found(min(number, end), number <= end, number > end)

    def fork(self, other: Timelines) -> int | None:
        """Up to where this history and what is known of it elsewhere are the same; None if they have nothing in common.
        A restored backup does not know the names that came after it."""
        end = self._found.get(other.epoch)
        if end is not None:
            return end
        for epoch, theirs in reversed(other.before):
            if epoch == self.epoch:
                return theirs
            if epoch in self._found:
                return min(theirs, self._found[epoch])
        return None

    def knowing(self, epoch: str, end: int) -> Timelines:
        """The same, which also knows where a name ended that the history has lost."""
        before = [one for one in self.before if one.end <= end]
        return Timelines(self.epoch, (*before, Timeline(epoch, end), *self.before[len(before) :]))

    def followed(self, epoch: str, newest: int) -> Timelines:
        """The same history, which goes on under another name behind `newest`."""
        return Timelines(epoch, (*self.before, Timeline(self.epoch, newest))[-MAX_TIMELINES:])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timelines) and (self.epoch, self.before) == (other.epoch, other.before)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Timelines {self.epoch} behind {[f'{one.epoch}-{one.end}' for one in self.before]}>"
