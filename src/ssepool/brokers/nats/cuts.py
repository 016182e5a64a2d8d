"""Cuts: how far the events of each topic have been dropped, in the stream beside that says what has been dropped.

<name>.cuts.<root>.cut.<digest of the topic>   the topic, and its cut
<name>.cuts.<root>.floor                       up to where cuts have been forgotten
<name>.cuts.<root>.hole.<epoch>.<after>        see `holes`
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from ssepool.brokers.base import PAGE_CUTS
from ssepool.brokers.nats.beside import Beside
from ssepool.brokers.nats.stream import JetStream, Message, Overtaken
from ssepool.brokers.record import UNREADABLE_ERRORS, pack, topics_digest
from ssepool.core.cut import Cut

AT_A_TIME = 250
"""Questions that are sent together at most."""

_unpack = msgspec.msgpack.Decoder(tuple[str, int, int]).decode
_unpack_floor = msgspec.msgpack.Decoder(int).decode


class Cuts:
    """The cuts of one history."""

    def __init__(self, beside: Beside) -> None:
        self.beside = beside
        """The stream where they are."""
        self.floor = 0
        """Up to where cuts have been forgotten, as it was seen last."""
        self._swept = 0
        self._rest: list[tuple[str, Cut]] = []
        """What comes behind the page that was read last, which ended with this topic."""
        self._ended = ""

    async def begin(self, js: JetStream, root: str) -> None:
        """Say that nothing has been dropped of a new history, in an `asking` block."""
        await self.beside.look(js)
        await self.beside.put(js, f"{root}.floor", pack(0))

    async def look(self, js: JetStream, root: str, newest: int) -> None:
        """See up to where cuts have been forgotten, in an `asking` block. If the stream beside is lost, that is up to
        the newest position."""
        message = await self.beside.get(js, f"{root}.floor")
        if message is None:
            await self.raise_floor(js, root, newest)
        else:
            self.floor = _floor(message)

    async def raise_floor(self, js: JetStream, root: str, floor: int) -> None:
        """Forget what is not above a position, in an `asking` block. It never falls."""
        while True:
            message = await self.beside.get(js, f"{root}.floor")
            self.floor = -1 if message is None else _floor(message)
            if self.floor >= floor:
                return
            try:
                await self.beside.put(js, f"{root}.floor", pack(floor), message.seq if message else 0)
            except Overtaken:
                continue
            self.floor = floor

    async def put(self, js: JetStream, root: str, cuts: Mapping[str, Cut], floor: int) -> None:
        """Remember cuts, and up to where all are forgotten."""
        if floor > self.floor:
            async with js.asking():
                await self.raise_floor(js, root, floor)
        wanted = [(topic, cut) for topic, cut in cuts.items() if cut.newest > self.floor]
        await together(js, [partial(self._put, js, root, topic, cut) for topic, cut in wanted])

    async def _put(self, js: JetStream, root: str, topic: str, cut: Cut) -> None:
        rest = f"{root}.cut.{topics_digest((topic,))}"
        while True:
            message = await self.beside.get(js, rest)
            known = _cut(message)[1] if message else Cut()
            joined = known.joined(cut)
            if joined == known:
                return
            try:
                await self.beside.put(js, rest, pack((topic, *joined)), message.seq if message else 0)
            except Overtaken:  # by another hub that drops the same
                continue
            return

    async def page(self, js: JetStream, root: str, after: str) -> Sequence[tuple[str, Cut]]:
        """The next cuts in the order of the topics' names. The server has them in another order: so all are read with
        the first page, and kept for as long as the pages follow each other."""
        if not after or after != self._ended:
            self._rest = await self._all(js, root, after)
        page, self._rest = self._rest[:PAGE_CUTS], self._rest[PAGE_CUTS:]
        self._ended = page[-1][0] if page else ""
        return page

    async def _all(self, js: JetStream, root: str, after: str) -> list[tuple[str, Cut]]:
        found: dict[str, Cut] = {}
        async with aclosing(self.beside.pages(js, 0, f"{root}.cut.*")) as pages:
            async for messages in pages:
                found.update(_cut(message) for message in messages)
        first = after.encode()
        return sorted(
            [(topic, cut) for topic, cut in found.items() if cut.newest > self.floor and topic.encode() > first],
            key=lambda pair: pair[0].encode(),
        )

    async def sweep(self, js: JetStream, root: str) -> None:
        """Drop what has been forgotten. It looks at those that were written first, until all of a page still count."""
        if self._swept == self.floor:
            return
        floor = self.floor
        async with aclosing(self.beside.pages(js, 0, f"{root}.cut.*")) as pages:
            async for messages in pages:
                gone = [message.seq for message in messages if _cut(message)[1].newest <= floor]
                await together(js, [partial(self.beside.delete, js, seq) for seq in gone])
                if not gone:
                    break
        self._swept = floor


async def together(js: JetStream, calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make all these calls, many at a time. Raises what the first that failed has raised, when all are over."""
    for start in range(0, len(calls), AT_A_TIME):
        async with js.asking():
            some = calls[start : start + AT_A_TIME]
            for answer in await asyncio.gather(*(call() for call in some), return_exceptions=True):
                if answer is not None:
                    raise answer


def _cut(message: Message) -> tuple[str, Cut]:
    try:
        topic, public, private = _unpack(message.data)
    except UNREADABLE_ERRORS:  # nobody of ours has written it
        return "", Cut()
    return topic, Cut(public, private)


def _floor(message: Message) -> int:
    try:
        return _unpack_floor(message.data)
    except UNREADABLE_ERRORS:
        return 0
