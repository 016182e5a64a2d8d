"""Places at which streams begin, found again by nodes of each kind of broker, also where nothing is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from histories import batch, until
from ssepool.brokers import connect
from ssepool.brokers.base import InstantBroker
from ssepool.config import HubConfig
from ssepool.core.beginning import Beginning, Found
from ssepool.core.topics import Subscription
from ssepool.runtime.streams.log import EventLog

NEWS = Subscription.of(["news"])


async def _room() -> None: ...


@asynccontextmanager
async def node(url: str, **settings: float) -> AsyncIterator[EventLog]:
    """A node's log of the history of this URL."""
    config = HubConfig(broker=url, **settings)  # type: ignore[arg-type]
    log = EventLog(connect(config), lambda entries: None, lambda missed: None, _room, lambda: 0.0)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def find(log: EventLog, place: Beginning) -> Found:
    return log.find(place.id, NEWS) or await log.ask(place.id, NEWS)


@pytest.mark.parametrize("kept", [0, 2, 100])
async def test_a_place_is_found_on_each_node_and_after_a_restart(url: str, kept: int) -> None:
    places: list[Beginning] = []
    async with node(url, history_events=kept) as log:
        for number in range(5):
            places.append(Beginning(log.window.epoch, log.position))
            await log.broker.append(batch(str(number), topics=["news" if number % 2 else "other"]))
            await until(lambda: _is_at(log, places[-1].position + 1))
        places.append(Beginning(log.window.epoch, log.position))
        assert await find(log, places[-1]) == Found(5, True)
        if isinstance(log.broker, InstantBroker):
            return
        async with node(url, history_events=kept) as other:
            assert [await find(other, place) for place in places] == [Found(number, True) for number in range(6)]
    async with node(url, history_events=kept) as later:
        assert [await find(later, place) for place in places] == [Found(number, True) for number in range(6)]


async def test_a_node_that_is_behind_comes_to_a_place_of_which_nothing_is_kept(url: str) -> None:
    async with node(url, history_events=0) as ahead, node(url, history_events=0) as behind:
        if isinstance(ahead.broker, InstantBroker):
            return

        [*_, last] = await ahead.broker.append(batch("b", "c"))
        await until(lambda: _is_at(ahead, last.position))
        assert await find(behind, Beginning(ahead.window.epoch, last.position)) == Found(last.position, True)
        assert behind.position == last.position


async def _is_at(log: EventLog, position: int) -> bool:
    return log.position == position
