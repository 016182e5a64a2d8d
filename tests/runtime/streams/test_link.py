"""Links without a transport: what is written next, and what is owed to a client that stalls at an awkward moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from parts import NEWS, Paper, bound, connection_of, delivered, opened, running, until
from ssepool.core.event import Event
from ssepool.core.slot import NEVER
from ssepool.core.states import LinkState, Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.runtime.admission.admission import welcome
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.link import Link


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running() as engine:
        yield engine


def publish(engine: Engine, data: str) -> None:
    engine.publish_nowait((Event.of("news", data),))


async def test_a_client_that_stalls_before_it_joins_its_feed_loses_nothing(engine: Engine) -> None:
    async def snapshot(connection: Any) -> None:
        await connection.send("x" * 1000)

    engine.hooks.add("connect", snapshot)
    link = Paper(engine.links)
    bound(engine, link)
    link.room_left = 500  # not enough for what the hook sends
    await welcome(engine, connection_of(link), link, NEWS)
    assert link.stalled
    for number in range(3):
        publish(engine, f"event {number}")
        await delivered(engine)
    link.make_room()
    assert link.events() == ["ssepool.open", "x" * 1000, "event 0", "event 1", "event 2"]


async def test_a_client_that_stalls_before_it_has_a_slot_is_judged_by_send_timeout(engine: Engine) -> None:
    link = Paper(engine.links)
    slot = bound(engine, link)
    link.stall()  # since it waited in the queue
    await welcome(engine, connection_of(link), link, NEWS)
    assert slot.blocked_at < NEVER
    assert engine.pool.reap(engine.now() + engine.config.pool.send_timeout).evict == [(slot, Reason.SEND_TIMEOUT)]


async def test_a_replay_counts_as_activity(engine: Engine) -> None:
    publish(engine, "old")
    link, slot = await opened(engine, Visit(subscription=Subscription.of(["news"]), last_event_id="earliest"))
    assert link.events() == ["ssepool.open", "old"]
    assert slot.sent_at >= slot.opened_at > 0


async def test_nothing_is_written_inside_a_frame_that_was_cut_in_two(engine: Engine) -> None:
    link, _ = await opened(engine)
    link.room_left = 20
    publish(engine, "first")
    publish(engine, "second")
    await delivered(engine)
    assert link.stalled
    link.push(b"data: own\n\n")
    link.beat()
    link.make_room(3)
    assert link.stalled
    link.make_room()
    assert link.events() == ["ssepool.open", "first", "own", "second"]


async def test_a_feed_keeps_nothing_once_nobody_is_behind(engine: Engine) -> None:
    slow, _ = await opened(engine)
    fast, _ = await opened(engine)
    assert fast.feed is slow.feed is not None
    slow.room_left = 0
    for number in range(5):
        publish(engine, str(number))
        await delivered(engine)
    assert len(fast.feed.entries) == 5
    slow.make_room()
    assert slow.events() == fast.events()
    assert fast.feed.entries == []


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link.push(b"data: own\n\n"),
        lambda link: link.finish(Reason.COMPLETED),
        lambda link: link.close(Reason.KICKED),
        lambda link: link.end(Reason.CLIENT_CLOSED),
        lambda link: link.stall(),
    ],
)
async def test_a_link_that_has_more_to_do_than_to_follow_its_feed_does_not_just_follow_it(
    engine: Engine, change: Callable[[Link], None]
) -> None:
    link, _ = await opened(engine)
    assert link.state is LinkState.FOLLOWING
    change(link)
    assert link.state is not LinkState.FOLLOWING


async def test_a_link_with_an_event_of_its_own_that_waits_for_its_place_does_not_just_follow_it(engine: Engine) -> None:
    link, _ = await opened(engine)
    link.room_left = 0
    publish(engine, "first")
    await until(lambda: link.stalled)
    link.send(b"data: own\n\n")
    assert link.state is not LinkState.FOLLOWING
    link.make_room()
    assert link.state is LinkState.FOLLOWING
    assert link.events()[1:] == ["first", "own"]
