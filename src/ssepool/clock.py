"""The clocks that hubs go by. `ssepool.testing.virtual_clock` turns them; nothing else does."""

from __future__ import annotations

import time
from collections.abc import Callable

_now: Callable[[], float] = time.monotonic
_wall_clock: Callable[[], float] = time.time


def now() -> float:
    """Seconds on a clock that only goes forward."""
    return _now()


def wall_clock() -> float:
    """Seconds since the epoch."""
    return _wall_clock()


def turn(now: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time) -> None:
    """Have all hubs of this process go by these clocks; without arguments by the real ones."""
    global _now, _wall_clock
    _now, _wall_clock = now, wall_clock
