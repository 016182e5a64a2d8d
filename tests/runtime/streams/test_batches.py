"""Big batches: they go to the feeds in slices, and whoever comes between two of them gets everything once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from parts import TO_NEWS, Paper, Streams, delivered, running
from scripted_broker import Heard
from ssepool.brokers.memory import MemoryBroker
from ssepool.config import HubConfig
from ssepool.core.event import EARLIEST, Entry, Event
from ssepool.runtime.streams import follower as follower_module
from ssepool.runtime.streams import intake as intake_module
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.replay import Replay
from ssepool.runtime.streams.slices import STEP_ENTRIES
from ssepool.runtime.tasks import Tasks

COUNT = 10 * STEP_ENTRIES + 3


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step takes as long as a slice may: an entry is a slice."""
    for module in (intake_module, follower_module):
        monkeypatch.setattr(module, "SLICE_SECONDS", -1.0)


def events(count: int, first: int = 0) -> list[Event]:
    return [Event(str(number), ("news",)) for number in range(first, first + count)]


class Following:
    """A log over a broker in memory, with its feeds, and clients that come."""

    def __init__(self, **settings: int) -> None:
        self.streams = Streams(now=time.monotonic)
        self.failing = False
        self.tasks = Tasks()
        broker = MemoryBroker(HubConfig(**settings))  # type: ignore[arg-type]
        room = self.streams.delivery.room
        self.log = EventLog(broker, self._deliver, self.streams.feeds.announce_loss, room, time.monotonic)

    def _deliver(self, entries: Sequence[Entry]) -> None:
        if self.failing:
            self.failing = False
            raise RuntimeError("a defect")
        self.streams.feeds.dispatch(entries)

    def come(self, wanted: str | None = None) -> Paper:
        """A client that wants what came behind an id, or what comes from now on."""
        link = Paper(self.streams.links)
        self.streams.give_slot(link)
        after = self.log.position if wanted is None else None
        link.replay = Replay(self.log, self.streams.feeds, self.tasks, TO_NEWS, wanted=wanted, after=after)
        link.replay.begin(link)
        link.flush()
        return link

    async def settled(self) -> None:
        while not self.log.settled:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        await delivered(self.streams)


@pytest.fixture
async def following(request: pytest.FixtureRequest) -> AsyncIterator[Following]:
    following = Following(**getattr(request, "param", {}))
    await following.log.open()
    yield following
    await following.tasks.close(1.0)
    await following.log.close()


async def test_others_have_their_turn_while_a_big_batch_goes_out(following: Following) -> None:
    link = following.come()
    publishing = asyncio.ensure_future(following.log.publish(events(COUNT)))
    before, turns = 0, 0
    while not publishing.done():
        await asyncio.sleep(0)
        assert following.log.position - before <= 1
        assert following.streams.feeds.dispatched == following.log.position
        before, turns = following.log.position, turns + 1
    assert turns >= COUNT
    assert (len(publishing.result()), following.log.position) == (COUNT, COUNT)
    await following.settled()
    assert link.events() == [str(number) for number in range(COUNT)]


async def test_who_stores_a_batch_waits_for_it_too(following: Following) -> None:
    stored = await following.log.store(events(COUNT))
    assert stored[-1].position == COUNT == following.log.position


async def test_a_small_batch_goes_out_at_once(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "SLICE_SECONDS", 10.0)
    following.log.publish_nowait(events(STEP_ENTRIES))
    assert (following.log.position, following.log.settled) == (STEP_ENTRIES, True)


async def test_what_is_published_meanwhile_comes_behind(following: Following) -> None:
    link = following.come()
    following.log.publish_nowait(events(COUNT))
    following.log.publish_nowait(events(1, COUNT))
    assert (following.log.position, following.log.settled) == (1, False)
    await following.log.publish(events(COUNT, COUNT + 1))
    await following.settled()
    assert link.events() == [str(number) for number in range(2 * COUNT + 1)]


@pytest.mark.parametrize(
    "following", [{}, {"history_events": 10}, {"history_events": 0}], indirect=True, ids=["all", "ten", "none"]
)
async def test_who_comes_between_two_slices_misses_nothing_and_gets_nothing_twice(following: Following) -> None:
    ids = following.log.publish_nowait(events(COUNT))
    clients: list[tuple[int, bool, Paper]] = []
    last_is_kept = following.log.config.history_events > 0
    while not following.log.settled:
        place, oldest = following.log.position, following.log.window.oldest
        if place % STEP_ENTRIES == 0:
            clients += [
                (place, True, following.come()),
                (0, oldest == 0, following.come(EARLIEST)),
                (place - 3, oldest <= place - 3, following.come(ids[place - 4])),
                (COUNT - 1, last_is_kept, following.come(ids[-2])),
            ]
        await asyncio.sleep(0)
    assert len(clients) == 4 * (COUNT // STEP_ENTRIES)
    await following.settled()
    following.log.publish_nowait(events(1, COUNT))
    await following.settled()
    for first, exact, link in clients:
        got = [int(data) for data in link.events() if data.isdigit()]
        assert got == list(range(got[0], COUNT + 1))
        assert got[0] == first if exact else got[0] > first and (b"ssepool.gap" in link.written or first == 0)


async def test_a_defect_does_not_hold_up_what_comes_behind(following: Following) -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context["exception"]))
    following.log.publish_nowait(events(COUNT))
    following.failing = True
    await following.settled()
    assert (len(failed), following.log.position) == (1, COUNT)


async def test_others_have_their_turn_while_a_page_of_the_tail_goes_out(heard: Heard) -> None:
    heard.broker.put(COUNT)
    before = 0
    while before < COUNT:
        await asyncio.sleep(0)
        assert heard.log.position - before <= STEP_ENTRIES
        before = heard.log.position
    assert heard.all == list(range(1, COUNT + 1))


async def test_a_tail_that_is_restarted_within_a_page_goes_on_there(heard: Heard) -> None:
    heard.broker.put(COUNT)
    await heard.until(lambda: heard.log.position)
    heard.log._restart_tail()
    await heard.until(lambda: heard.log.position == COUNT)
    assert heard.all == list(range(1, COUNT + 1))
    assert heard.log.window.kept.events == COUNT


async def test_nothing_is_published_at_once_while_a_batch_goes_out() -> None:
    async with running() as engine:
        engine.publish_nowait(events(COUNT))
        assert engine.try_publish(events(1)) is None
        await engine.publish_many(events(1))
        assert engine.log.position == COUNT + 1
        assert engine.try_publish(events(1)) is not None


async def test_of_many_batches_one_waits_to_be_delivered(following: Following) -> None:
    link = following.come()
    publishing = [asyncio.ensure_future(following.log.publish(events(COUNT, COUNT * n))) for n in range(5)]
    while not all(task.done() for task in publishing):
        await asyncio.sleep(0)
        assert len(following.log._pending) <= COUNT
    await following.settled()
    assert link.events() == [str(number) for number in range(5 * COUNT)]
