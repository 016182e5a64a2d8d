"""Drops: how events leave the stream.

The server has no transactions over several messages. So the cuts are stored first, then the events go: who finds one
gone finds the cut. Each step may be the last one of a process that dies: what is left to do is seen in the next look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ssepool.brokers.nats.batch import Batch
from ssepool.brokers.nats.beside import Beside
from ssepool.brokers.nats.cuts import Cuts, together
from ssepool.brokers.nats.holes import Hole, Holes
from ssepool.brokers.nats.marks import Marks, View
from ssepool.brokers.nats.names import Names
from ssepool.brokers.nats.stream import JetStream
from ssepool.core.cut import Cut

FRONT_PLACES = 1000
"""Places before the oldest batch, from which the stream is only cut when there are so many."""


class Drops:
    """What has been dropped of one history."""

    def __init__(self, name: str, marks: Marks) -> None:
        beside = Beside(name, "cuts", "what has been dropped of the history of ssepool")
        self.cuts = Cuts(beside)
        """How far the events of each topic have been dropped."""
        self.holes = Holes(beside)
        """What has been dropped of batches that are there."""
        self.names = Names(marks, self.cuts)
        """The names of the history."""
        self._beside = beside
        self._marks = marks

    async def look(self, js: JetStream, newest: int) -> None:
        """See what has been dropped of the history that `names` has seen, and which has come so far."""
        root = self.names.root
        if await self.holes.look(js, root):
            async with js.asking():
                await self.cuts.look(js, root, newest)

    async def oldest(self, js: JetStream, view: View) -> tuple[int, int]:
        """The position before the oldest event that is there, and the place of its batch; in an `asking` block."""
        mark, last = view.first, view.last
        while True:
            batch = mark.batch
            if batch.events and batch.first == mark.seq and (batch.of == 1 or await self._is_whole(js, batch)):
                position = self.holes.first_left(batch)
                if position is not None:
                    return position - 1, batch.first
            following = await self._marks.next(js, mark.seq + 1) if mark.seq < last.seq else None
            if following is None:
                return last.part.newest, last.seq
            mark = following

    async def _is_whole(self, js: JetStream, batch: Batch) -> bool:
        mark = await self._marks.at(js, batch.last)
        return mark is not None and mark.batch == batch and mark.part.is_last

    def size(self, view: View, oldest: int) -> int:
        """Bytes of all events that are there: as they were counted when they were stored, or, where messages have been
        deleted among them, what the others take at the server, if that is less."""
        if oldest >= view.state.newest:
            return 0
        info, size = view.info, view.state.total - view.first.part.total
        if info.messages <= info.last - info.first:
            size = min(size, info.bytes)
        return max(1, size - self.holes.size)

    async def drop(
        self, js: JetStream, view: View, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int
    ) -> None:
        """Drop events, as the contract says; `look` comes before."""
        await self.cuts.put(js, self.names.root, cuts, floor)
        whole: list[Batch] = []
        partly: list[tuple[Batch, int]] = []
        for batch, gone in (await self.batches(js, view, positions)).items():
            hole = self.holes.of(batch)
            gone |= hole.gone if hole else 0
            if gone == (1 << batch.events) - 1:
                whole.append(batch)
            else:
                partly.append((batch, gone))
        whole.sort(key=lambda batch: batch.first)
        if whole:
            await self._drop_whole(js, view, whole)
        await together(js, [partial(self._drop_of, js, view, batch, gone) for batch, gone in partly])
        await self.cuts.sweep(js, self.names.root)

    async def batches(self, js: JetStream, view: View, positions: Sequence[int]) -> dict[Batch, int]:
        """The batches with these events, and a bit for each of the events."""
        found: dict[Batch, int] = {}
        near = None
        for position in positions:
            batch = near if near is not None and near.has(position) else await self.batch_of(js, view, position, near)
            if batch is not None:
                found[batch] = found.get(batch, 0) | 1 << (position - batch.after - 1)
                near = batch
        return found

    async def batch_of(self, js: JetStream, view: View, position: int, near: Batch | None = None) -> Batch | None:
        """The batch that has, or had, the event at a position; None if there is none. `near` is one shortly before."""
        if not view.first.part.after < position <= view.state.newest:
            return None
        batch = self._marks.places.batch_of(position)
        if batch is not None:
            return batch
        async with js.asking():
            if near is not None:  # most likely it is the next one
                mark = await self._marks.at(js, near.last + 1)
                if mark is not None and mark.part.of == 1 and mark.batch.has(position):
                    return mark.batch
            return await self._marks.batch_of(js, view, position)

    async def _drop_whole(self, js: JetStream, view: View, batches: Sequence[Batch]) -> None:
        """Drop batches of which nothing is left. Something always stays behind the last: what the next append needs."""
        front = self._front(view, batches)
        async with js.asking():
            is_last = batches[-1].last == view.last.seq
            is_named_before = self.names.place < front
            if (is_last or is_named_before) and not await self.names.repeat(js, view) and is_named_before:
                front = min(front, self.names.place)  # others append: another time
            if front > view.info.first:
                await js.purge(front)
        await together(js, [partial(self._delete, js, batch) for batch in batches if batch.last >= front])
        gone = [hole for batch in batches if batch.last < front and (hole := self.holes.of(batch)) is not None]
        await together(js, [partial(self.holes.forget, js, hole) for hole in gone])

    def _front(self, view: View, batches: Sequence[Batch]) -> int:
        """The place before which the stream has nothing but these batches."""
        front = view.info.first
        for batch in batches:
            if batch.first != front + (front == self.names.place):
                break
            front = batch.last + 1
        return front

    async def _delete(self, js: JetStream, batch: Batch) -> None:
        """Drop the messages of a batch. A single one goes in one step; of others, and where there is a hole, it is said
        first that nothing is left, so that whoever comes later drops the rest."""
        hole = self.holes.of(batch)
        if hole is None and batch.of == 1:
            await js.delete(batch.first)
            return
        await self._finish(js, await self.holes.put(js, batch, (1 << batch.events) - 1))

    async def _drop_of(self, js: JetStream, view: View, batch: Batch, gone: int) -> None:
        hole = await self.holes.put(js, batch, gone)
        if hole.is_whole and batch.last != view.last.seq:  # another hub has dropped the rest meanwhile
            await self._finish(js, hole)

    async def _finish(self, js: JetStream, hole: Hole) -> None:
        for seq in range(hole.batch.first, hole.batch.last + 1):
            await js.delete(seq)
        await self.holes.forget(js, hole)

    async def sweep(self, js: JetStream, view: View) -> None:
        """Drop what hubs that died have left, and what was kept for another history."""
        await self.holes.look(js, self.names.root, anew=True)
        for hole in self.holes.all():
            if hole.batch.last < view.info.first:
                async with js.asking():
                    await self.holes.forget(js, hole)
            elif hole.is_whole and hole.batch.last != view.last.seq:
                await self._sweep(js, hole)
        async with js.asking():
            _, front = await self.oldest(js, view)
            front = min(front, view.last.seq)
            if front > view.info.first + FRONT_PLACES and (
                self.names.place >= front or await self.names.repeat(js, view)
            ):
                await js.purge(front)
            first = await self._beside.first(js)
            if first is not None and first.partition(".")[0] != self.names.root:
                await self._beside.purge(js, rest=f"{first.partition('.')[0]}.>")
        await self.cuts.sweep(js, self.names.root)

    async def _sweep(self, js: JetStream, hole: Hole) -> None:
        """Drop what is left of a batch, if it is still the one that has these places."""
        async with js.asking():
            mark = await self._marks.next(js, hole.batch.first)
            while mark is not None and mark.batch == hole.batch:
                await js.delete(mark.seq)
                mark = await self._marks.next(js, mark.seq + 1)
            await self.holes.forget(js, hole)
