"""The default broker: it keeps events in this process, for as long as the process lives."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence

from ssepool.brokers.base import Bounds, InstantBroker, Stored, duplicate, new_epoch
from ssepool.brokers.record import Record
from ssepool.config import HubConfig
from ssepool.core.event import Entry, Event
from ssepool.core.window import Window
from ssepool.errors import EventTooLarge

PAGE_ENTRIES = 1000
"""Entries of a page at most."""


class MemoryBroker(InstantBroker):
    """Keeps events in a `Window`. No call waits, and a listener receives entries during `append`."""

    def __init__(self, config: HubConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(config)
        self.window = Window(
            new_epoch(), events=config.history_events, bytes=config.history_bytes, age=config.history_age
        )
        self._clock = clock
        self._news = asyncio.Event()
        self._mailboxes: set[asyncio.Queue[bytes]] = set()

    async def open(self) -> None: ...

    async def close(self) -> None:
        self.listener = None

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        places = itertools.count(self.window.newest + 1)
        kept: dict[str | None, int | None] = {
            record.id: self.window.chosen(record.id) for record in records if record.id is not None
        }
        ids = self.append_nowait(records)
        stored = []
        for record, id in zip(records, ids, strict=True):
            place = kept.get(record.id)
            if place is None:
                place = next(places)
                if record.id is not None:
                    kept[record.id] = place
            stored.append(Stored(id, place))
        return stored

    def append_nowait(self, events: Sequence[Event] | Sequence[Record]) -> list[str]:
        window = self.window
        position, epoch, limit = window.newest, window.epoch, self.config.max_event_size
        entries: list[Entry] = []
        ids: list[str] = []
        chosen: dict[str, Entry] = {}
        for event in events:
            id = event.id
            if id is not None and (id in chosen or window.chosen(id) is not None):
                if self.config.on_duplicate == "refuse":
                    raise duplicate(id)
                ids.append(id)
                continue
            entry = event.entry(epoch, position + 1)
            if len(entry.frame) > limit:
                raise EventTooLarge(f"an event of {len(entry.frame)} bytes on the wire exceeds max_event_size={limit}")
            position += 1
            entries.append(entry)
            ids.append(entry.id)  # type: ignore[arg-type]
            if id is not None:
                chosen[id] = entry
        window.keep(entries, chosen.values(), self._clock())
        if self.listener is not None:
            self.listener(entries)
        self._news.set()
        return ids

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        while True:
            self._news.clear()
            if entries := self.window.read(after, max_entries=PAGE_ENTRIES):
                after = entries[-1].position
                yield entries
            else:
                await self._news.wait()

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        return self.window.read(after, max_entries=max_entries)

    async def find(self, id: str) -> int | None:
        position = self.window.position(id)
        return position if position is not None and position > self.window.oldest else None

    async def bounds(self) -> Bounds:
        window = self.window
        return Bounds(window.epoch, window.oldest, window.newest, window.kept.bytes)

    async def trim(self) -> None:
        self.window.expire(self._clock())

    async def send(self, message: bytes) -> None:
        for mailbox in self._mailboxes:
            mailbox.put_nowait(message)

    async def messages(self) -> AsyncIterator[bytes]:
        mailbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._mailboxes.add(mailbox)
        try:
            while True:
                yield await mailbox.get()
        finally:
            self._mailboxes.discard(mailbox)
