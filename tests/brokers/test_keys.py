"""Events with keys on their way through each kind of broker: what nodes that open later hold, and repetitions."""

from __future__ import annotations

import pytest

from histories import Open, data, until
from ssepool.brokers import connect
from ssepool.brokers.base import InstantBroker
from ssepool.brokers.record import records
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry, Event
from ssepool.errors import DuplicateEvent, IdConflict
from ssepool.runtime.streams.log import EventLog


async def _room() -> None: ...


def node(url: str) -> EventLog:
    return EventLog(connect(HubConfig(broker=url)), lambda entries: None, lambda missed: None, _room, lambda: 0.0)


def rows(log: EventLog) -> list[tuple[str | None, bool, list[str]]]:
    """What a node holds."""
    kept = log.window.read(0, max_entries=100)
    return [(entry.key, entry.removed, data([entry])) for entry in kept if isinstance(entry, Entry)]


TABLE = [
    Event("one", ("t",), key="1"),
    Event("two", ("t",), key="zwei \u00e4"),
    Event("uno", ("t",), key="1"),
    Event.tombstone("t", "zwei \u00e4"),
    Event("end", ("t",)),
]
LEFT = [("1", False, ["uno"]), ("zwei \u00e4", True, ["zwei \u00e4"]), (None, False, ["end"])]


async def test_each_node_holds_the_newest_of_each_key(url: str) -> None:
    one = node(url)
    await one.open()
    try:
        await one.publish(TABLE)
        await until(lambda: _is_at(one, len(TABLE)))
        assert rows(one) == LEFT
        if isinstance(one.broker, InstantBroker):
            return
        other = node(url)
        await other.open()
        try:
            assert rows(other) == LEFT
        finally:
            await other.close()
    finally:
        await one.close()


async def _is_at(log: EventLog, position: int) -> bool:
    return log.position == position


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_repetition_has_the_same_key(make: Open, refuse: bool) -> None:
    broker = await make(on_duplicate="refuse" if refuse else "ignore")
    event = Event("one", ("t",), id="mine", key="1")
    [stored] = await broker.append(records([event], MiB))
    if refuse:
        with pytest.raises(DuplicateEvent):
            await broker.append(records([event], MiB))
    else:
        assert await broker.append(records([event], MiB)) == [stored]
    for other in (
        Event("one", ("t",), id="mine", key="2"),
        Event("one", ("t",), id="mine"),
        Event("one", ("t",), "message", "mine", key="1", removed=True),
    ):
        with pytest.raises(IdConflict):
            await broker.append(records([other], MiB))
