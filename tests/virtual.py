"""Virtual time for the project's own tests: `ssepool.testing`'s clock, around a test that pytest calls as a function.

@in_virtual_time
async def test_a_node_that_says_nothing_is_gone() -> None:
    subject = Subject(now=now())
    await asyncio.sleep(3600)
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from ssepool.testing.clock import running_clock, virtual_clock


def run_virtually(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, in virtual time."""

    async def run() -> None:
        async with virtual_clock():
            await main

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(run())


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in virtual time, in an event loop of its own. Its fixtures have to be synchronous."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(test(*args, **kwargs))

    return run


def now() -> Callable[[], float]:
    """The clock of the running loop, to be given to what is tested."""
    return asyncio.get_running_loop().time


def hold_up(seconds: float) -> None:
    """Let so many virtual seconds pass in this moment, as if something had held the event loop up."""
    running_clock().turn(seconds)
