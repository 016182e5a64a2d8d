"""Slot: one pre-made connection object of the pool."""

from __future__ import annotations

from typing import Protocol

from ssepool.core.feed import Feed
from ssepool.core.states import Reason, SlotState

NEVER = float("inf")
"""A time that does not come, in seconds."""


class Holder(Protocol):
    """What the client that holds a slot is reached by, as the pool's surroundings see it: a link."""

    weight: int
    """Tasks that wake up when something is written."""

    @property
    def owner(self) -> object:
        """The connection that the link belongs to; None once it has ended."""

    def beat(self) -> None:
        """Write a heartbeat, if nothing else is about to be written."""

    def close(self, reason: Reason) -> None:
        """End the stream with a goodbye."""

    def end(self, reason: Reason) -> None:
        """End the stream, whatever has been written."""

    def warn(self, seconds: int) -> None:
        """Tell the client that its grant runs out in so many seconds."""


class Slot:
    """One place in the pool. Clients pass through it; index and object stay.

    The pool alone changes `state`, `generation` and `reason`. While a client holds the slot, the runtime keeps in
    it what delivery needs (`feed`, `cursor`, the counters and the times, in seconds of the clock that the pool is
    driven by) and hangs the client's link on `holder`.
    """

    __slots__ = (
        "beat_bytes",
        "blocked_at",
        "bytes",
        "cursor",
        "drain_at",
        "due",
        "ends_for",
        "events",
        "expires_at",
        "expiring_at",
        "feed",
        "generation",
        "holder",
        "index",
        "keys",
        "opened_at",
        "reason",
        "received_at",
        "sent_at",
        "skipped",
        "state",
        "warns_at",
    )

    def __init__(self, index: int, generation: int = 0) -> None:
        self.index = index
        """The place in the pool, for as long as the slot exists."""
        self.generation = generation
        """Changes whenever a client leaves, so that a handle of the last one is recognised."""
        self.state = SlotState.FREE
        """Where the slot stands."""
        self.reset()

    def reset(self) -> None:
        """Forget the client that held the slot."""
        self.holder: Holder | None = None
        self.feed: Feed | None = None
        self.cursor = 0
        self.keys: tuple[tuple[str, str], ...] = ()
        self.reason: Reason | None = None
        self.opened_at = self.received_at = self.sent_at = 0.0
        self.expires_at = self.drain_at = self.blocked_at = self.due = self.warns_at = self.expiring_at = NEVER
        self.ends_for = Reason.LIFETIME
        self.events = self.bytes = self.skipped = self.beat_bytes = 0

    def active_at(self) -> float:
        """When this client last sent anything or was last given anything.

        What its feed was given counts although the client may not have it yet: it has a turn in the delivery that is
        going on, or it is stalled, which is judged by another time-out than idleness.
        """
        latest = max(self.opened_at, self.received_at, self.sent_at)
        return latest if self.feed is None else max(latest, self.feed.appended_at)

    def __repr__(self) -> str:
        return f"<Slot {self.index} {self.state.value} generation={self.generation}>"
