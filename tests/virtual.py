"""Virtual time: an event loop whose clock jumps to the next timer whenever nothing else is to be done.

A test of timers takes no longer than its work, and an hour passes exactly as fast as a millisecond:

    @in_virtual_time
    async def test_a_node_that_says_nothing_is_gone() -> None:
        subject = Subject(now=now())
        await asyncio.sleep(3600)

Sockets and pipes work as ever; what lies in them is read before the clock jumps.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

STUCK_SECONDS = 10.0
"""Real seconds in which something has to happen where no timer is left."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """The event loop. Its time begins at 1,000 seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.DefaultSelector):
    """Does not wait for a timer, but moves the loop's clock there."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := super().select(0):
            return ready
        if timeout is None:
            if ready := super().select(STUCK_SECONDS):
                return ready
            raise AssertionError(f"nothing happened in {STUCK_SECONDS} s, and there is no timer: the test is stuck")
        self._loop.now += max(0.0, timeout)
        return []


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on a `VirtualLoop` of its own. Its fixtures have to be synchronous."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> Callable[[], float]:
    """The clock of the running loop, to be given to what is tested."""
    return asyncio.get_running_loop().time
