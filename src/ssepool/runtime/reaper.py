"""Reaper: looks at the pool on a timer. What is to be done the pure core says; here it is done."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterator

from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState
from ssepool.runtime.streams.delivery import SLICE_SECONDS

logger = logging.getLogger("ssepool")

LATE_SECONDS = 1.0
"""Seconds beyond its interval after which a look counts as late: the event loop was held up."""


class Reaper:
    """Frees the slots of clients that are stalled, idle or expired, times waiters out and sends heartbeats.

    It arms its timer before it works, so that a failure in one look does not end the looking.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        evict: Callable[[Slot, Reason], None],
        expire: Callable[[float], None],
        now: Callable[[], float],
    ) -> None:
        """Starts looking. `evict` sends the client of a slot away, `expire` forgets what is too old at that time, and
        `now` is the pool's clock, in seconds."""
        self._pool = pool
        self._evict = evict
        self._expire = expire
        self._now = now
        self._loop = asyncio.get_running_loop()
        config = pool.config
        # Heartbeats need a finer grain than the interval to be spread over it, and to keep to it.
        self._interval = min(config.reap_interval, config.heartbeat_interval / 16)
        self._due = now()
        self._handle: asyncio.TimerHandle | None = None
        self._short_of_files = False
        self.runs = 0
        """Looks so far."""
        self.late = 0
        """Those of them that came late."""
        self._arm()

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._due = self._now() + self._interval
        self._handle = self._loop.call_later(self._interval, self._run)

    def _run(self) -> None:
        late = self._now() - self._due
        self._arm()
        self.runs += 1
        if late > LATE_SECONDS:
            self.late += 1
            logger.warning("the reaper ran %.1f s late: something held the event loop up", late)
        try:
            self.look()
        except Exception:  # a defect that one look meets must not keep later ones from freeing slots
            logger.exception("the reaper failed; it goes on")

    def look(self) -> None:
        """One look, now."""
        pool, now = self._pool, self._now()
        reaped = pool.reap(now)
        for slot in reaped.overdue:
            if slot.holder is not None:
                slot.holder.end(slot.reason or Reason.ERROR)
        for slot, reason in reaped.evict:
            self._evict(slot, reason)
        self._beat(iter(pool.beat(now)))
        if pool.config.announce_queue:
            waiting = len(pool.waiting)
            for position, waiter in enumerate(list(pool.waiting), 1):
                waiter.applicant.announce(position, waiting, now)
        self._expire(now)
        self._probe_files()

    def _beat(self, slots: Iterator[Slot]) -> None:
        """Send heartbeats, in slices as delivery does it: a look's share of a big pool is thousands of writes."""
        deadline = self._now() + SLICE_SECONDS
        for slot in slots:
            if (
                slot.state is SlotState.OPEN and slot.holder is not None
            ):  # it may have changed hands since the last slice
                slot.holder.beat()
            if self._now() >= deadline:
                self._loop.call_soon(self._beat, slots)
                return

    def _probe_files(self) -> None:
        """Say so when descriptors run out: the listening server drops new connections then, and may not say it."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                return
            if not self._short_of_files:
                logger.error(
                    "no file descriptor is left (%s): new connections are dropped until some are free; "
                    "raise the limit (ulimit -n) or lower the pool's size of %d",
                    error.strerror,
                    len(self._pool.slots),
                )
            self._short_of_files = True
        else:
            if self._short_of_files:
                logger.warning("file descriptors are free again")
            self._short_of_files = False
