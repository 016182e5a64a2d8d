"""Balance: how the workers of one port share its clients out, so that their pools are like one."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass

from ssepool.core.pool import Pool
from ssepool.core.states import PoolState, SlotState

SLACK_CLIENTS = 64
"""Clients by which a worker may be ahead of another before it leaves new ones to it."""

STALE_SECONDS = 1.0
"""Seconds after which what a worker said of itself no longer counts: it hangs, or has died."""

ROW_FIELDS = 3
"""Numbers of a row: free slots, held slots, and when that was so."""

Table = MutableSequence[float]
"""The rows of all workers one after the other, in memory that they share."""


@dataclass(frozen=True, slots=True)
class Balance:
    """One worker's look at the table. A race between two of them costs nothing but evenness.

    `now` is the time, in seconds, of the monotonic clock that all workers of a machine share.
    """

    table: Table
    """All rows, in memory that the workers share."""
    worker: int
    """The number of this worker, from 0 on."""

    def tell(self, pool: Pool, now: float) -> None:
        """Write down how full this worker's pool is."""
        free = pool.count(SlotState.FREE) if pool.state is PoolState.OPEN else 0
        place = self.worker * ROW_FIELDS
        self.table[place] = free
        self.table[place + 1] = len(pool.slots) - free
        self.table[place + 2] = now

    def leaves_to_others(self, now: float) -> bool:
        """Whether another worker should accept the next client: it has slots left and this one has none, or it has
        clearly fewer clients."""
        table, mine, fresh = self.table, self.worker * ROW_FIELDS, now - STALE_SECONDS
        for other in range(0, len(table), ROW_FIELDS):
            if other == mine or table[other] == 0 or table[other + 2] < fresh:
                continue
            if table[mine] == 0 or table[other + 1] + SLACK_CLIENTS < table[mine + 1]:
                return True
        return False
