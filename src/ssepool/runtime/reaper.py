"""Reaper: looks at the pool on a timer. What is to be done the pure core says; here it is done."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState, WaiterState
from ssepool.core.waiting import Waiter
from ssepool.runtime.streams.slices import in_slices

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
        evict_all: Callable[[Iterable[tuple[Slot, Reason]]], Iterator[int]],
        expire: Callable[[float], None],
        now: Callable[[], float],
    ) -> None:
        """Starts looking. `evict_all` sends the clients of slots away, one with each step. `expire` forgets what is too
        old at that time, and `now` is the pool's clock, in seconds."""
        self._pool = pool
        self._evict_all = evict_all
        self._expire = expire
        self._now = now
        self._loop = asyncio.get_running_loop()
        config = pool.config
        # Heartbeats need a finer grain than the interval to be spread over it, and to keep to it.
        self._interval = min(config.reap_interval, config.heartbeat_interval / 16)
        self._due = now()
        self._handle: asyncio.TimerHandle | None = None
        self._short_of_files = False
        self._looking = False
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
        self.look()

    def look(self) -> None:
        """One look, now. What it finds to be done is done in slices: of a big pool that is thousands of writes."""
        if not self._looking:  # else the look before has still to be finished
            in_slices(self._look(), self._now)

    def _look(self) -> Iterator[int]:
        self._looking = True
        try:
            pool, now = self._pool, self._now()
            while pool.time_out(now):
                yield 0
            reaped = pool.reap(now)
            yield from self._cut(reaped.overdue)
            yield from self._evict_all(reaped.evict)
            yield from self._beat(pool.beat(now))
            if pool.config.announce_queue:
                yield from self._announce(list(pool.waiting), now)
            self._expire(now)
            self._probe_files()
        except Exception:  # a defect that one look meets must not keep later ones from freeing slots
            logger.exception("the reaper failed; it goes on")
        finally:
            self._looking = False

    # Whatever has to do with a slot or a waiter may have changed hands, or be over, since the slice before.

    def _cut(self, slots: Sequence[Slot]) -> Iterator[int]:
        for slot in slots:
            if slot.state is SlotState.CLOSING and slot.due <= self._now() and slot.holder is not None:
                weight = slot.holder.weight
                slot.holder.end(slot.reason or Reason.ERROR)
                yield weight

    def _beat(self, slots: Sequence[Slot]) -> Iterator[int]:
        for slot in slots:
            holder = slot.holder
            if slot.state is SlotState.OPEN and holder is not None:
                holder.beat()  # which may find that its client has gone
                yield holder.weight

    def _announce(self, waiters: Sequence[Waiter], now: float) -> Iterator[int]:
        for position, waiter in enumerate(waiters, 1):
            if waiter.state is WaiterState.WAITING:
                waiter.applicant.announce(position, len(waiters), now)
            yield 0

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
