"""Intake: takes in what a broker of this process stores, in slices."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from ssepool.brokers.base import InstantBroker
from ssepool.core.event import Entry
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.slices import next_step


class Intake:
    """Enters new entries into the broker's window and delivers them, in order: a batch that is too much for one turn of
    the event loop in several. What has been stored and waits is `pending`."""

    def __init__(
        self, broker: InstantBroker, deliver: Callable[[Sequence[Entry]], None], now: Callable[[], float]
    ) -> None:
        """From now on `deliver` gets what the broker stores. `now` is the hub's clock, in seconds."""
        self.pending: deque[Entry] = deque()
        """What has been stored and not been delivered."""
        self._broker = broker
        self._deliver = deliver
        self._now = now
        broker.listener = self._take

    def _take(self, entries: Sequence[Entry]) -> None:
        if self.pending or len(entries) > 1:
            is_under_way = bool(self.pending)
            self.pending.extend(entries)
            if not is_under_way:
                self._give()
        elif entries:
            self._broker.enter(entries)
            self._deliver(entries)

    def _give(self) -> None:
        """A slice of what is pending, and the rest in the loop's next turn."""
        pending, began, step = self.pending, self._now(), 1
        deadline = began + SLICE_SECONDS
        try:
            while pending:
                entries = [pending.popleft() for _ in range(min(step, len(pending)))]
                self._broker.enter(entries)
                self._deliver(entries)
                now = self._now()
                if now >= deadline:
                    break
                step, began = next_step(step, now - began), now
        finally:
            if pending:
                asyncio.get_running_loop().call_soon(self._give)
