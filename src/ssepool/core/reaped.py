"""Reaped: what a look of the reaper found."""

from __future__ import annotations

from dataclasses import dataclass

from ssepool.core.slot import Slot
from ssepool.core.states import Reason


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a look of the reaper found. The reaper does it."""

    evict: list[tuple[Slot, Reason]]
    """Slots whose clients are to be sent away, each with the reason."""
    overdue: list[Slot]
    """Slots whose closing has taken longer than `send_timeout`: to be cut."""
    timed_out: int
    """Waiters whose time was up, and which have been told."""
    warn: list[tuple[Slot, int]]
    """Slots whose clients are to be told that their grant runs out, and in how many seconds."""
