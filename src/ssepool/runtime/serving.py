"""Serving: hears that the uvicorn that serves the application is to end, where no signal tells.

`Server.should_exit = True`, `--limit-max-requests` and a supervisor's word end a server without a signal. It then waits
for its connections to end, which streams never do by themselves, and only after that it ends the lifespan.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any

LOOK_SECONDS = 0.2
"""Seconds between two looks at the server; it looks at itself every 0.1 s."""

MAX_SEARCHES = 25
"""Looks for a server: it may begin to serve some time after the hub has opened, or never."""


@contextlib.contextmanager
def at_its_end(call: Callable[[], None]) -> Iterator[None]:
    """Have the event loop call `call` once when the server that runs in it begins to end."""
    watch = _Watch(call)
    try:
        yield
    finally:
        watch.stop()


class _Watch:
    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._servers = servers()
        self._searches = 0
        self._handle = self._loop.call_later(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        if not self._servers:
            self._searches += 1
            self._servers = servers()
        if self._servers and all(map(is_ending, self._servers)):
            self._call()
        elif self._servers or self._searches < MAX_SEARCHES:
            self._handle = self._loop.call_later(LOOK_SECONDS, self._look)


def servers() -> list[Any]:
    """The `uvicorn.Server`s that run in this event loop. In a lifespan, the one that has begun it is enough.

    No public way leads from an application to its server. But it waits in a task of this loop, in a method of its own.
    """
    module = sys.modules.get("uvicorn.server")
    if module is None:
        return []
    found = {
        id(owner): owner for task in asyncio.all_tasks() for owner in _owners(task) if isinstance(owner, module.Server)
    }
    current = asyncio.current_task()
    here = [] if current is None else [id(owner) for owner in _owners(current)]
    ours = [server for server in found.values() if id(getattr(server, "lifespan", None)) in here]
    return ours or list(found.values())


def is_ending(server: Any) -> bool:
    """Whether a server was told to end, or listens no more, as it does after the most requests that it may answer."""
    if server.should_exit:
        return True
    listening = getattr(server, "servers", ()) if server.started else ()
    return bool(listening) and not any(each.is_serving() for each in listening)


def _owners(task: asyncio.Task[Any]) -> Iterator[object]:
    """The objects in whose methods a task is now, the outermost first."""
    coroutine: Any = task.get_coro()
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        yield coroutine.cr_frame.f_locals.get("self")
        coroutine = coroutine.cr_await
