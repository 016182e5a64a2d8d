"""Intake: what a broker of this process stores enters its window and is delivered, in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ssepool.brokers.memory import MemoryBroker
from ssepool.config import HubConfig
from ssepool.core.event import Entry, Event
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.intake import Intake


class Life:
    """An intake with a broker whose window takes as much time as the test says."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.delivered: list[int] = []
        self.broker = MemoryBroker(HubConfig(history_events=100), clock=lambda: self.now)
        self._enter, self._seconds = self.broker.enter, seconds
        self.broker.enter = self._slowly  # type: ignore[method-assign]
        self.intake = Intake(self.broker, self._deliver, lambda: self.now)

    def _slowly(self, entries: Sequence[Entry]) -> None:
        self.now += self._seconds * len(entries)
        self._enter(entries)

    def _deliver(self, entries: Sequence[Entry]) -> None:
        self.delivered += [entry.position for entry in entries]
        assert self.broker.window.newest == self.delivered[-1]


def events(count: int) -> list[Event]:
    return [Event("x", ("news",))] * count


async def test_one_event_is_there_at_once_and_so_are_a_few() -> None:
    life = Life(SLICE_SECONDS / 1000)
    life.broker.append_nowait(events(1))
    life.broker.append_nowait(events(50))
    assert (life.delivered, list(life.intake.pending)) == (list(range(1, 52)), [])


async def test_a_batch_holds_the_loop_for_no_longer_than_a_slice() -> None:
    life = Life(SLICE_SECONDS / 10)
    ids = life.broker.append_nowait(events(1000))
    assert len(ids) == 1000
    turns = 0
    while life.intake.pending:
        before = life.now
        await asyncio.sleep(0)
        turns += 1
        assert life.now - before <= 2 * SLICE_SECONDS
    assert turns > 40
    assert life.delivered == list(range(1, 1001))
    assert life.broker.window.kept.events == 100


async def test_what_is_stored_meanwhile_comes_behind_it() -> None:
    life = Life(SLICE_SECONDS)
    first = life.broker.append_nowait(events(20))
    last = life.broker.append_nowait(events(1))
    assert life.broker.append_nowait(events(1)) != last
    while life.intake.pending:
        await asyncio.sleep(0)
    assert life.delivered == list(range(1, 23))
    assert (first[0], last) == (f"{life.broker.window.epoch}-1", [f"{life.broker.window.epoch}-21"])
