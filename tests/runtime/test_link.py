"""Links without a transport: what is written next, and what is owed to a client that stalls at an awkward moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ssepool.config import HubConfig, PoolConfig
from ssepool.core.decoder import Decoder
from ssepool.core.slot import NEVER, Slot
from ssepool.core.states import Reason, SlotState
from ssepool.core.topics import Subscription
from ssepool.runtime import reaper
from ssepool.runtime.hub import Hub
from ssepool.runtime.link import Link
from ssepool.runtime.visit import Visit
from ssepool.runtime.welcome import connect, welcome


class Paper(Link):
    """A link that writes into memory, as much as it has room for."""

    __slots__ = ("room", "written")

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub.pool, hub.delivery)
        self.written = b""
        self.room = 10**9
        self.started = True

    def flush(self) -> None:
        if self.stalled or self.ended:
            return
        while (item := self.take()) is not None:
            data, start = bytes(item[0]), item[1]
            taken = min(len(data), self.room)
            self.room -= taken
            self.written += data[:taken]
            if self.slot is not None:
                self.slot.bytes += taken
            if taken < len(data):
                if start < 0:
                    self.rest = memoryview(data)[taken:]
                else:
                    assert self.slot is not None
                    assert self.feed is not None
                    self.slot.cursor, rest = self.feed.split(start, taken)
                    self.rest = rest or None
                self.stall()
                return
        if self.ending:
            self.end(Reason.COMPLETED)

    def hang_up(self) -> None:
        pass

    def make_room(self, room: int = 10**9) -> None:
        self.room = room
        self.go_on()
        self.flush()

    def events(self) -> list[str]:
        """Data of the messages so far that are not the hub's own, whose types are shown instead."""
        messages = Decoder().feed(self.written)
        return [message.type if message.type.startswith("ssepool.") else message.data for message in messages]


class NoApplicant:
    def granted(self, slot: Slot) -> bool:
        raise AssertionError("nobody waits in these tests")

    def failed(self, outcome: Any) -> None:
        raise AssertionError("nobody waits in these tests")


NEWS = Visit(subscription=Subscription.of(["news"]))


def connected(hub: Hub, visit: Visit = NEWS) -> tuple[Paper, Slot]:
    """A link with a reserved slot, whose stream is to be opened with `welcome`."""
    link, slot = Paper(hub), hub.pool.acquire(hub.now(), NoApplicant())
    assert isinstance(slot, Slot)
    connect(hub, slot, link, visit)
    return link, slot


async def opened(hub: Hub, visit: Visit = NEWS) -> tuple[Paper, Slot]:
    link, slot = connected(hub, visit)
    await welcome(hub, link.owner, link, visit)  # type: ignore[arg-type]
    return link, slot


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


async def delivered(hub: Hub) -> None:
    await until(lambda: not hub.delivery._rounds)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    quiet = PoolConfig(size=1000, heartbeat_interval=1e6, reap_interval=1e6)
    async with Hub(HubConfig(pool=quiet, detach=False)) as hub:
        yield hub
        hub.abort()


async def test_a_client_that_stalls_before_it_joins_its_feed_loses_nothing(hub: Hub) -> None:
    async def snapshot(connection: Any) -> None:
        await connection.send("x" * 1000)

    hub.on_connect(snapshot)
    link, _ = connected(hub)
    link.room = 500  # not enough for what the hook sends
    await welcome(hub, link.owner, link, NEWS)  # type: ignore[arg-type]
    assert link.stalled
    for number in range(3):
        hub.publish_nowait("news", f"event {number}")
        await delivered(hub)
    link.make_room()
    assert link.events() == ["ssepool.open", "x" * 1000, "event 0", "event 1", "event 2"]


async def test_a_client_that_stalls_before_it_has_a_slot_is_judged_by_send_timeout(hub: Hub) -> None:
    link, slot = connected(hub)
    link.stalled = True  # since it waited in the queue
    await welcome(hub, link.owner, link, NEWS)  # type: ignore[arg-type]
    assert slot.blocked_at < NEVER
    assert hub.pool.reap(hub.now() + hub.config.pool.send_timeout).evict == [(slot, Reason.SEND_TIMEOUT)]


async def test_a_replay_counts_as_activity(hub: Hub) -> None:
    hub.publish_nowait("news", "old")
    link, slot = await opened(hub, Visit(subscription=Subscription.of(["news"]), last_event_id="earliest"))
    assert link.events() == ["ssepool.open", "old"]
    assert slot.sent_at >= slot.opened_at > 0


async def test_nothing_is_written_inside_a_frame_that_was_cut_in_two(hub: Hub) -> None:
    link, _ = await opened(hub)
    link.room = 20
    hub.publish_nowait("news", "first")
    hub.publish_nowait("news", "second")
    await delivered(hub)
    assert link.stalled
    link.push(b"data: own\n\n")
    link.beat()
    link.make_room(3)
    assert link.stalled
    link.make_room()
    assert link.events() == ["ssepool.open", "first", "own", "second"]


async def test_a_feed_keeps_nothing_once_nobody_is_behind(hub: Hub) -> None:
    slow, _ = await opened(hub)
    fast, _ = await opened(hub)
    assert fast.feed is slow.feed is not None
    slow.room = 0
    for number in range(5):
        hub.publish_nowait("news", str(number))
        await delivered(hub)
    assert len(fast.feed.entries) == 5
    slow.make_room()
    assert slow.events() == fast.events()
    assert fast.feed.entries == []


async def test_many_heartbeats_are_sent_in_slices(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "SLICE", 0.0)  # one heartbeat a slice
    held = [await opened(hub) for _ in range(20)]
    assert hub._reaper is not None
    gone, (early, _) = held[-1][0], held[0]
    hub._reaper._beat(iter([slot for _, slot in held]))
    assert early.written.endswith(b"\n: heartbeat\n")
    assert sum(link.written.endswith(b": heartbeat\n") for link, _ in held) == 1
    gone.end(Reason.CLIENT_CLOSED)  # before its turn
    await until(lambda: held[-2][0].written.endswith(b": heartbeat\n"))
    assert all(link.written.count(b": heartbeat\n") == (link is not gone) for link, _ in held)
    assert held[-1][1].state is SlotState.FREE


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
async def test_a_link_that_has_more_to_do_than_to_follow_its_feed_is_not_plain(
    hub: Hub, change: Callable[[Link], None]
) -> None:
    link, _ = await opened(hub)
    assert link.plain
    change(link)
    assert not link.plain


async def test_a_link_with_an_event_of_its_own_that_waits_for_its_place_is_not_plain(hub: Hub) -> None:
    link, _ = await opened(hub)
    link.room = 0
    hub.publish_nowait("news", "first")
    await until(lambda: link.stalled)
    link.send(b"data: own\n\n")
    assert not link.plain
    link.make_room()
    assert link.plain
    assert link.events()[1:] == ["first", "own"]
