"""What an application publishes, seen without a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from ssepool.core.decoder import Decoder
from ssepool.core.event import Entry
from ssepool.core.states import PoolState
from ssepool.hub import Hub
from ssepool.testing.client import WITHIN_SECONDS
from ssepool.testing.clock import begin_wanted
from ssepool.testing.received import ANY, before, is_data, wish


class Published(msgspec.Struct, frozen=True):
    """An event that was published."""

    topics: tuple[str, ...]
    """The topics to which it went."""
    type: str
    """Its type: `message` if it has none."""
    text: str
    """Its data, as they go over the wire."""
    id: str
    """Its id."""
    private: bool
    """Whether only those get it who have a right to it."""

    @property
    def data(self) -> Any:
        """Its data, decoded if they are JSON, else the text."""
        try:
            return msgspec.json.decode(self.text)
        except msgspec.DecodeError:
            return self.text

    def __str__(self) -> str:
        return f"{', '.join(self.topics)}: {self.type} {self.text}"


class Recording(list[Published]):
    """All events that were published, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()
        self._seen = 0

    def to(self, topic: str) -> list[Published]:
        """Those that went to a topic."""
        return [event for event in self if topic in event.topics]

    async def expect(
        self, topic: str, data: Any = ANY, *, type: str | None = None, within: float = WITHIN_SECONDS
    ) -> Published:
        """The next event that is published, or has been and was not expected yet: to this topic, with these data and
        this type, as far as they are given. Waits `within` seconds for it."""
        wanted = f"{wish(type, data, None)} to {topic!r}"
        late = asyncio.timeout(within)
        try:
            async with late:
                while self._seen == len(self):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"expected {wanted}, but nothing was published; {before(self)}") from None
        event = self[self._seen]
        if topic not in event.topics or not is_data(event.text, data) or type not in (None, event.type):
            raise AssertionError(f"expected {wanted}, but published was\n    {event}\n{before(self[: self._seen])}")
        self._seen += 1
        return event

    def keep(self, entries: Sequence[Entry]) -> None:
        """Add what has been published."""
        for entry in entries:
            for message in Decoder().feed(entry.frame):
                self.append(Published(entry.topics, message.type, message.data, entry.id or "", entry.private))
        self._changed.set()


@contextlib.asynccontextmanager
async def recorded(hub: Hub) -> AsyncIterator[Recording]:
    """Record what is published with a hub, by whomever; without a client. A hub that is not open is, for the block."""
    begin_wanted()
    async with contextlib.AsyncExitStack() as stack:
        if hub.parts.engine.pool.state in (PoolState.NEW, PoolState.CLOSED):
            await stack.enter_async_context(hub)
        log, recording = hub.parts.engine.log, Recording()
        deliver = log._deliver

        def keep(entries: Sequence[Entry]) -> None:
            recording.keep(entries)
            deliver(entries)

        log._deliver = keep
        try:
            yield recording
        finally:
            log._deliver = deliver
