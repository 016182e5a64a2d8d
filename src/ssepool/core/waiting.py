"""The waiting queue: requests in the order in which they came."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from ssepool.core.grant import STRANGER, Grant
from ssepool.core.slot import NEVER, Slot
from ssepool.core.states import WAITER_STEPS, WaiterState, check_step


class Applicant(Protocol):
    """What waits for a slot. `granted` and `failed` are called inside the pool's step and must neither block nor call
    the pool."""

    def granted(self, slot: Slot) -> bool:
        """A slot is reserved for you: return whether you are still there to take it."""

    def failed(self, outcome: WaiterState) -> None:
        """You will get none: TIMED_OUT or REFUSED."""

    def announce(self, position: int, waiting: int, now: float) -> None:
        """Tell the client its place in the queue, from 1 on, and how many wait. The reaper calls this at each look."""


class Waiter:
    """A request in the waiting queue; ends in exactly one of GRANTED, TIMED_OUT, CANCELLED, REFUSED."""

    __slots__ = ("applicant", "deadline", "ends_at", "grant", "keys", "since", "state", "waiting_keys")

    def __init__(
        self,
        applicant: Applicant,
        keys: tuple[tuple[str, str], ...],
        since: float,
        deadline: float,
        waiting_keys: tuple[tuple[str, str], ...] = (),
        ends_at: float = NEVER,
        grant: Grant = STRANGER,
    ) -> None:
        self.applicant = applicant
        """What waits."""
        self.keys = keys
        """What the request counts under; see `Limits`."""
        self.waiting_keys = waiting_keys
        """What it counts under beside that for as long as it waits."""
        self.since = since
        """When it came, in seconds of the pool's clock."""
        self.deadline = deadline
        """When its time is up."""
        self.ends_at = ends_at
        """When what lets it in has run out, so that it may have no slot any more."""
        self.grant = grant
        """What lets it in."""
        self.state = WaiterState.WAITING
        """How it fares."""

    def end(self, outcome: WaiterState) -> None:
        """Become something final. Raises `IllegalStep` the second time."""
        self.state = check_step(WAITER_STEPS, self.state, outcome)

    def __repr__(self) -> str:
        return f"<Waiter {self.state.value} since={self.since:.3f}>"


class WaitingQueue:
    """First come, first served. Leaving is O(1) from any place, so the queue holds the living only.

    An `OrderedDict`, because its first item is found in O(1) however many have left from the front; a plain dict
    walks over the places of the removed ones each time.
    """

    def __init__(self) -> None:
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def __reversed__(self) -> Iterator[Waiter]:
        return reversed(self._waiters)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._waiters

    def join(self, waiter: Waiter) -> None:
        """Take the last place."""
        self._waiters[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Leave, from any place. Raises `KeyError` for a waiter that is not in the queue."""
        del self._waiters[waiter]

    def first(self) -> Waiter:
        """The waiter that came first. Raises `StopIteration` if nobody waits."""
        return next(iter(self._waiters))
