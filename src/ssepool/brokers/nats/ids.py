"""Ids: the events that the stream has under ids that their publishers chose.

The subject of such an event's message has the id and a digest of the topics. Earlier versions had subjects without the
digest, and messages that say nothing of topics and content: as long as the stream has some of these, they are looked
for as well, and the event itself is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ssepool.brokers.base import PAGE_PLACES, Kept, Wants
from ssepool.brokers.nats.batch import Mark, decode, old_subject_of, subject_of
from ssepool.brokers.nats.holes import Holes
from ssepool.brokers.nats.marks import Marks, View
from ssepool.brokers.nats.stream import JetStream, Message
from ssepool.brokers.record import Record


class Ids:
    """The chosen ids of one stream. `kept` and `look_for_old` are called in an `asking` block, the others are not."""

    def __init__(self, marks: Marks, holes: Holes, event: Callable[[int], Awaitable[Record | None]]) -> None:
        """`event` reads the event at a position, or None if it cannot be read."""
        self._marks = marks
        self._holes = holes
        self._event = event
        self.has_old = False
        """Whether the stream has ids of an earlier version, as far as is known."""

    async def look_for_old(self, js: JetStream) -> None:
        """See whether the stream has ids of an earlier version."""
        self.has_old = await js.last(self._marks.subject("id.*")) is not None

    async def kept(self, js: JetStream, records: Sequence[Record]) -> dict[str, Kept]:
        """What the history has already of the chosen ids of these events, by their claims."""
        chosen = [record for record in records if record.id is not None]
        marks = await asyncio.gather(*(self._chosen(js, subject_of(one.id or "", one.topics)) for one in chosen))
        return {
            record.claim or "": Kept(mark.part.place, mark.part.content)
            for record, mark in zip(chosen, marks, strict=True)
            if mark is not None
        }

    async def old_kept(self, js: JetStream, records: Sequence[Record]) -> dict[str, Kept]:
        """As `kept`, of what an earlier version has stored."""
        kept: dict[str, Kept] = {}
        for id in {record.id: None for record in records if record.id is not None}:
            old = await self._old(js, id)
            if old is not None and old[1].claim is not None:
                kept[old[1].claim] = Kept(old[0], old[1].content)
        return kept

    async def find(self, js: JetStream, view: View, id: str, wants: Wants) -> int | None:
        """The position of the first event with this id that `wants` takes."""
        old = await self._old(js, id) if self.has_old else None
        if old is not None and wants(old[1].topics, old[1].private):
            return old[0]  # it is before all that this version has stored
        subjects = self._marks.subject(f"{old_subject_of(id)}.*")
        async with js.asking():
            first = await js.get(subjects, 1)
        if first is None:
            return None
        async with js.messages(first.seq, subjects, only_now=True) as pages:
            async for messages in pages:
                for number, message in enumerate(messages):
                    if number % PAGE_PLACES == 0:
                        await asyncio.sleep(0)
                    position = await self._wanted(js, view, message, wants)
                    if position is not None:
                        return position
        return None

    async def _wanted(self, js: JetStream, view: View, message: Message, wants: Wants) -> int | None:
        """The position of the event whose id is in a message's subject, if it is kept and `wants` takes it."""
        mark = Mark.of(message.seq, message.time, message.data)
        if mark is None or mark.part.place > view.state.newest:
            return None
        topics, private = decode(message.data).topics, mark.part.private
        if topics is not None and not wants(topics, private):
            return None
        async with js.asking():
            if not await self._is_kept(js, mark):
                return None
        if topics is None:
            record = await self._event(mark.part.place)
            if record is None or not wants(record.topics, record.private):
                return None
        return mark.part.place

    async def _chosen(self, js: JetStream, subject: str) -> Mark | None:
        """The message with this subject; None if the history does not have its event."""
        mark = await self._marks.last(js, subject)
        return mark if mark is not None and await self._is_kept(js, mark) else None

    async def _is_kept(self, js: JetStream, mark: Mark) -> bool:
        """Whether the history has the event whose id is in a message's subject."""
        batch = mark.batch
        if self._holes.has(batch, mark.part.place):
            return False
        if batch.last == mark.seq:
            return True
        last = await self._marks.at(js, batch.last)  # if it is not there, the publisher never completed the batch
        return last is not None and last.part.is_last and last.batch == batch

    async def _old(self, js: JetStream, id: str) -> tuple[int, Record] | None:
        """The position of an event that an earlier version has stored under this id, and the event."""
        async with js.asking():
            mark = await self._chosen(js, old_subject_of(id))
        record = None if mark is None else await self._event(mark.part.place)
        return None if mark is None or record is None else (mark.part.place, record)
