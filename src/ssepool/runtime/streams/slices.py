"""Slices: whatever takes time in proportion to its input lets the rest of the event loop have its turn in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from ssepool.runtime.streams.delivery import MAX_WAKES, SLICE_SECONDS

WAKES_A_TURN = 8
"""Requests that go on in one turn of the event loop: each sends its answer, for some 250 us."""

STEP_ENTRIES = 16
"""Entries that are delivered between two looks at the clock at most."""

STEP_SECONDS = 0.0005
"""After a step that has taken longer, the next one is of a single entry: topics are new, or many feeds want them."""


def in_slices(work: Iterator[int], now: Callable[[], float]) -> None:
    """Do some work, a slice of it now and one in each turn of the event loop to come.

    The work is done by going through it; each step tells how many tasks it has woken, which run outside of the slice's
    clock. `now` is the hub's clock, in seconds. What the first slice raises comes to the caller.
    """
    deadline = now() + SLICE_SECONDS
    wakes = 0
    for woken in work:
        wakes += woken
        if wakes >= MAX_WAKES or now() >= deadline:
            asyncio.get_running_loop().call_soon(in_slices, work, now)
            return


def next_step(step: int, seconds: float) -> int:
    """The number of entries to deliver before the next look at the clock, after `step` took so many seconds."""
    return min(2 * step, STEP_ENTRIES) if seconds < STEP_SECONDS else 1


class Slice:
    """The slice of a coroutine, which pauses behind it."""

    __slots__ = ("_deadline", "_now")

    def __init__(self, now: Callable[[], float]) -> None:
        """Begins now, by the hub's clock, in seconds."""
        self._now = now
        self._deadline = now() + SLICE_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether it is time to pause."""
        return self._now() >= self._deadline

    async def pause(self) -> None:
        """Let the rest of the event loop have its turn, and begin another slice."""
        await asyncio.sleep(0)
        self._deadline = self._now() + SLICE_SECONDS


class Wakes:
    """Has requests go on that waited, a few in each turn of the event loop: what they do is in no slice."""

    __slots__ = ("_due", "_left", "_scheduled")

    def __init__(self) -> None:
        self._due: deque[asyncio.Future[None]] = deque()
        self._left = 0
        self._scheduled = False

    def wake(self, future: asyncio.Future[None]) -> None:
        """Set the future, now or in one of the next turns, unless it is done by then."""
        self._due.append(future)
        if not self._scheduled:
            self._turn()
        elif self._left:
            self._set_some()

    async def turn(self) -> None:
        """Return when it is the caller's turn to go on."""
        future = asyncio.get_running_loop().create_future()
        self.wake(future)
        await future

    def _turn(self) -> None:
        self._scheduled = bool(self._due)
        if self._scheduled:
            self._left = WAKES_A_TURN
            asyncio.get_running_loop().call_soon(self._turn)
            self._set_some()

    def _set_some(self) -> None:
        while self._due and self._left:
            future = self._due.popleft()
            if not future.done():
                self._left -= 1
                future.set_result(None)
