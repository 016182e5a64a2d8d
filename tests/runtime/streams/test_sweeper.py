"""The sweeper: what a window has dropped is dropped by the broker too, some time later and by one hub."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ssepool.brokers.backstop import TELL_SECONDS
from ssepool.brokers.base import DROP_ENTRIES
from ssepool.config import HubConfig
from ssepool.core.cut import Cut
from ssepool.core.event import Entry
from ssepool.core.window import Window
from ssepool.errors import BrokerError
from ssepool.runtime.streams import sweeper as sweeper_module
from ssepool.runtime.streams.sweeper import IDLE_SECONDS, SPARE_SECONDS, Sweeper
from virtual import in_virtual_time


class Dropping:
    """A broker that notes what it is told to drop."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], dict[str, Cut], int]] = []
        self.broken = False
        self.config = HubConfig(history_bytes=1234)
        self.facts: list[str] = []

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        assert len(positions) <= DROP_ENTRIES
        assert len(cuts) <= DROP_ENTRIES
        if self.broken:
            raise BrokerError("away")
        self.calls.append((list(positions), dict(cuts), floor))

    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        if self.broken:
            raise BrokerError("away")
        self.facts.append(name)

    @property
    def dropped(self) -> list[int]:
        return [position for positions, _, _ in self.calls for position in positions]


class Setup:
    def __init__(self, **limits: Any) -> None:
        self.time = 0.0
        self.broker = Dropping()
        self.window = Window("0000000a", **{"events": 2, "bytes": 10**9, "age": 10**9, **limits})
        self.sweeper = Sweeper(self.broker, lambda: self.time)  # type: ignore[arg-type]
        self.sweeper.follow(self.window)

    def put(self, *topics: str, **fields: Any) -> None:
        first = self.window.newest + 1
        names = [tuple(name.split()) for name in topics]
        entries = [Entry(first + n, f"0000000a-{first + n}", name, b"x", **fields) for n, name in enumerate(names)]
        self.window.append(entries, self.time)


async def test_what_is_dropped_is_swept_after_a_while_with_its_cuts() -> None:
    setup = Setup()
    setup.put("a b", "a", "a")
    setup.put("a", private=True)
    await setup.sweeper.sweep()
    assert setup.broker.calls == []  # a hub that is frozen may need it, and a publisher that tries again
    setup.time += SPARE_SECONDS
    await setup.sweeper.sweep()
    assert setup.broker.calls == [([2, 3], {"a": Cut(3)}, 0)]  # the first is all that another topic has
    setup.put("a", "a", "a")
    setup.time += SPARE_SECONDS
    await setup.sweeper.sweep()
    await setup.sweeper.sweep()
    assert setup.broker.calls[1:] == [([4, 5, 6], {"a": Cut(6, 4)}, 0)]


async def test_what_is_replaced_has_no_cut() -> None:
    setup = Setup()
    setup.put("a", "a", "a", key="k")
    setup.time += SPARE_SECONDS
    await setup.sweeper.sweep()
    assert setup.broker.calls == [([1, 2], {}, 0)]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "SPARE_EVENTS", 10)
    setup = Setup(events=0)
    setup.put(*["a"] * 25)
    await setup.sweeper.sweep()
    assert setup.broker.dropped == list(range(1, 16))
    monkeypatch.setattr(sweeper_module, "SPARE_BYTES", 1)
    await setup.sweeper.sweep()
    assert setup.broker.dropped == list(range(1, 26))


async def test_many_positions_and_topics_go_in_several_steps_the_cuts_first() -> None:
    setup = Setup(events=0)
    setup.put(*[f"{number} {number}b" for number in range(DROP_ENTRIES + 5)])
    setup.time += SPARE_SECONDS
    await setup.sweeper.sweep()
    assert setup.broker.dropped == list(range(1, DROP_ENTRIES + 6))
    told: dict[str, Cut] = {}
    for positions, cuts, _ in setup.broker.calls:
        told |= cuts
        assert all(f"{position - 1}" in told and f"{position - 1}b" in told for position in positions)


async def test_one_hub_sweeps_and_another_takes_its_place() -> None:
    setup = Setup()
    sweeps = False
    setup.sweeper.sweeps = lambda: sweeps
    setup.put(*["a"] * 5)
    setup.time += SPARE_SECONDS
    await setup.sweeper.sweep()
    assert setup.broker.calls == []
    sweeps = True
    await setup.sweeper.sweep()
    assert setup.broker.dropped == [1, 2, 3]
    sweeps = False
    setup.put(*["a"] * 5)
    await setup.sweeper.sweep()
    setup.time += IDLE_SECONDS
    await setup.sweeper.sweep()  # the other one has done it long since
    sweeps = True
    await setup.sweeper.sweep()
    assert setup.broker.dropped == [1, 2, 3]


async def test_what_the_broker_did_not_drop_is_dropped_the_next_time() -> None:
    setup = Setup()
    setup.put(*["a"] * 5)
    setup.time += SPARE_SECONDS
    setup.broker.broken = True
    with pytest.raises(BrokerError):
        await setup.sweeper.sweep()
    setup.broker.broken = False
    await setup.sweeper.sweep()
    assert setup.broker.dropped == [1, 2, 3]


async def test_the_hub_that_drops_says_so_now_and_then() -> None:
    setup = Setup()
    for seconds, told in ((0.0, 1), (TELL_SECONDS - 1, 1), (1.0, 2)):
        setup.time += seconds
        await setup.sweeper.sweep()
        assert setup.broker.facts == ["history-bytes-1234", "history-hub"] * told
    setup.time += TELL_SECONDS
    setup.sweeper.sweeps = lambda: False
    await setup.sweeper.sweep()
    assert len(setup.broker.facts) == 4
    setup.sweeper.sweeps = lambda: True  # the other one is gone
    await setup.sweeper.sweep()
    assert len(setup.broker.facts) == 6


@pytest.mark.parametrize("why", ["it is full", "no answer in 1 s"])
@in_virtual_time
async def test_what_is_dropped_does_not_wait_for_a_word_that_cannot_be_kept(
    why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup()

    async def keep(*_: object) -> None:
        if why == "it is full":
            raise BrokerError(why)
        await asyncio.Event().wait()

    monkeypatch.setattr(setup.broker, "keep", keep)
    setup.put("a", "a", "a")
    await setup.sweeper.sweep()
    setup.time += SPARE_SECONDS
    await setup.sweeper.sweep()
    assert setup.broker.dropped == [1]
    assert [record.message for record in caplog.records] == [
        f"publishers could not be told that a hub bounds the history: {why}"
    ]
