"""The default broker: it keeps events in this process, for as long as the process lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from ssepool.brokers.base import (
    PAGE_FACTS,
    Bounds,
    Fact,
    InstantBroker,
    Stored,
    Wants,
    anything,
    conflict,
    duplicate,
    new_epoch,
)
from ssepool.brokers.record import Record
from ssepool.clock import now
from ssepool.config import HubConfig
from ssepool.core.event import Entry, Event, topic_set
from ssepool.core.rules import Rules
from ssepool.core.window import Window
from ssepool.errors import EventTooLarge

PAGE_ENTRIES = 1000
"""Entries of a page at most."""


class MemoryBroker(InstantBroker):
    """Keeps events in a `Window`. No call waits, and a listener receives entries during `append`."""

    def __init__(self, config: HubConfig, *, clock: Callable[[], float] = now) -> None:
        super().__init__(config)
        self.window = Window(
            new_epoch(),
            events=config.history_events,
            bytes=config.history_bytes,
            age=config.history_age,
            rules=Rules.from_config(config),
        )
        self._clock = clock
        self._newest = self.window.newest
        self._coming: dict[tuple[str, tuple[str, ...]], Entry] = {}
        """By chosen id and topics, what is stored and not in the window yet."""
        self._news = asyncio.Event()
        self._mailboxes: set[asyncio.Queue[bytes]] = set()
        self._facts: dict[str, tuple[Fact, float]] = {}
        """By name, in the order of their numbers, and when the time of each is over."""
        self._last_fact = 0

    async def open(self) -> None: ...

    async def close(self) -> None:
        self.listener = None

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        places: list[int] = []
        ids = self.append_nowait(records, places)
        return [Stored(id, place) for id, place in zip(ids, places, strict=True)]

    def append_nowait(self, events: Sequence[Event] | Sequence[Record], places: list[int] | None = None) -> list[str]:
        """As the contract says; `places`, if given, gets the position of each event."""
        window = self.window
        position, epoch, limit = self._newest, window.epoch, self.config.max_event_size
        entries: list[Entry] = []
        ids: list[str] = []
        chosen: dict[tuple[str, tuple[str, ...]], Entry] = {}
        for event in events:
            id = event.id
            if id is not None:
                key = id, topic_set(event.topics)
                known = window.chosen(id, event.topics) or chosen.get(key) or self._coming.get(key)
                if known is not None:
                    self._check_repeated(event, known)
                    ids.append(id)
                    if places is not None:
                        places.append(known.position)
                    continue
            entry = event.entry(epoch, position + 1)
            if len(entry.chunk) > limit and len(entry.frame) > limit:  # the longer one costs nothing to look at
                raise EventTooLarge(f"an event of {len(entry.frame)} bytes on the wire exceeds max_event_size={limit}")
            position += 1
            entries.append(entry)
            ids.append(entry.id)  # type: ignore[arg-type]
            if places is not None:
                places.append(position)
            if id is not None:
                chosen[id, topic_set(event.topics)] = entry
        self._newest = position
        if chosen:
            self._coming |= chosen
        if self.listener is None:
            self.enter(entries)
        else:
            self.listener(entries)
        return ids

    def enter(self, entries: Sequence[Entry]) -> None:
        coming = self._coming
        chosen = [one for one in entries if coming.pop((one.id or "", topic_set(one.topics)), None)] if coming else ()
        self.window.keep(entries, chosen, self._clock())
        self._news.set()

    def _check_repeated(self, event: Event | Record, known: Entry) -> None:
        """Raise `DuplicateEvent` unless an event may be left out for one that has its id and topics."""
        id = event.id or ""
        again = event.entry("", known.position)
        if (again.private, again.key, again.removed, again.chunk) != (
            known.private,
            known.key,
            known.removed,
            known.chunk,
        ):
            raise conflict(id)
        if self.config.on_duplicate == "refuse":
            raise duplicate(id)

    async def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        yield ()
        while True:
            self._news.clear()
            if entries := await self.read(after, max_entries=PAGE_ENTRIES):
                after = entries[-1].position
                yield entries
            else:
                await self._news.wait()

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        kept = self.window.read(after, max_entries=max_entries)
        return [entry for entry in kept if isinstance(entry, Entry)]  # which all are

    async def find(self, id: str, wants: Wants = anything) -> int | None:
        window = self.window
        position = window.first((place for place in window.named(id) if window.at(place)), wants)
        place = window.place(id) if position is None else None
        position = place.position if place is not None else position
        return position if position is not None and window.at(position) else None

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

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        self._check_fact(name, data)
        now = self._clock()
        self._facts = {fact.name: (fact, until) for fact, until in self._facts.values() if until > now}
        if name not in self._facts and len(self._facts) >= self.max_facts:
            raise self._full_of_facts()
        self._facts.pop(name, None)
        self._last_fact += 1
        self._facts[name] = Fact(name, self._last_fact, data), now + seconds

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        now = self._clock()
        kept = [fact for fact, until in self._facts.values() if fact.number > after and until > now]
        return kept[:PAGE_FACTS]
