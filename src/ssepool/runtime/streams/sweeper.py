"""Sweeper: tells the broker what the history keeps no longer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from ssepool.brokers.backstop import SPARE_BYTES, TELL_SECONDS, tell
from ssepool.brokers.base import DROP_ENTRIES, Broker
from ssepool.core.cut import Cut
from ssepool.core.kept import Kept
from ssepool.core.window import Window
from ssepool.errors import BrokerError

logger = logging.getLogger("ssepool")

SPARE_SECONDS = 10.0
"""Seconds for which the broker keeps what the history does not: for hubs that were frozen, and publishers that try
again."""

SPARE_EVENTS = 20_000
"""Events that wait to be dropped at most."""

IDLE_SECONDS = 60.0
"""Seconds for which a hub that leaves dropping to another one keeps in mind what is to be dropped."""

PATIENCE_SECONDS = 1.0
"""Seconds that the broker has to keep the word that a hub drops."""


class Sweeper:
    """Has the broker drop what the window has dropped, some time later. Of several hubs one does it; the others take
    its place when it is gone, and what is dropped twice makes no difference."""

    def __init__(self, broker: Broker, now: Callable[[], float]) -> None:
        """`now` is the hub's clock, in seconds."""
        self._broker = broker
        self._now = now
        self._waiting: deque[tuple[float, Kept, bool]] = deque()
        self._size = 0
        self._window: Window | None = None
        self._told = float("-inf")
        self.sweeps: Callable[[], bool] = lambda: True
        """Whether it is this hub that drops."""

    def follow(self, window: Window) -> None:
        """From now on it is this window that decides; what waits of another one has been lost with it."""
        self._window = window
        self._waiting.clear()
        self._size = 0
        window.drops = deque()

    async def sweep(self) -> None:
        """Drop what has waited for long enough. Raises `BrokerError`; what was not dropped is dropped the next time."""
        window = self._window
        if window is None or window.drops is None:
            return
        while window.drops:
            at, entry, is_missed = window.drops.popleft()
            self._waiting.append((at, entry, is_missed))
            self._size += entry.size
        sweeps = self.sweeps()
        if sweeps:
            await self._tell()
        while ripe := self._ripe(SPARE_SECONDS if sweeps else IDLE_SECONDS):
            if sweeps:
                await self._drop(ripe, window.cuts.floor)
                await self._tell()
                if window is not self._window:
                    return
            for entry, _ in ripe:
                self._waiting.popleft()
                self._size -= entry.size

    async def _tell(self) -> None:
        """Say now and then that a hub drops, so that publishers do not."""
        if self._now() - self._told < TELL_SECONDS:
            return
        self._told = self._now()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await tell(self._broker)
        # What is dropped matters more. All else notices a broker that is away, but not while this waits for it.
        except (BrokerError, TimeoutError) as error:
            why = str(error) or f"no answer in {PATIENCE_SECONDS:g} s"
            logger.warning("publishers could not be told that a hub bounds the history: %s", why)

    async def _drop(self, ripe: Sequence[tuple[Kept, bool]], floor: int) -> None:
        cuts: dict[str, Cut] = {}
        for entry, is_missed in ripe:
            for topic in entry.topics if is_missed else ():
                cut = Cut(0, entry.position) if entry.private else Cut(entry.position)
                cuts[topic] = cut.joined(cuts.get(topic, cut))
        names = list(cuts)
        # These first: who finds an entry gone finds its cut.
        for start in range(DROP_ENTRIES, len(names), DROP_ENTRIES):
            await self._broker.drop((), {topic: cuts[topic] for topic in names[start : start + DROP_ENTRIES]}, floor)
        positions = sorted([entry.position for entry, _ in ripe])
        await self._broker.drop(positions, {topic: cuts[topic] for topic in names[:DROP_ENTRIES]}, floor)

    def _ripe(self, seconds: float) -> list[tuple[Kept, bool]]:
        old = self._now() - seconds
        too_many = max(0, len(self._waiting) - SPARE_EVENTS)
        ripe: list[tuple[Kept, bool]] = []
        size = self._size
        for at, entry, is_missed in self._waiting:
            if len(ripe) == DROP_ENTRIES or (at > old and len(ripe) >= too_many and size <= SPARE_BYTES):
                break
            ripe.append((entry, is_missed))
            size -= entry.size
        return ripe
