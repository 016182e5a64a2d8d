"""Reader: entries, made of the stream's messages, without those that have been dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from ssepool.brokers.nats.batch import Batch, Joiner
from ssepool.brokers.nats.history import History
from ssepool.brokers.nats.marks import ALL_SUBJECTS
from ssepool.brokers.nats.stream import JetStream, Message
from ssepool.config import MiB
from ssepool.core.event import Entry

PAGE_ENTRIES = 1000
"""Entries of a page at most."""

PAGE_BYTES = MiB
"""Bytes of memory (`Entry.size`) of a page, approximately."""

FETCH_BATCHES = 100
"""Batches that are fetched together."""


class Reader:
    """Reads one history, as the contract says."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def tail(self, js: JetStream, after: int) -> AsyncGenerator[Sequence[Entry], None]:
        """All entries behind a position, and then new ones."""
        view = await self._history.followed(js)
        start = await self._history.start(js, view, after)
        joiner = Joiner()
        async with js.messages(start) as pages:
            if after >= view.state.newest:
                yield ()
            async for messages in pages:
                for page in _pages(self._entries(joiner, messages, after)):
                    after = page[-1].position
                    yield page

    async def read(self, js: JetStream, after: int, max_entries: int) -> Sequence[Entry]:
        """The next entries behind a position."""
        view = await self._history.followed(js)
        if after >= view.state.newest:
            return []
        start = await self._history.start(js, view, after)
        joiner, entries = Joiner(), list[Entry]()
        async with js.messages(start, only_now=True) as pages:
            async for messages in pages:
                entries += self._entries(joiner, messages, after)
                if len(entries) >= max_entries or _size(entries) >= PAGE_BYTES:
                    break
                if entries and not messages[-1].pending:
                    break
        return entries[:max_entries]

    async def fetch(self, js: JetStream, positions: Sequence[int]) -> Sequence[Entry]:
        """Those of the entries at these positions that are there, about a page of them."""
        view = await self._history.followed(js)
        wanted = frozenset(positions)
        batches = [*await self._history.drops.batches(js, view, positions)]
        entries: list[Entry] = []
        for start in range(0, len(batches), FETCH_BATCHES):
            async with js.asking():
                some = batches[start : start + FETCH_BATCHES]
                pages = await asyncio.gather(*(self._fetched(js, batch) for batch in some))
            entries += [entry for page in pages for entry in page if entry.position in wanted]
            if _size(entries) >= PAGE_BYTES:
                break
        return next(_pages(entries), ())

    async def _fetched(self, js: JetStream, batch: Batch) -> list[Entry]:
        """The entries of a batch that are there."""
        joiner, joined = Joiner(), None
        for seq in range(batch.first, batch.last + 1):
            message = await js.get(self._history.marks.subject(ALL_SUBJECTS), seq)
            if message is None or message.seq != seq:
                return []
            joined = joiner.join(seq, message.time, message.data)
        if joined is None or joined[0] != batch:
            return []
        return self._history.drops.holes.left(batch, joined[1])

    def _entries(self, joiner: Joiner, messages: Sequence[Message], after: int) -> list[Entry]:
        """The entries behind a position in these messages. Raises `BrokerError` where another history begins."""
        entries: list[Entry] = []
        history = self._history
        places, holes = history.marks.places, history.drops.holes
        for message in messages:
            joined = joiner.join(message.seq, message.time, message.data)
            if joined is None:
                continue
            batch, found = joined
            if not batch.events:
                if message.seq > history.named and batch.epoch != history.epoch:
                    raise history.ended()
                continue
            places.add(batch)
            history.seen.note(batch.epoch, batch.after + batch.events)
            if batch.after < after:
                found = [entry for entry in found if entry.position > after]
            entries += holes.left(batch, found)
        return entries


def _size(entries: Sequence[Entry]) -> int:
    return sum([entry.size for entry in entries])


def _pages(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Entries in pages of at most `PAGE_ENTRIES` entries and about `PAGE_BYTES`."""
    start = size = 0
    for place, entry in enumerate(entries):
        if place > start and (place - start == PAGE_ENTRIES or size + entry.size > PAGE_BYTES):
            yield entries[start:place]
            start, size = place, 0
        size += entry.size
    if entries:
        yield entries[start:]
