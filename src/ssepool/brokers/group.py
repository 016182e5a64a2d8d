"""Group commit: publishes that arrive while an append is under way go into the next append together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ssepool.brokers.base import Broker, Stored, conflict
from ssepool.brokers.record import Record, records
from ssepool.config import MiB
from ssepool.core.event import Event, memory_of
from ssepool.errors import BrokerError, DuplicateEvent

MAX_APPEND_EVENTS = 1000
"""Events that one append joins. A larger batch goes alone."""

MAX_APPEND_BYTES = 4 * MiB
"""Bytes of memory of the events that one append joins. A larger batch goes alone."""

MAX_WAITING_PUBLISHES = 10_000
"""Publishes that may wait for the broker. More are refused, so that memory does not grow while the broker is away."""

MAX_WAITING_BYTES = 64 * MiB
"""Bytes of memory of the events that may wait for the broker. Publishes beyond them are refused."""


class _Batch(NamedTuple):
    """What one publish waits for."""

    records: list[Record]
    """The events of the publish."""
    size: int
    """Bytes of memory that they take."""
    stored: asyncio.Future[list[Stored]]
    """The outcome of their append."""

    @property
    def has_ids(self) -> bool:
        return any(record.id is not None for record in self.records)


class GroupCommit:
    """Appends to a broker, one append at a time and in the order of the publishes. Each publish succeeds or fails
    within `broker_timeout`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._config = broker.config
        self._waiting: deque[_Batch] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None

    async def append(self, events: Sequence[Event]) -> list[Stored]:
        """Store a batch, all or nothing. Any number of tasks may call this at once.

        Raises `EventTooLarge` and `DuplicateEvent`, and `BrokerError` if the broker fails, has not answered after
        `broker_timeout`, or has too many publishes waiting.
        """
        made = records(events, self._config.max_event_size)
        size = sum(memory_of(record.frame, record.topics) for record in made)
        if len(self._waiting) >= MAX_WAITING_PUBLISHES or (self._waiting and self._size + size > MAX_WAITING_BYTES):
            raise BrokerError(
                f"{self._broker.url} is too slow or away: {len(self._waiting)} publishes of {self._size} bytes "
                "wait for it already; nothing was published"
            )
        batch = _Batch(made, size, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._size += size
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(self._config.broker_timeout):
                return await batch.stored
        except TimeoutError:
            raise self._late(batch) from None
        finally:
            # The search is slow when many wait, so only a caller that gives up makes it.
            if batch.stored.cancelled() and batch in self._waiting:
                self._waiting.remove(batch)
                self._size -= size

    async def close(self) -> None:
        """Fail the publishes that still wait. Call it when nobody publishes any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._commit(self._take())
        finally:
            self._task = None
            for batch in self._waiting:
                if not batch.stored.done():
                    batch.stored.set_exception(BrokerError("the hub is closed; nothing was published"))
            self._waiting.clear()
            self._size = 0

    def _take(self) -> list[_Batch]:
        """The batches of the next append. One whose ids may be refused goes alone, so that no other fails with it."""
        group: list[_Batch] = []
        events = size = 0
        apart = self._config.on_duplicate == "refuse"
        while self._waiting:
            batch = self._waiting[0]
            alone = apart and batch.has_ids
            many = events + len(batch.records) > MAX_APPEND_EVENTS
            large = size + batch.size > MAX_APPEND_BYTES
            if group and (alone or many or large):
                break
            self._waiting.popleft()
            self._size -= batch.size
            group.append(batch)
            events, size = events + len(batch.records), size + batch.size
            if alone:
                break
        return group

    async def _commit(self, group: list[_Batch]) -> None:
        """Append a group. Batches that are refused fail alone: the others go again, without them."""
        while group:
            try:
                await self._append(group)
            except DuplicateEvent as error:
                group = _without_refused(group, error)
            else:
                return

    async def _append(self, group: list[_Batch]) -> None:
        try:
            async with asyncio.timeout(self._config.broker_timeout):
                stored = await self._broker.append([record for batch in group for record in batch.records])
        except DuplicateEvent:
            raise
        except Exception as error:
            for batch in group:
                if not batch.stored.done():
                    late = isinstance(error, TimeoutError)
                    batch.stored.set_exception(self._late(batch) if late else error)
            return
        except asyncio.CancelledError:
            for batch in group:
                batch.stored.cancel()
            raise
        place = 0
        for batch in group:
            if not batch.stored.done():
                batch.stored.set_result(stored[place : place + len(batch.records)])
            place += len(batch.records)

    def _late(self, batch: _Batch) -> BrokerError:
        said = "nothing was published" if batch in self._waiting else "the events may be published or not"
        return BrokerError(f"{self._broker.url} did not answer in {self._config.broker_timeout:g} s; {said}")


def _without_refused(group: list[_Batch], error: DuplicateEvent) -> list[_Batch]:
    """Fail the batches for which an append was refused, and return the others.

    All that the history refuses fail at once, so that a flood of such publishes costs the others one append more, and
    not one for each. If it refuses none, one of two that meet in the group is refused for the other.
    """
    left: list[_Batch] = []
    places, claims, start = frozenset(error.places), dict[str, str](), 0
    for batch in group:
        if places:
            met = next((one.id for place, one in enumerate(batch.records, start) if place in places), None)
        else:
            met = _meeting(batch, claims)
        start += len(batch.records)
        if met is None and len(group) > 1:
            left.append(batch)
        elif not batch.stored.done():
            batch.stored.set_exception(error if len(group) == 1 else conflict(met or ""))
    return left


def _meeting(batch: _Batch, claims: dict[str, str]) -> str | None:
    """An id that this batch gives to another event than those before it, or than itself; else its claims are added."""
    own: dict[str, str] = {}
    for record in batch.records:
        if record.claim is not None:
            known = claims.get(record.claim) or own.setdefault(record.claim, record.content)
            if known != record.content:
                return record.id
    claims.update(own)
    return None
