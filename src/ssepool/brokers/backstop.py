"""Backstop: what publishers do about a history that no hub bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ssepool.brokers.base import DROP_ENTRIES, Bounds, Broker
from ssepool.config import HubConfig, MiB

logger = logging.getLogger("ssepool")

LEAST_BYTES = HubConfig().history_bytes
"""Bytes that are kept in any case, also where there was no hub yet."""

SPARE_BYTES = 32 * MiB
"""Bytes of memory at most of the events that a hub lets wait to be dropped."""

TELL_SECONDS = 60.0
"""Seconds after which the hub that drops says so again."""

HUB_SECONDS = 180.0
"""Seconds after its last word for which a hub is taken to be there: however much there is, it is the hub's to drop."""

BOUND_SECONDS = 30 * 86_400.0
"""Seconds for which it is known how much a hub kept."""

HUB = "history-hub"
"""The name of the fact that there is a hub that drops."""

BOUND = "history-bytes-"
"""How the names of the facts begin that say a hub's `history_bytes`."""

LOOK_EVENTS = 1000
"""Events after which a publisher looks at the history."""

LOOK_SECONDS = (1.0, 10.0)
"""Seconds between two looks: at least, and of those who publish less, at most."""

TRIM_SECONDS = 60.0
"""Seconds between two times that the broker is asked to do its housekeeping, by which it knows its bytes again."""

BUSY_SECONDS = 0.25
"""Seconds after which what is still to be dropped is left to the next publish."""

MAX_SECONDS = 0.9
"""Seconds for which a publish waits for this at most, also if the broker does not answer."""


async def tell(broker: Broker) -> None:
    """Say in the broker that a hub drops what is beyond its `history_bytes`. Raises `BrokerError`."""
    await broker.keep(f"{BOUND}{int(broker.config.history_bytes)}", b"", BOUND_SECONDS)
    await broker.keep(HUB, b"", HUB_SECONDS)


class Backstop:
    """Drops the oldest events where publishers publish and no hub drops: else a history would grow without end.

    It leaves alone what any hub's settings keep, and all of it where a hub is there. Up to what it drops nothing is
    known of cuts, so who comes with a place before that is told of a gap.
    """

    def __init__(self, broker: Broker, now: Callable[[], float]) -> None:
        """`now` is a clock, in seconds."""
        self._broker = broker
        self._now = now
        self._bound = LEAST_BYTES
        self._epoch = ""
        self._looked = float("-inf")
        self._trimmed = now()
        self._events = 0
        self._read_to = 0
        self._hub_until = float("-inf")
        self._is_busy = self._is_behind = self._has_told = self._has_failed = False

    async def published(self, events: int) -> None:
        """So many events are stored: look whether there are too many now. What fails in it is logged, once."""
        self._events += events
        if self._is_busy or not (self._is_behind or self._is_due()):
            return
        self._is_busy = True
        try:
            async with asyncio.timeout(MAX_SECONDS):
                await self._look()
        except Exception as error:  # the publish has succeeded, whatever becomes of this
            self._is_behind = False
            if not self._has_failed:
                logger.warning("it could not be seen that the history of %s stays bounded: %r", self._broker.url, error)
            self._has_failed = True
        else:
            self._has_failed = False
        finally:
            self._is_busy = False

    def _is_due(self) -> bool:
        soonest, latest = LOOK_SECONDS
        return self._now() - self._looked >= (soonest if self._events >= LOOK_EVENTS else latest)

    async def _look(self) -> None:
        began = self._looked = self._now()
        self._events = 0
        if began - self._trimmed >= TRIM_SECONDS:
            self._trimmed = began
            await self._broker.trim()
        while excess := await self._excess():
            if not self._has_told:
                self._has_told = True
                logger.warning("no hub bounds the history of %s: its oldest events are dropped", self._broker.url)
            self._is_behind = await self._drop(*excess)
            if not self._is_behind or self._now() - began >= BUSY_SECONDS:
                return
        self._is_behind = False

    async def _excess(self) -> tuple[Bounds, int] | None:
        """What there is, and how many bytes of it are too many; None if nothing is to be done about it."""
        bounds = await self._broker.bounds()
        if bounds.epoch != self._epoch:
            self._epoch, self._read_to, self._bound = bounds.epoch, 0, LEAST_BYTES
        if not bounds.drops or not self._is_beyond(bounds):
            return None
        await self._read()
        if self._now() < self._hub_until or not self._is_beyond(bounds):
            return None
        return bounds, bounds.bytes - self._bound

    def _is_beyond(self, bounds: Bounds) -> bool:
        return bounds.bytes > (self._bound if self._is_behind else 2 * self._bound + SPARE_BYTES)

    async def _read(self) -> None:
        """See what hubs have said since the last time."""
        while facts := await self._broker.kept(self._read_to):
            for fact in facts:
                if fact.name == HUB:
                    self._hub_until = self._now() + HUB_SECONDS
                elif fact.name.startswith(BOUND):
                    self._bound = max(self._bound, int(fact.name.removeprefix(BOUND)))
            self._read_to = facts[-1].number

    async def _drop(self, bounds: Bounds, excess: int) -> bool:
        """Drop the oldest of what is there; whether that was not all of the excess."""
        positions: list[int] = []
        for entry in await self._broker.read(bounds.oldest, max_entries=DROP_ENTRIES):
            excess -= entry.size  # not less than it takes there, so that no more goes than is too much
            if excess < 0:
                break
            positions.append(entry.position)
        if positions:
            await self._broker.drop(positions, {}, positions[-1])
        return bool(positions)
