"""A broker's history for tests: events to append, brokers that are closed at the end, and what a history has."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from services.kinds import SERVICES
from ssepool.brokers import connect
from ssepool.brokers.base import Broker, Stored
from ssepool.brokers.record import Record, records
from ssepool.config import HubConfig, MiB
from ssepool.core.decoder import Decoder
from ssepool.core.event import Entry, Event

DEADLINE = 20.0
"""Seconds until a test gives up waiting for what has to come."""

DROPPING = ("sqlite", "redis", "postgres", "nats")
"""Kinds of brokers that drop what they are told to, and have timelines."""

TRIMMING = tuple(kind for kind in ("memory", "sqlite", *SERVICES) if kind not in DROPPING)
"""Kinds of brokers that drop the oldest by themselves."""

Open = Callable[..., Awaitable[Broker]]
"""`await open(**settings)` is an open broker on the test's history; with `url=` on another one."""


@asynccontextmanager
async def opening(url: str) -> AsyncIterator[Open]:
    """Opens brokers on the history of this URL, and closes them at the end of the block."""
    opened: list[Broker] = []

    async def open(url: str = url, **settings: Any) -> Broker:
        broker = connect(HubConfig(broker=url, **settings))
        opened.append(broker)
        await broker.open()
        return broker

    try:
        yield open
    finally:
        for broker in opened:
            await broker.close()


def batch(*data: str, ids: Sequence[str | None] = (), topics: Sequence[str] = ("news",)) -> list[Record]:
    """Events with these data, as they go to a broker."""
    pairs = itertools.zip_longest(data, ids)
    return records([Event(text, tuple(topics), id=id) for text, id in pairs], MiB)


def data(entries: Sequence[Entry]) -> list[str]:
    """What subscribers would read."""
    decoder = Decoder(max_event_size=4 * MiB)
    return [message.data for entry in entries for message in decoder.feed(entry.frame)]


def positions(entries: Sequence[Entry | Stored]) -> list[int]:
    return [entry.position for entry in entries]


async def take(broker: Broker, after: int, count: int) -> list[Entry]:
    """The first so many entries that a tail gives, and the rest of their page."""
    entries: list[Entry] = []
    async with asyncio.timeout(DEADLINE), aclosing(broker.tail(after)) as tail:  # type: ignore[type-var]
        async for page in tail:
            entries += page
            if len(entries) >= count:
                break
    return entries


async def page_of(tail: AsyncIterator[Sequence[Entry]]) -> Sequence[Entry]:
    """A tail's next page that has entries."""
    while not (page := await anext(tail)):
        pass
    return page


async def read_all(broker: Broker, after: int = 0) -> list[Entry]:
    """All that is kept behind a position."""
    entries: list[Entry] = []
    while page := await broker.read(after, max_entries=700):
        entries += page
        after = page[-1].position
    return entries


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.02)
