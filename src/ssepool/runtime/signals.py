"""Signals: hear of the end of the process before the server does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)
"""The signals that end a process politely."""


class _Chained:
    """A handler in front of another one. It may have to stay in place when its hub has gone, because another hub has
    chained it: then it only hands the signal on."""

    def __init__(self, theirs: Callable[..., Any], call: Callable[[], None]) -> None:
        self.theirs = theirs
        self._call: Callable[[], None] | None = call
        self._loop = asyncio.get_running_loop()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_alive and self._call is not None:
            self._loop.call_soon_threadsafe(self._call)
        self.theirs(number, frame)

    @property
    def is_alive(self) -> bool:
        return self._call is not None and not self._loop.is_closed()

    def leave(self) -> None:
        self._call = None


@contextlib.contextmanager
def before_others(call: Callable[[], None]) -> Iterator[None]:
    """Have the event loop call `call` at SIGTERM and SIGINT, and then whoever handled these signals before.

    Servers end the lifespan only after all connections have ended, which streams never do by themselves: so the
    handlers that a server installed are chained, not replaced. Elsewhere than in the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chained: list[tuple[signal.Signals, _Chained]] = []
    for number in ENDING:
        theirs = signal.getsignal(number)
        if callable(theirs):  # SIG_DFL ends the process anyway; SIG_IGN is somebody's wish
            ours = _Chained(theirs, call)
            signal.signal(number, ours)
            chained.append((number, ours))
    try:
        yield
    finally:
        for number, ours in chained:
            ours.leave()
            _unchain(number)


def _unchain(number: signal.Signals) -> None:
    """Take the handlers away whose hubs have gone, as far as nobody has chained them: they may end in any order."""
    if threading.current_thread() is not threading.main_thread():
        return
    first = found = signal.getsignal(number)
    while isinstance(found, _Chained) and not found.is_alive:
        found = found.theirs
    if found is not first:
        signal.signal(number, found)
