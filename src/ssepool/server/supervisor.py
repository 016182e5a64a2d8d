"""Supervisor: starts the workers of one port, replaces those that die, and ends them together."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection as waiting
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from types import FrameType
from typing import Any

from ssepool.server.balance import ROW_FIELDS, Balance
from ssepool.server.systemd import notify

logger = logging.getLogger("ssepool")

TICK_SECONDS = 0.5
"""Seconds between two looks at the workers."""

HUNG_SECONDS = 30.0
"""Seconds without a sign of life after which a worker is killed and replaced."""

BACKOFF_SECONDS = (0.1, 5.0)
"""Seconds until a dead worker is replaced: at first, and at the most when it dies again and again."""

STEADY_SECONDS = 10.0
"""Seconds that a worker must have lived for its death to count as the first."""

GRACE_SECONDS = 3.0
"""Seconds beyond the shutdown timeout that a worker has to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker's process is given."""

    index: int
    """Its number, from 0 on."""
    count: int
    """How many there are."""
    group: str
    """Names the workers of this supervisor."""
    listener: socket.socket
    """All workers accept from the same."""
    balance: Balance
    """How the workers share new clients out."""
    ready: Connection
    """Anything sent here says that this worker takes connections."""
    admin: tuple[socket.socket, ...] = ()
    """As `listener`, for operators."""


class _Place:
    """One of the workers, and its successors."""

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.ready: Connection | None = None
        self.is_ready = False
        self.is_killed = False
        self.started_at = 0.0
        self.delay = 0.0
        self.due = 0.0


class Supervisor:
    """Runs `work(worker)` in `count` processes until SIGTERM or SIGINT."""

    def __init__(
        self,
        work: Callable[..., None],
        args: tuple[Any, ...],
        listener: socket.socket,
        *,
        count: int,
        shutdown_timeout: float,
        on_started: Callable[[], None],
        admin: tuple[socket.socket, ...] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`work(worker, *args)` is a module's function; `on_started` is called when all workers take connections.
        `now` is the clock by which the workers say that they live, in seconds."""
        self._work = work
        self._args = args
        self._listener = listener
        self._admin = admin
        self._timeout = shutdown_timeout + GRACE_SECONDS
        self._on_started = on_started
        self._now = now
        self._context = get_context("spawn")
        self._table = RawArray("d", ROW_FIELDS * count)
        self._group = secrets.token_hex(4)
        self._places = [_Place() for _ in range(count)]
        self._ending = False
        self._started = False

    def run(self) -> int:
        """Supervise, and return the exit code: that of the first worker that could not even start, or 0."""
        with self._signals():
            for index in range(len(self._places)):
                self._start(index)
            try:
                while not self._ending:
                    if code := self._look():
                        return code
                return 0
            finally:
                self._end()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            self._ending = True

        # A signal must end the waiting too, which would otherwise go on for a tick.
        receive, send = socket.socketpair()
        send.setblocking(False)
        self._wake = receive
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(send.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            receive.close()
            send.close()

    def _start(self, index: int) -> None:
        place = self._places[index]
        place.ready, theirs = self._context.Pipe(duplex=False)
        self._clear(index)
        shares = self._listener, Balance(self._table, index), theirs, self._admin
        worker = Worker(index, len(self._places), self._group, *shares)
        place.process = self._context.Process(
            target=self._work, args=(worker, *self._args), name=f"ssepool-worker-{index}"
        )
        place.process.start()
        theirs.close()
        place.is_ready = place.is_killed = False
        place.started_at = self._now()

    def _look(self) -> int:
        """Wait for news of the workers and act on it. The code of one that failed before all have ever been ready."""
        sentinels: list[Any] = [self._wake]
        for place in self._places:
            if place.process is not None:
                sentinels.append(place.process.sentinel)
                if place.ready is not None:
                    sentinels.append(place.ready)
        waiting.wait(sentinels, timeout=TICK_SECONDS)
        now = self._now()
        for index, place in enumerate(self._places):
            if place.process is None:
                if now >= place.due:
                    self._start(index)
                continue
            self._take_sign(place)
            if place.process.exitcode is not None:
                if not self._started and not place.is_ready:
                    return place.process.exitcode or 1
                self._bury(index, now)
            elif place.is_ready and not place.is_killed and now - self._table[index * ROW_FIELDS + 2] > HUNG_SECONDS:
                logger.error("worker %d (pid %d) hangs; it is killed", index, place.process.pid)
                place.process.kill()
                place.is_killed = True
        if not self._started and all(place.is_ready for place in self._places):
            self._started = True
            self._on_started()
        return 0

    def _take_sign(self, place: _Place) -> None:
        if place.ready is None or not place.ready.poll():
            return
        try:
            place.ready.recv()
            place.is_ready = True
        except EOFError:  # it has died
            pass
        place.ready.close()
        place.ready = None

    def _bury(self, index: int, now: float) -> None:
        place = self._places[index]
        assert place.process is not None
        first, longest = BACKOFF_SECONDS
        place.delay = first if now - place.started_at > STEADY_SECONDS else min(longest, max(first, 2 * place.delay))
        place.due = now + place.delay
        if not self._ending:
            logger.error(
                "worker %d (pid %d) ended with code %s; another takes its place in %.1f s",
                *(index, place.process.pid, place.process.exitcode, place.delay),
            )
        self._clear(index)
        place.process.close()
        place.process = None

    def _clear(self, index: int) -> None:
        """What the last one said of itself must not keep others from accepting."""
        for field in range(ROW_FIELDS):
            self._table[index * ROW_FIELDS + field] = 0

    def _end(self) -> None:
        """Ask all to end, and kill those that do not in time."""
        notify("STOPPING=1")
        running = [place.process for place in self._places if place.process is not None]
        for process in running:
            if process.exitcode is None and process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
        deadline = self._now() + self._timeout
        for process in running:
            process.join(max(0.0, deadline - self._now()))
            if process.exitcode is None:
                logger.error("worker of pid %s did not end in time; it is killed", process.pid)
                process.kill()
                process.join()
