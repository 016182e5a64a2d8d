"""Holes: which events of a batch have been dropped, where the batch has others that stay.

The server drops whole messages. So what goes of a batch is said in the stream beside, in one message for the batch, and
readers leave it out. When nothing of the batch is left its messages go, and this one behind them. What is known here
of holes is a copy: whoever writes one says which one it was made of, and joins them if that has changed.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import NamedTuple

import msgspec

from ssepool.brokers.nats.batch import Batch
from ssepool.brokers.nats.beside import Beside
from ssepool.brokers.nats.stream import JetStream, Message, Overtaken
from ssepool.brokers.record import UNREADABLE_ERRORS, pack
from ssepool.core.event import Entry

SPARE_HOLES = 1000
"""Holes of batches that are gone, of which nobody has told us, that are known before all are read anew."""


class Hole(NamedTuple):
    """Some events of a batch that have been dropped."""

    batch: Batch
    """The batch."""
    gone: int
    """A bit for each event that has been dropped, the lowest for the first."""
    seq: int
    """The place of the message in the stream beside."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the batch is left."""
        return self.gone == (1 << self.batch.events) - 1

    @property
    def size(self) -> int:
        """Bytes of what has been dropped, if all events of the batch are equally large."""
        return self.batch.size * self.gone.bit_count() // self.batch.events


class Holes:
    """The holes of one history."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        self._root = ""
        self._seen = 0
        """Up to which place of the stream beside they are known."""
        self._read_anew = 0
        """Up to which place the stream had come when all were read."""
        self._known: dict[tuple[str, int], Hole] = {}
        self._most = SPARE_HOLES
        self.size = 0
        """Bytes of all that has been dropped of batches with events that stay."""

    async def look(self, js: JetStream, root: str, *, anew: bool = False) -> bool:
        """See which holes there are; false if nothing in the stream beside has changed. Nobody tells of holes whose
        batch is gone: these are forgotten when all are read `anew`."""
        async with js.asking():
            last = (await self._beside.look(js)).last
        if (root, last) == (self._root, self._read_anew if anew else self._seen):
            return False
        anew = anew or root != self._root or last < self._seen or len(self._known) > self._most
        found: list[Hole] = []
        async with aclosing(self._beside.pages(js, 0 if anew else self._seen, f"{root}.hole.>")) as pages:
            async for messages in pages:
                found += [hole for message in messages if (hole := _hole(message)) is not None]
        if anew:
            self._root, self._known, self.size = root, {}, 0
            self._most, self._read_anew = 2 * len(found) + SPARE_HOLES, last
        for hole in found:
            self._note(hole)
        self._seen = last
        return True

    def _note(self, hole: Hole) -> None:
        key = hole.batch[:2]
        before = self._known.get(key)
        if before is None or before.seq < hole.seq:
            self._known[key] = hole
            self.size += hole.size - (before.size if before else 0)

    def all(self) -> list[Hole]:
        """All that are known."""
        return list(self._known.values())

    def of(self, batch: Batch) -> Hole | None:
        """The hole in a batch; None if all of it is there."""
        return self._known.get(batch[:2])

    def has(self, batch: Batch, position: int) -> bool:
        """Whether the event at a position in this batch has been dropped."""
        hole = self._known.get(batch[:2])
        return hole is not None and bool(hole.gone >> (position - batch.after - 1) & 1)

    def first_left(self, batch: Batch) -> int | None:
        """The position of the first event of a batch that is there; None if there is none."""
        hole = self._known.get(batch[:2])
        gone = hole.gone if hole else 0
        number = (~gone & gone + 1).bit_length() - 1  # of the lowest bit that is not set
        return batch.after + 1 + number if number < batch.events else None

    def left(self, batch: Batch, entries: list[Entry]) -> list[Entry]:
        """The entries of a batch without those that have been dropped."""
        hole = self._known.get(batch[:2])
        if hole is None:
            return entries
        first = batch.after + 1
        return [entry for entry in entries if not hole.gone >> (entry.position - first) & 1]

    async def put(self, js: JetStream, batch: Batch, gone: int) -> Hole:
        """Remember what has been dropped of a batch, with what was known of it; in an `asking` block."""
        rest = f"{self._root}.hole.{batch.epoch}.{batch.after}"
        hole = self.of(batch)
        while True:
            gone |= hole.gone if hole else 0
            if hole is not None and hole.gone == gone:
                return hole
            data = pack((batch, gone.to_bytes((batch.events + 7) // 8)))
            try:
                hole = Hole(batch, gone, await self._beside.put(js, rest, data, hole.seq if hole else 0))
            except Overtaken:
                message = await self._beside.get(js, rest)
                if message is None:  # what we know is gone, and the batch most likely too
                    self._drop(batch)
                elif (known := _hole(message)) is not None:
                    self._note(known)
                hole = self.of(batch)
                continue
            self._note(hole)
            return hole

    async def forget(self, js: JetStream, hole: Hole) -> None:
        """Forget a hole, because the batch is gone; in an `asking` block."""
        await self._beside.delete(js, hole.seq)
        self._drop(hole.batch)

    def _drop(self, batch: Batch) -> None:
        hole = self._known.pop(batch[:2], None)
        self.size -= hole.size if hole else 0


_unpack = msgspec.msgpack.Decoder(tuple[Batch, bytes]).decode


def _hole(message: Message) -> Hole | None:
    try:
        batch, gone = _unpack(message.data)
    except UNREADABLE_ERRORS:  # nobody of ours has written it
        return None
    return Hole(batch, int.from_bytes(gone), message.seq) if batch.events > 0 else None
