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


@contextlib.contextmanager
def before_others(call: Callable[[], None]) -> Iterator[None]:
    """Have the event loop call `call` at SIGTERM and SIGINT, and then whoever handled these signals before.

    Servers end the lifespan only after all connections have ended, which streams never do by themselves: so the
    handlers that a server installed are chained, not replaced. Elsewhere than in the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    chained: list[tuple[signal.Signals, Any, Any]] = []
    for number in ENDING:
        theirs = signal.getsignal(number)
        if not callable(theirs):
            continue  # SIG_DFL ends the process anyway; SIG_IGN is somebody's wish

        def ours(number: int, frame: FrameType | None, theirs: Callable[..., Any] = theirs) -> None:
            if not loop.is_closed():  # another hub, which chained us, may have put us back since we left
                loop.call_soon_threadsafe(call)
            theirs(number, frame)

        signal.signal(number, ours)
        chained.append((number, ours, theirs))
    try:
        yield
    finally:
        for number, ours, theirs in chained:
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)
