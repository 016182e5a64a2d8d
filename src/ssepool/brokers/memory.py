"""The default broker: events live in this process, as long as it lives."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence

from ssepool.brokers.base import Broker, Found, History
from ssepool.config import HubConfig
from ssepool.core.event import EARLIEST, Event
from ssepool.core.feed import Entry
from ssepool.errors import EventTooLarge


class MemoryBroker(Broker):
    """Entries by position, without holes, bounded by count, bytes and age.

    The ids that it makes are `<epoch>-<position>`: the epoch is new in each process, so an id from before a restart
    is recognised as one that is not kept, and the position is found without any table. Only ids that a publisher
    chose need one.
    """

    def __init__(self, config: HubConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(config)
        self.epoch = secrets.token_hex(4)
        self._clock = clock
        self._entries: dict[int, Entry] = {}
        self._times: deque[float] = deque()
        self._chosen: dict[str, int] = {}
        self._dropped: tuple[str | None, int] = (None, 0)
        self._bytes = 0
        self._newest = 0
        self._listener: Callable[[Sequence[Entry]], None] = lambda entries: None

    async def open(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        self._listener = listener

    async def close(self) -> None:
        self._listener = lambda entries: None

    async def append(self, events: Sequence[Event]) -> list[str]:
        return self.append_nowait(events)

    def append_nowait(self, events: Sequence[Event]) -> list[str]:
        entries = []
        ids = []
        position = self._newest
        prefix, limit = self.epoch + "-", self.config.max_event_size
        for event in events:
            position += 1
            id = event.id or prefix + str(position)
            frame = event.encode(id)
            if len(frame) > limit:
                raise EventTooLarge(f"an event of {len(frame)} bytes on the wire exceeds max_event_size={limit}")
            entries.append(Entry(position, id, event.topics, frame, event.private))
            ids.append(id)
        self._newest = position
        self._keep(entries, events)
        self._listener(entries)
        return ids

    def find(self, id: str) -> Found:
        oldest = self.oldest
        if id == EARLIEST:
            return Found(oldest, True)
        position = self._chosen.get(id)
        if position is None:
            epoch, _, number = id.rpartition("-")
            if epoch == self.epoch and number.isascii() and number.isdigit() and len(number) < 20:
                position = int(number)
        # The event with the id need not be kept itself, only all that came after it.
        if position is not None and oldest <= position <= self._newest:
            return Found(position, True)
        return Found(oldest, False)

    def read(self, after: int, *, most: int) -> Sequence[Entry]:
        start = max(after, self.oldest) + 1
        return [self._entries[position] for position in range(start, min(start + most, self._newest + 1))]

    @property
    def newest(self) -> int:
        return self._newest

    @property
    def oldest(self) -> int:
        return self._newest - len(self._entries)

    def expire(self) -> None:
        oldest = self._clock() - self.config.history_age
        while self._times and self._times[0] <= oldest:
            self._drop()

    def history(self) -> History:
        return History(len(self._entries), self._bytes)

    def _keep(self, entries: list[Entry], events: Sequence[Event]) -> None:
        config, now = self.config, self._clock()
        for entry, event in zip(entries, events, strict=True):
            self._entries[entry.position] = entry
            self._times.append(now)
            self._bytes += len(entry.frame)
            if event.id:
                self._chosen[event.id] = entry.position
        while self._entries and (len(self._entries) > config.history_events or self._bytes > config.history_bytes):
            self._drop()

    def _drop(self) -> None:
        entry = self._entries.pop(self.oldest + 1)
        self._times.popleft()
        self._bytes -= len(entry.frame)
        # The id of the one dropped last is still good to go on from: all that came after it is kept.
        (id, position), self._dropped = self._dropped, (entry.id, entry.position)
        if id is not None and self._chosen.get(id) == position:
            del self._chosen[id]
