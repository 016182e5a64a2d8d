"""The engine: how it opens and closes, who may publish when, and what it says of itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from parts import QUIET, Applicant, Paper, bound, delivered, opened, running, until
from scripted_broker import Scripted
from ssepool.brokers.memory import MemoryBroker
from ssepool.config import HubConfig, MiB, PoolConfig
from ssepool.core.event import Event
from ssepool.core.grant import Grant
from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason, SlotState, WaiterState
from ssepool.core.visit import Visit
from ssepool.errors import BrokerError, ConfigError, InvalidTopic, PoolClosed, SSEPoolError
from ssepool.runtime import engine as engine_module
from ssepool.runtime.engine import GOODBYE_SECONDS, Engine
from ssepool.runtime.handover import AVAILABLE
from virtual import in_virtual_time, now

CONFIG = HubConfig(pool=QUIET, detach=False)
NEWS = Event.of("news", "hello")
BIG = Event.of("news", "x" * (MiB // 2))


async def publish_nowait(engine: Engine, events: Sequence[Event]) -> Any:
    return engine.publish_nowait(events)


async def try_publish(engine: Engine, events: Sequence[Event]) -> Any:
    return engine.try_publish(events)


PUBLISH: list[Callable[[Engine, Sequence[Event]], Awaitable[Any]]] = [
    Engine.publish_many,
    Engine.store,
    publish_nowait,
    try_publish,
]
each_way_to_publish = pytest.mark.parametrize("publish", PUBLISH, ids=lambda way: way.__name__)


# Opening and closing.


async def test_it_opens_once() -> None:
    broker = Scripted(CONFIG)
    engine = Engine(CONFIG, broker=broker)
    assert (engine.pool.state, broker.calls) == (PoolState.NEW, [])
    await engine.open()
    assert (engine.pool.state, broker.calls, engine.unready) == (PoolState.OPEN, ["open"], None)
    with pytest.raises(PoolClosed, match="a pool that is open cannot become open"):
        await engine.open()
    assert (engine.pool.state, broker.calls, engine.unready) == (PoolState.OPEN, ["open"], None)
    engine.shutdown()
    await engine.cut()
    await engine.close()


@in_virtual_time
async def test_it_closes_the_pool_first_then_the_streams_and_the_broker_last() -> None:
    broker = Scripted(CONFIG)
    engine = Engine(HubConfig(pool=PoolConfig(size=1)), broker=broker, now=now())
    await engine.open()
    link, slot = await opened(engine)
    waits = Applicant()
    engine.pool.acquire(engine.now(), waits)
    link.room_left = 0

    engine.shutdown()
    assert waits.outcome is WaiterState.REFUSED
    assert (engine.pool.state, slot.state, slot.reason) == (PoolState.CLOSED, SlotState.CLOSING, Reason.SHUTDOWN)
    await engine.cut()
    assert (link.ended, slot.state, broker.calls) == (True, SlotState.FREE, ["open"])
    await engine.close()
    assert broker.calls == ["open", "close"]


@in_virtual_time
async def test_a_broker_that_fails_leaves_nothing_open() -> None:
    broker = Scripted(CONFIG)
    broker.broken = "nobody there"
    engine = Engine(CONFIG, broker=broker, now=now())
    with pytest.raises(BrokerError, match="nobody there"):
        await engine.open()
    assert (engine.pool.state, broker.calls, engine.streamer) == (PoolState.CLOSED, ["open", "close"], None)
    assert engine.unready == "the pool is closed; it takes clients only while it is open"
    with pytest.raises(PoolClosed, match="the hub is closed"):
        await engine.publish_many([NEWS])


@in_virtual_time
async def test_a_broker_that_does_not_answer_has_broker_timeout_to_open() -> None:
    config = HubConfig(broker_timeout=7.0)
    broker = Scripted(config)
    broker.answers.clear()
    engine, began = Engine(config, broker=broker, now=now()), now()()
    with pytest.raises(BrokerError, match="did not answer in 7 s"):
        await engine.open()
    assert now()() == began + 7
    assert (engine.pool.state, broker.calls) == (PoolState.CLOSED, ["open", "close"])


@in_virtual_time
async def test_who_is_cancelled_while_it_opens_leaves_nothing_open() -> None:
    broker = Scripted(CONFIG)
    broker.answers.clear()
    engine = Engine(CONFIG, broker=broker, now=now())
    opening = asyncio.create_task(engine.open())
    await until(lambda: broker.calls)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (engine.pool.state, broker.calls) == (PoolState.CLOSED, ["open", "close"])


def test_a_broker_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Engine(HubConfig(broker="nowhere://"))


@pytest.mark.parametrize("detach", [True, False])
async def test_sockets_are_watched_while_it_is_open_if_they_are_to_be_taken_over(detach: bool) -> None:
    engine = Engine(HubConfig(detach=detach))
    assert engine.streamer is None
    await engine.open()
    assert (engine.streamer is not None) is (detach and AVAILABLE)
    engine.shutdown()
    await engine.cut()
    assert engine.streamer is None
    await engine.close()


@in_virtual_time
async def test_every_client_is_told_goodbye_at_once() -> None:
    async with running(now=now()) as engine:
        links = [(await opened(engine))[0] for _ in range(3)]
        began = now()()
        engine.shutdown()
        engine.shutdown()  # the second time does nothing
        await engine.cut()
        assert now()() == began
        for link in links:
            assert link.events() == ["ssepool.open", "ssepool.close"]
            assert link.written.count(b'{"reason":"shutdown"}') == 1
        assert engine.pool.stats().released["shutdown"] == 3


@in_virtual_time
async def test_a_client_that_takes_nothing_has_a_moment_for_its_goodbye() -> None:
    async with running(now=now()) as engine:
        stalled, slot = await opened(engine)
        stalled.room_left = 0
        engine.shutdown()
        await asyncio.sleep(GOODBYE_SECONDS - 0.01)
        assert not stalled.ended
        await asyncio.sleep(0.02)  # also if nobody has called `cut`: servers wait for their connections before
        assert (stalled.ended, slot.state) == (True, SlotState.FREE)


@in_virtual_time
async def test_cutting_waits_until_all_are_gone_and_for_a_moment_at_most() -> None:
    async with running(now=now()) as engine:
        slow, _ = await opened(engine)
        slow.room_left = 0
        engine.shutdown()
        began = now()()
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS / 4, slow.make_room)
        await engine.cut()
        assert now()() - began == GOODBYE_SECONDS / 4
        assert slow.events() == ["ssepool.open", "ssepool.close"]


@in_virtual_time
async def test_cutting_ends_what_has_not_ended_by_itself() -> None:
    async with running(now=now()) as engine:
        stalled, _ = await opened(engine)
        stalled.room_left = 0
        reserved = engine.pool.acquire(engine.now(), Applicant())  # whose request has not taken it yet
        assert isinstance(reserved, Slot)
        work = engine.tasks.start(asyncio.sleep(3600))
        began = now()()
        await engine.cut()
        assert now()() - began == 2 * GOODBYE_SECONDS
        assert stalled.ended
        await asyncio.wait([work])
        assert work.cancelled()
        engine.pool.release(reserved, engine.now())


@in_virtual_time
async def test_hooks_of_the_last_clients_are_waited_for() -> None:
    async with running(now=now()) as engine:
        told: list[str] = []

        async def farewell(connection: Any, reason: str) -> None:
            await asyncio.sleep(GOODBYE_SECONDS / 2)
            told.append(reason)

        engine.hooks.add("disconnect", farewell)
        await opened(engine)
        engine.shutdown()
        await engine.cut()
        assert told == ["shutdown"]


async def test_the_setting_bounds_the_pool_whatever_descriptors_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "max_clients", lambda: 3)
    async with running(HubConfig(pool=PoolConfig(size=2, max_size=5))) as engine:
        engine.resize(5)
        with pytest.raises(ConfigError, match=r"^size = 6 is not allowed; max_size is 5$"):
            engine.resize(6)
        assert len(engine.pool.slots) == 5


@in_virtual_time
async def test_it_says_why_it_takes_no_clients() -> None:
    broker = Scripted(CONFIG)
    engine = Engine(CONFIG, broker=broker, now=now())
    assert engine.unready == "the pool is new; it takes clients only while it is open"
    await engine.open()
    assert engine.unready is None
    broker.broken = "the cable is out"
    await asyncio.sleep(5)
    assert engine.unready == "the broker is away: the cable is out"
    broker.broken = None
    await asyncio.sleep(5)
    assert engine.unready is None
    broker.asleep = True
    for _ in range(8):
        broker.put()
        await asyncio.sleep(1)
    assert engine.unready is None
    await asyncio.sleep(5)
    assert engine.unready is not None
    assert re.fullmatch(r"what the broker had 1\d s ago has not come; this node is at position 0", engine.unready)
    broker.asleep = False
    await asyncio.sleep(5)
    assert engine.unready is None
    engine.pool.drain(engine.now(), 30.0)
    assert engine.unready == "the pool is draining; it takes clients only while it is open"
    engine.shutdown()
    assert engine.unready == "the pool is closed; it takes clients only while it is open"
    await engine.cut()
    await engine.close()


async def test_only_a_hub_that_was_never_opened_is_a_mistake_of_the_program() -> None:
    engine = Engine(CONFIG)
    with pytest.raises(PoolClosed, match=r"give your application lifespan=hub\.lifespan, or use `async with hub`"):
        engine.check_open()
    await engine.open()
    engine.check_open()
    engine.pool.drain(engine.now(), 0)
    engine.check_open()
    engine.shutdown()
    engine.check_open()
    await engine.cut()
    await engine.close()


# Publishing.


@each_way_to_publish
async def test_nothing_is_published_before_it_is_open(publish: Callable[..., Awaitable[Any]]) -> None:
    engine = Engine(CONFIG)
    with pytest.raises(PoolClosed, match="the hub is not open: give your application lifespan"):
        await publish(engine, [NEWS])
    assert engine.log.position == 0


@each_way_to_publish
async def test_it_is_published_to_until_it_has_closed(publish: Callable[..., Awaitable[Any]]) -> None:
    async with running() as engine:
        engine.shutdown()
        await publish(engine, [NEWS])
        await engine.cut()
        await publish(engine, [NEWS])
        assert engine.log.position == 2
        await engine.close()
        with pytest.raises(PoolClosed, match="the hub is closed"):
            await publish(engine, [NEWS])
        assert engine.log.position == 2


@each_way_to_publish
async def test_a_pool_that_drains_is_still_published_to(publish: Callable[..., Awaitable[Any]]) -> None:
    async with running() as engine:
        engine.pool.drain(engine.now(), 30.0)
        await publish(engine, [NEWS])
        assert engine.log.position == 1


@each_way_to_publish
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (Event("for nobody"), InvalidTopic, "an event needs at least one topic to be published to"),
        (Event.of("news", "x" * 2000), SSEPoolError, "exceeds max_event_size=1000"),
    ],
)
async def test_a_batch_with_an_event_that_will_not_do_is_not_published_at_all(
    publish: Callable[..., Awaitable[Any]], wrong: Event, error: type[Exception], message: str
) -> None:
    async with running(HubConfig(pool=QUIET, max_event_size=1000)) as engine:
        with pytest.raises(error, match=message):
            await publish(engine, [NEWS, wrong, NEWS])
        assert (engine.log.position, engine.feeds.dispatched) == (0, 0)


async def test_a_batch_is_published_in_order_and_its_ids_are_told() -> None:
    async with running() as engine:
        link, _ = await opened(engine)
        epoch = engine.log.window.epoch
        assert await engine.publish_many(Event.of("news", text) for text in "ab") == [f"{epoch}-1", f"{epoch}-2"]
        assert await engine.store([Event.of("news", "c", id="chosen")]) == [("chosen", 3)]
        assert engine.publish_nowait([Event.of("news", "d")]) == [f"{epoch}-4"]
        assert engine.try_publish([Event.of("news", "e")]) == [f"{epoch}-5"]
        await delivered(engine)
        assert link.events() == ["ssepool.open", *"abcde"]


@pytest.mark.parametrize("publish", [Engine.publish_many, Engine.store], ids=lambda way: way.__name__)
@in_virtual_time
async def test_publishers_wait_while_delivery_is_far_behind(publish: Callable[..., Awaitable[Any]]) -> None:
    async with running(HubConfig(pool=QUIET, detach=False), now=now()) as engine:
        link, _ = await opened(engine)
        waiting = asyncio.ensure_future(publish(engine, [NEWS]))  # whose turn comes before delivery's
        engine.publish_nowait([BIG] * 33)
        await asyncio.sleep(0)
        assert (waiting.done(), engine.log.position) == (False, 33)
        await waiting
        assert engine.log.position == 34
        await delivered(engine)
        assert len(link.events()) == 1 + 34


@in_virtual_time
async def test_nothing_is_published_at_once_while_delivery_is_far_behind_unless_it_has_to_be() -> None:
    async with running(HubConfig(pool=QUIET, detach=False), now=now()) as engine:
        link, _ = await opened(engine)
        engine.publish_nowait([BIG] * 33)
        assert not engine.delivery.has_room
        assert engine.try_publish([NEWS]) is None
        assert (engine.log.position, engine.feeds.dispatched) == (33, 33)
        engine.publish_nowait([NEWS])  # which does not wait
        assert engine.log.position == 34
        await delivered(engine)
        assert engine.try_publish([NEWS]) is not None
        await delivered(engine)
        assert len(link.events()) == 1 + 33 + 2


@in_virtual_time
async def test_where_the_broker_has_to_be_waited_for_nothing_is_published_at_once() -> None:
    broker = Scripted(CONFIG)
    async with running(broker=broker, now=now()) as engine:
        assert engine.try_publish([NEWS]) is None
        with pytest.raises(NotImplementedError, match="cannot publish without waiting"):
            engine.publish_nowait([NEWS])
        assert (broker.entries, engine.log.position) == ([], 0)
        assert await engine.publish_many([NEWS]) == ["0000000a-1"]


# What it is asked by others.


@pytest.mark.parametrize(
    ("retry", "chance", "milliseconds"), [(3.0, 0.0, 3000), (3.0, 1.0, 6000), (3.0, 0.5, 4500), (0.001, 0.0, 1)]
)
def test_clients_come_back_after_retry_seconds_and_up_to_as_much_again(
    retry: float, chance: float, milliseconds: int
) -> None:
    assert Engine(HubConfig(retry=retry), chance=lambda: chance).retry() == milliseconds


@in_virtual_time
async def test_lifetimes_are_shortened_by_the_same_chance() -> None:
    config = HubConfig(pool=PoolConfig(size=1, max_lifetime=100.0))
    async with running(config, now=now(), chance=lambda: 1.0) as engine:
        _, slot = await opened(engine)
        assert slot.expires_at == pytest.approx(now()() + 95)


@in_virtual_time
async def test_what_is_too_old_is_forgotten() -> None:
    config = HubConfig(pool=QUIET, history_age=60)
    async with running(config, broker=MemoryBroker(config, clock=now()), now=now()) as engine:
        visit = Visit(grant=Grant(subject="kicked"))
        engine.publish_nowait([NEWS])
        engine.bans.add(visit.fingerprint, engine.now() + 30)
        engine.expire(engine.now() + 29)
        assert engine.bans.contains(visit, engine.now() + 29)
        engine.expire(engine.now() + 31)
        assert not engine.bans.contains(visit, engine.now() + 29)
        assert engine.log.window.kept.events == 1
        await asyncio.sleep(61)
        engine.expire(engine.now())
        assert engine.log.window.kept.events == 0


@in_virtual_time
async def test_its_numbers_are_of_all_clients_those_that_are_here_and_those_that_have_left() -> None:
    config = HubConfig(pool=QUIET, lag_events=2)
    engine = Engine(config, now=now())
    assert (engine.stats().uptime, engine.stats().pool.state) == (0.0, "new")
    async with running(config, now=now()) as engine:
        left, _ = await opened(engine)
        here, _ = await opened(engine)
        engine.publish_nowait([NEWS])
        await delivered(engine)
        before = engine.stats()
        assert (before.events_published, before.events_delivered, before.feeds) == (1, 2, 1)
        left.end(Reason.CLIENT_CLOSED)
        assert engine.stats().bytes_sent == before.bytes_sent == len(left.written) + len(here.written)
        here.room_left = 0
        for _ in range(6):
            engine.publish_nowait([NEWS])
            await delivered(engine)
        here.make_room()
        await asyncio.sleep(100)
        stats = engine.stats()
        assert (stats.node, stats.uptime) == (engine.node, 100.0)
        assert stats.events_published == stats.history_events == 7
        assert stats.history_bytes == engine.log.window.kept.bytes > 0
        assert stats.bytes_sent == len(left.written) + len(here.written)
        assert stats.events_skipped > 0
        assert stats.events_delivered + stats.events_skipped == 2 + 6
        here.end(Reason.CLIENT_CLOSED)
        last = engine.stats()
        assert (last.feeds, last.pool.free) == (0, engine.config.pool.size)
        assert (last.events_delivered, last.events_skipped) == (stats.events_delivered, stats.events_skipped)


async def test_each_process_has_a_name_of_its_own() -> None:
    assert len({Engine(CONFIG).node for _ in range(5)}) == 5


async def test_a_link_is_made_with_what_the_engine_has() -> None:
    async with running(HubConfig(pool=QUIET, lag_policy="latest", retry=2.0), chance=lambda: 0.0) as engine:
        link = Paper(engine.links)
        bound(engine, link)
        context = link.context
        assert (context.pool, context.delivery, context.lag_policy) == (engine.pool, engine.delivery, "latest")
        assert context.retry() == 2000
