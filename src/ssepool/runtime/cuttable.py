"""Cuttable: work of the application that can be left for good, whatever it catches."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Cuttable:
    """Awaits things inside a task. Once it is cut, the next cancellation ends them as `close()` ends a generator.

    `except asyncio.CancelledError: continue` makes a task that never ends, which holds up the event loop's own end for
    ever. `GeneratorExit` gets past that; what catches even this is left where it stands.
    """

    def __init__(self) -> None:
        self.is_cut = False
        """Whether it has been cut."""

    @types.coroutine
    def run(self, work: Awaitable[T]) -> Generator[Any, None, T]:
        """Return what `work` returns. Raises what it raises, and `CancelledError` when it is cut.

        To be given what is to be cut itself, and no coroutine around it: `GeneratorExit` closes what a coroutine waits
        for, which for a step of an asynchronous generator does nothing before Python 3.13.
        """
        steps: Any = work.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                awaited = steps.send(None) if thrown is None else steps.throw(thrown)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            except GeneratorExit:
                raise asyncio.CancelledError from None
            if isinstance(thrown, GeneratorExit):
                raise asyncio.CancelledError  # it goes on even so
            thrown = None
            try:
                yield awaited
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as raised:
                thrown = GeneratorExit() if self.is_cut else raised
