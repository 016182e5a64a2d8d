"""Virtual time: the clock of the running event loop, and of all hubs, jumps to the next timer when all else is done.

A test of timers takes no longer than its work, and an hour passes exactly as fast as a millisecond. Sockets and pipes
work as ever; what lies in them is read before the clock jumps, and threads that work for the loop are waited for.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from selectors import SelectorKey
from types import TracebackType
from typing import Any, Self

import anyio.to_thread

from ssepool import clock

STUCK_SECONDS = 10.0
"""Real seconds in which something has to happen where no timer is left."""

Ready = list[tuple[SelectorKey, int]]
"""What a selector returns."""

_running: VirtualClock | None = None
_wanted: VirtualClock | None = None


class VirtualClock:
    """The clock. It begins with the real time; while it runs, `asyncio.sleep(3600)` takes none.

    The loop's time, timeouts, and the clocks of hubs and of the brokers `memory://` and `sqlite://` are turned;
    `time.time()` of the application is not. Afterwards time goes on from where it was, at its own pace.
    """

    def __init__(self, *, quiet: float = 0.0) -> None:
        """Nothing is turned yet. `quiet` are real seconds in which nothing may have happened before the clock jumps:
        for sockets whose other end is another program."""
        self._quiet = quiet
        self._loop: Any = None
        self._began = self._time = self._wall = 0.0
        self._threads = 0
        self._settling: list[asyncio.Future[None]] = []

    @property
    def is_running(self) -> bool:
        """Whether time is virtual now."""
        return _running is self

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the clock began."""
        return self._time - self._began

    def now(self) -> float:
        """The time of the event loop and of hubs, in seconds."""
        return self._time

    def wall_clock(self) -> float:
        """The time in seconds since the epoch, as hubs see it: for tokens."""
        return self._wall + self.elapsed

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass, with all that is due in them, and return when nothing more is to be done."""
        self.begin()
        await self.settle()
        await asyncio.sleep(seconds)
        await self.settle()

    async def settle(self) -> None:
        """Return when nothing is to be done without time passing."""
        self.begin()
        settled = self._loop.create_future()
        self._settling.append(settled)
        await settled

    def turn(self, seconds: float) -> None:
        """Let so many seconds pass in this moment, as if something had held the event loop up."""
        self._time += seconds

    def begin(self) -> None:
        """Turn the clock of the running event loop; nothing if that is done. Raises `RuntimeError` if another virtual
        clock runs, and for an event loop whose time cannot be turned, such as uvloop's."""
        global _running
        if _running is self:
            return
        if _running is not None:
            raise RuntimeError("another virtual clock is running; there is one at a time")
        loop: Any = asyncio.get_running_loop()
        selector = getattr(loop, "_selector", None)
        if not isinstance(loop, asyncio.BaseEventLoop) or selector is None:
            raise RuntimeError(
                f"the time of a {type(loop).__module__}.{type(loop).__name__} cannot be turned: a virtual clock takes "
                "asyncio's own event loop, so run this test without uvloop"
            )
        _running, self._loop = self, loop
        self._began = self._time = float(math.ceil(loop.time()))  # whole seconds: sums stay exact
        self._wall = time.time()
        self._select: Callable[[float | None], Ready] = selector.select
        self._run_in_executor, self._run_sync = loop.run_in_executor, anyio.to_thread.run_sync
        vars(loop).update(time=self.now, run_in_executor=self._in_executor)
        selector.select, self._selector = self._jump, selector
        vars(anyio.to_thread).update(run_sync=self._in_thread)
        clock.turn(self.now, self.wall_clock)

    def end(self) -> None:
        """Let real time go on from here; nothing if the clock does not run."""
        global _running
        if _running is not self:
            return
        _running = None
        ahead = self._time - time.monotonic()

        def later() -> float:
            return time.monotonic() + ahead

        del self._loop.run_in_executor, self._selector.select
        # Timers that are set already, and the hub's, must not wait for a time that has been.
        self._loop.time = later
        vars(anyio.to_thread).update(run_sync=self._run_sync)
        clock.turn(later)

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _jump(self, timeout: float | None = None) -> Ready:
        """In the selector's place: does not wait for a timer, but moves the clock there."""
        if ready := self._select(0):
            return ready
        if timeout is not None and timeout <= 0:
            return []
        if self._threads or self._quiet:
            patience = self._quiet if not self._threads else STUCK_SECONDS if timeout is None else timeout
            if ready := self._select(patience):
                return ready
        if self._settling:
            for future in self._settling:
                if not future.done():
                    future.set_result(None)
            self._settling.clear()
            return []
        if timeout is not None:
            self._time += timeout
        elif ready := self._select(STUCK_SECONDS):
            return ready
        else:
            raise AssertionError(f"nothing happened in {STUCK_SECONDS} s, and there is no timer: the test is stuck")
        return []

    def _in_executor(self, executor: Any, function: Any, *arguments: Any) -> Any:
        future = self._run_in_executor(executor, function, *arguments)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: Any) -> None:
        self._threads -= 1

    async def _in_thread(self, *arguments: Any, **options: Any) -> Any:
        self._threads += 1
        try:
            return await self._run_sync(*arguments, **options)
        finally:
            self._threads -= 1


def virtual_clock(*, quiet: float = 0.0) -> VirtualClock:
    """Time that jumps, for `async with`: heartbeats, lifetimes, the reaper and tokens' ends in no time.

    `quiet` are real seconds in which nothing may have happened before the clock jumps: none, unless something else
    than this process answers, such as a broker's server. Raises `RuntimeError` as `VirtualClock.begin` does.
    """
    return VirtualClock(quiet=quiet)


def want(wanted: VirtualClock | None) -> None:
    """Have this clock begin as soon as this package meets an event loop: a synchronous fixture has none."""
    global _wanted
    _wanted = wanted


def begin_wanted() -> None:
    """Begin the clock that is wanted, if one is."""
    if _wanted is not None:
        _wanted.begin()


def is_virtual() -> bool:
    """Whether time is virtual now."""
    return _running is not None


def running_clock() -> VirtualClock:
    """The virtual clock that runs. Raises `RuntimeError` if none does."""
    if _running is None:
        raise RuntimeError("no virtual clock is running")
    return _running
