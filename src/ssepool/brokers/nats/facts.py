"""Facts: what all hubs have to know for a while, in a stream beside that of the history.

A message says until when it counts and what the fact is; its place in the stream is the fact's number. The server keeps
the newest message of each name. Those whose time is over are dropped from the front, so one may stay for as long as
another that was kept before it and counts for longer; it is not read any more.
"""

from __future__ import annotations

import struct
import time
from contextlib import aclosing

from ssepool.brokers.base import PAGE_FACTS, Fact
from ssepool.brokers.nats.beside import Beside
from ssepool.brokers.nats.stream import JetStream, Message

_UNTIL = struct.Struct(">d")


class Facts:
    """The facts of one history."""

    def __init__(self, name: str) -> None:
        """`name` is that of the history."""
        self._beside = Beside(name, "facts", "what the hubs of ssepool have to know")

    async def keep(self, js: JetStream, name: str, data: bytes, seconds: float, most: int) -> bool:
        """Keep a fact; false, and nothing has been done, if there are so many others."""
        async with js.asking():
            count = (await self._beside.look(js)).messages
        if count >= most:
            await self.trim(js)
        async with js.asking():
            if (
                count >= most
                and (await self._beside.look(js)).messages >= most
                and await self._beside.get(js, name) is None
            ):
                return False
            await self._beside.put(js, name, _UNTIL.pack(time.time() + seconds) + data)
        return True

    async def read(self, js: JetStream, after: int) -> list[Fact]:
        """The next facts behind a number."""
        while True:
            page = await self._page(js, after)
            facts = [fact for message in page if (fact := _fact(message)) is not None]
            if facts or not page:
                return facts
            after = page[-1].seq

    async def trim(self, js: JetStream) -> None:
        """Drop those at the front whose time is over."""
        page = await self._page(js, 0)
        while page:
            live = next((message.seq for message in page if _fact(message) is not None), page[-1].seq + 1)
            if live > page[0].seq:
                async with js.asking():
                    await self._beside.purge(js, before=live)
            if live <= page[-1].seq:
                return
            page = await self._page(js, 0)

    async def _page(self, js: JetStream, after: int) -> list[Message]:
        async with js.asking():
            info = await self._beside.look(js)
        if info.last < after:  # it was deleted, and has begun anew
            after = 0
        if not info.messages or info.last <= after:
            return []
        page: list[Message] = []
        async with aclosing(self._beside.pages(js, after)) as pages:
            async for messages in pages:
                page += messages
                if len(page) >= PAGE_FACTS:
                    break
        return page[:PAGE_FACTS]


def _fact(message: Message) -> Fact | None:
    """The fact in a message; None if its time is over, or if it is none."""
    if len(message.data) < _UNTIL.size or _UNTIL.unpack_from(message.data)[0] <= time.time():
        return None
    return Fact(message.subject.rpartition(".")[2], message.seq, message.data[_UNTIL.size :])
