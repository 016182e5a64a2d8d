"""Threads: publishing from threads that are not the event loop's, as plain functions of a web framework run in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from threading import get_ident

from ssepool.core.event import Event
from ssepool.errors import PoolClosed
from ssepool.runtime.tasks import Tasks

LOOK_SECONDS = 0.25
"""How often a thread that waits looks whether the event loop still runs, which may have ended without a word."""


class Threads:
    """Takes events from any thread and publishes them on the event loop that the hub was opened on."""

    _loop: asyncio.AbstractEventLoop | None = None
    _thread: int | None = None

    def __init__(self, publish: Callable[[Iterable[Event]], Awaitable[list[str]]], tasks: Tasks) -> None:
        """`publish` is awaited on the loop, and `tasks` let it come to its end."""
        self._publish = publish
        self._tasks = tasks
        self._pending: set[Future[str]] = set()

    def open(self) -> None:
        """From here on this thread is the event loop's, and events are taken from all others."""
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()

    def close(self) -> None:
        """Take no more, and fail what has not been published."""
        self._loop = self._thread = None
        for future in list(self._pending):
            _fail(future, PoolClosed("the hub closed meanwhile; it is not known whether the event was published"))

    def check_on_loop(self, name: str) -> None:
        """Raise `RuntimeError` for a call of this name that another thread makes. Before the hub is open, whoever is
        called says so."""
        if self._thread is not None and get_ident() != self._thread:
            raise RuntimeError(
                f"{name} was called in another thread than that of the hub's event loop; in a thread call "
                "hub.publish_sync(...), which waits, or hub.publish_threadsafe(...), which returns a future"
            )

    def submit(self, event: Event, name: str = "publish_threadsafe") -> Future[str]:
        """Have an event published, and return the future of its id. Raises `PoolClosed`, and `RuntimeError` on the
        event loop, where to wait for the future would stop what it waits for."""
        loop = self._loop
        if loop is None:
            raise PoolClosed("the hub is not open: it publishes from the start of its lifespan to the end")
        if loop.is_closed():  # nobody closed the hub before its loop
            raise _ended()
        if get_ident() == self._thread:
            raise RuntimeError(f"{name} is for other threads; on the hub's event loop it is `await hub.publish(...)`")
        future: Future[str] = Future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        try:
            loop.call_soon_threadsafe(self._start, event, future)
        except RuntimeError:  # it was closed in between
            self._pending.discard(future)
            raise _ended() from None
        if self._loop is None:  # it closed meanwhile, and may not have seen this one
            _fail(future, PoolClosed("the hub closed meanwhile; it is not known whether the event was published"))
        return future

    def wait(self, event: Event, name: str = "publish_sync") -> str:
        """As `submit`, and wait until the event is published. Returns its id, or raises why it is not."""
        loop, future = self._loop, self.submit(event, name)
        stopped = 0
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except TimeoutError:
                if future.done():
                    raise
            stopped = 0 if loop is not None and loop.is_running() else stopped + 1
            if stopped == 2:  # once may be between two runs of a loop
                _fail(future, _ended())

    def _start(self, event: Event, future: Future[str]) -> None:
        if not future.done() and future.set_running_or_notify_cancel():
            self._tasks.start(self._run(event, future))

    async def _run(self, event: Event, future: Future[str]) -> None:
        try:
            [id] = await self._publish([event])
        except asyncio.CancelledError:
            _fail(future, PoolClosed("the hub closed meanwhile; it is not known whether the event was published"))
            raise
        except Exception as error:
            _fail(future, error)
        else:
            with contextlib.suppress(InvalidStateError):
                future.set_result(id)


def _fail(future: Future[str], error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)


def _ended() -> PoolClosed:
    return PoolClosed("the event loop of the hub has ended; it is not known whether the event was published")
