"""Connections: what an application sees of a client, what a handle does that outlives it, and who holds the slots."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from admitting import Source, news
from parts import Applicant, Paper, bound, connection_of, delivered, opened, running, until
from ssepool.config import HubConfig, PoolConfig
from ssepool.core.event import Event
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.errors import ConnectionReleased, InvalidEvent
from ssepool.runtime.connections import Connection
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.link import OUTBOX_BYTES, OUTBOX_FRAMES, Link
from virtual import in_virtual_time, now


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running() as engine:
        yield engine


async def connected(engine: Engine, visit: Visit | None = None) -> tuple[Connection, Paper, Slot]:
    link, slot = await opened(engine, visit or news())
    return connection_of(link), link, slot


# What the application sees.


async def test_a_connection_tells_of_its_client(engine: Engine) -> None:
    visit = Visit(
        grant=Grant(subject="ada"),
        subscription=Subscription.of(["news", "alerts"], patterns=["orders/:id", "jobs/*"]),
        ip="192.0.2.7",
        data={"tab": 3},
    )
    connection, link, slot = await connected(engine, visit)
    assert (connection.user, connection.ip, connection.data) == ("ada", "192.0.2.7", {"tab": 3})
    assert (connection.topics, connection.patterns) == (("alerts", "news"), ("jobs/*", "orders/:id"))
    assert connection.visit is visit
    assert connection.id == f"{engine.node}-{slot.index}-{slot.generation}"
    assert (connection.is_open, connection.state) == (True, "open")
    engine.publish_nowait([Event.of("news", "one"), Event.of("orders/7", "two"), Event.of("other", "three")])
    await delivered(engine)
    await connection.send("own")
    assert (connection.events_sent, connection.events_skipped) == (3, 0)
    assert connection.bytes_sent == len(link.written)
    assert repr(connection) == f"<Connection {connection.id} open>"


async def test_a_connection_without_a_subscription_follows_nothing(engine: Engine) -> None:
    connection, _, _ = await connected(engine, Visit(grant=STRANGER))
    assert (connection.topics, connection.patterns, connection.user, connection.ip) == ((), (), None, None)


@in_virtual_time
async def test_the_time_of_opening_is_told_by_the_clock_on_the_wall() -> None:
    async with running(now=now()) as engine:
        began = now()()
        engine.connections.wall_clock = lambda: 1_000_000_000.0 + now()() - began
        await asyncio.sleep(50)
        connection, _, _ = await connected(engine)
        await asyncio.sleep(200)
        assert connection.opened_at == 1_000_000_050.0


# A handle that outlives its client.

ALWAYS = {"id", "is_open"}
"""What is said of a connection for ever."""

ARGUMENTS: dict[str, tuple[Any, ...]] = {"accepts": ("x",), "send": ("x",), "link_ended": (Reason.KICKED,)}


def names() -> list[str]:
    return [name for name in dir(Connection) if not name.startswith("_")]


async def touch(connection: Connection, name: str) -> None:
    """Read an attribute, or call a method."""
    value = getattr(connection, name)
    if callable(value):
        result = value(*ARGUMENTS.get(name, ()))
        if inspect.isawaitable(result):
            await result


@pytest.mark.parametrize("taken", [False, True], ids=["free again", "another's now"])
@pytest.mark.parametrize("name", sorted({*names()} - ALWAYS))
async def test_once_the_client_has_left_a_handle_raises(name: str, taken: bool) -> None:
    async with running(HubConfig(pool=PoolConfig(size=1), detach=False)) as engine:
        old, link, slot = await connected(engine)
        link.end(Reason.CLIENT_CLOSED)
        if taken:
            await connected(engine)
        before, state = engine.connections.totals(), slot.state
        with pytest.raises(ConnectionReleased, match=f"the client of connection {old.id} has left"):
            await touch(old, name)
        assert (engine.connections.totals(), slot.state) == (before, state)


async def test_its_id_and_that_it_has_left_are_told_for_ever(engine: Engine) -> None:
    connection, link, _ = await connected(engine)
    id = connection.id
    link.end(Reason.CLIENT_CLOSED)
    assert (connection.id, connection.is_open) == (id, False)
    assert repr(connection) == f"<Connection {id} released>"


async def test_the_next_client_of_a_slot_has_another_id_and_token(engine: Engine) -> None:
    first, link, slot = await connected(engine)
    token = first.token
    link.end(Reason.CLIENT_CLOSED)
    second, _, again = await connected(engine)
    assert again is slot
    assert (first.id != second.id, second.token != token, second.accepts(token)) == (True, True, False)
    assert engine.connections.find(first.id) is None
    assert engine.connections.find(second.id) is second


# Ids and tokens.


async def test_a_connection_is_found_by_its_id_while_it_is_open(engine: Engine) -> None:
    find = engine.connections.find
    link = Paper(engine.links)
    slot = bound(engine, link)
    connection = connection_of(link)
    assert find(connection.id) is None  # its stream has not opened
    engine.pool.start(slot, engine.now())
    assert find(connection.id) is connection
    link.room_left = 0
    connection.close()
    assert connection.state == "closing"
    assert find(connection.id) is connection
    link.make_room()
    assert find(connection.id) is None


@pytest.mark.parametrize(
    "id",
    [
        *("", "-", "--", "{node}", "{node}-", "{node}--", "{node}-0", "{node}-0-", "{node}--0", "-0-0"),
        *("{node}-0-0-", "{node}-0-0-0", "{node}-0-00", "{node}-0-0 ", "{node}-0-x", "{node}-0-1", "{node}-0--1"),
        *("{node}-00-0", "{node}- 0-0", "{node}-+0-0", "{node}-0x0-0", "{node}-0_0-0", "{node}-²-0", "{node}-\u0660-0"),
        *("{node}-1-0", "{node}-1000000-0", "{node}-99999999999999999999-0", " {node}-0-0", "{node}0-0-0"),
        *("another-0-0", "{upper}-0-0"),
    ],
)
async def test_nothing_is_found_by_an_id_that_no_connection_has(id: str) -> None:
    async with running() as engine:
        engine.connections.node = "abcdef"
        connection, _, _ = await connected(engine)
        assert connection.id == "abcdef-0-0"
        assert engine.connections.find(id.format(node="abcdef", upper="ABCDEF")) is None


async def test_a_token_is_its_connections_alone() -> None:
    async with running() as engine, running() as other:
        connections = [(await connected(engine))[0] for _ in range(3)]
        for connection in connections:
            accepting = [one for one in connections if one.accepts(connection.token)]
            assert accepting == [connection]
        engine.connections.node = other.connections.node = "same"
        stranger, _, _ = await connected(other)
        assert stranger.id == connections[0].id
        assert not stranger.accepts(connections[0].token)  # another process has another secret


@pytest.mark.parametrize(("keys", "shared"), [(("k", "k"), True), (("k", "another"), False), (("", ""), False)])
async def test_tokens_are_known_to_those_with_the_same_cluster_key(keys: tuple[str, str], shared: bool) -> None:
    configs = [HubConfig(pool=PoolConfig(size=1), detach=False, cluster_key=key) for key in keys]
    async with running(configs[0]) as engine, running(configs[1]) as other:
        connection, _, _ = await connected(engine)
        assert other.connections.is_token(connection.id, connection.token) is shared
        assert not other.connections.is_token(connection.id + "0", connection.token)
        assert not other.connections.is_token("\ud800", connection.token)
        assert (engine.knows_all_tokens, other.knows_all_tokens) == (bool(keys[0]), bool(keys[1]))


@pytest.mark.parametrize("wrong", ["", "short", "{token}0", "{token}\ud800", "\u00e4", "{upper}"])
async def test_no_other_text_is_a_token(engine: Engine, wrong: str) -> None:
    connection, _, _ = await connected(engine)
    token = connection.token
    assert connection.accepts(token)
    text = wrong.format(token=token, upper=token.upper())
    assert text == token or not connection.accepts(text)  # a token may be of digits alone


# Sending.


async def test_an_event_of_its_own_has_all_the_fields_of_an_event(engine: Engine) -> None:
    connection, link, _ = await connected(engine)
    begin = len(link.written)
    await connection.send({"n": 1}, type="step", id="s-1", retry=500)
    await connection.send(Event("made before", type="other"))
    step, other = Event({"n": 1}, type="step", id="s-1", retry=500), Event("made before", type="other")
    assert link.written[begin:] == step.encode() + other.encode()
    with pytest.raises(InvalidEvent):
        await connection.send("x", id="not allowed")
    assert connection.events_sent == 2


async def test_sending_counts_as_activity_and_touching_too(engine: Engine) -> None:
    connection, _, slot = await connected(engine)
    assert (slot.sent_at, slot.received_at) == (0.0, 0.0)
    await connection.send("x")
    connection.touch()
    assert slot.opened_at <= slot.sent_at <= slot.received_at <= engine.now()


async def test_what_comes_after_the_goodbye_is_not_sent_and_not_counted(engine: Engine) -> None:
    connection, link, _ = await connected(engine)
    link.room_left = 0
    connection.close()
    await connection.send("too late")
    assert connection.events_sent == 0
    link.make_room()
    assert link.events() == ["ssepool.open", "ssepool.close"]


class Full:
    """A client that takes nothing, with as much as may wait for it alone."""

    def __init__(self, engine: Engine, connection: Connection, link: Paper) -> None:
        self.engine, self.connection, self.link = engine, connection, link

    @classmethod
    async def of(cls, engine: Engine) -> Full:
        connection, link, _ = await connected(engine)
        link.room_left = 0
        await connection.send("half-written")
        for number in range(OUTBOX_FRAMES):
            await connection.send(number)
        assert link.full
        return cls(engine, connection, link)

    async def senders(self, count: int) -> list[asyncio.Task[None]]:
        """Tasks that send, and wait."""
        tasks = [asyncio.create_task(self.connection.send(f"waited {number}")) for number in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        return tasks

    @property
    def waited(self) -> list[str]:
        return [data for data in self.link.events() if data.startswith("waited")]


@in_virtual_time
async def test_senders_wait_until_the_link_has_room_and_no_timer_wakes_them() -> None:
    async with running(now=now()) as engine:
        full = await Full.of(engine)
        tasks = await full.senders(3)
        began = now()()
        await asyncio.sleep(3600)  # however long that takes
        assert not any(task.done() for task in tasks)
        full.link.make_room()
        await asyncio.gather(*tasks)
        assert now()() == began + 3600
        assert full.waited == ["waited 0", "waited 1", "waited 2"]
        assert full.connection.events_sent == 1 + OUTBOX_FRAMES + 3


@in_virtual_time
async def test_of_many_senders_only_those_go_on_for_whom_there_is_room() -> None:
    async with running(now=now()) as engine:
        full = await Full.of(engine)
        tasks = await full.senders(OUTBOX_FRAMES + 10)
        assert full.link.rest is not None
        full.link.make_room(len(full.link.rest) + 1)  # for the beginning of what is in the outbox
        await until(lambda: sum(task.done() for task in tasks) == OUTBOX_FRAMES)
        await asyncio.sleep(1)
        assert [task.done() for task in tasks] == [True] * OUTBOX_FRAMES + [False] * 10
        full.link.make_room()
        await asyncio.gather(*tasks)
        assert full.waited == [f"waited {number}" for number in range(OUTBOX_FRAMES + 10)]


@in_virtual_time
async def test_bytes_fill_an_outbox_as_frames_do() -> None:
    async with running(now=now()) as engine:
        connection, link, _ = await connected(engine)
        link.room_left = 0
        await connection.send("half-written")
        await connection.send("x" * OUTBOX_BYTES)
        sender = asyncio.create_task(connection.send("waited"))
        await asyncio.sleep(1)
        assert not sender.done()
        link.make_room()
        await sender
        assert link.events()[-1] == "waited"


@pytest.mark.parametrize("reason", [Reason.CLIENT_CLOSED, Reason.SEND_TIMEOUT])
@in_virtual_time
async def test_who_waits_to_send_is_told_that_the_client_has_left_though_its_slot_is_anothers(reason: Reason) -> None:
    async with running(HubConfig(pool=PoolConfig(size=1), detach=False), now=now()) as engine:
        full = await Full.of(engine)
        tasks = await full.senders(3)
        full.link.end(reason)
        _, next_client, slot = await connected(engine)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, ConnectionReleased)
        assert (next_client.events(), slot.events) == (["ssepool.open"], 0)


@in_virtual_time
async def test_a_sender_that_is_cancelled_does_not_harm_the_others() -> None:
    async with running(now=now()) as engine:
        full = await Full.of(engine)
        first, second, third = await full.senders(3)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await asyncio.sleep(1)
        assert not second.done()
        full.link.make_room()
        await asyncio.gather(second, third)
        assert full.waited == ["waited 1", "waited 2"]


# What clients send.


async def test_what_a_client_sends_is_activity_and_is_handed_to_the_hooks(engine: Engine) -> None:
    heard: list[tuple[Connection, Any]] = []
    engine.hooks.add("message", lambda connection, data: heard.append((connection, data)))
    connection, link, slot = await connected(engine)
    await engine.connections.receive(connection, {"x": 1})
    assert heard == [(connection, {"x": 1})]
    assert slot.received_at >= slot.opened_at > 0
    link.end(Reason.CLIENT_CLOSED)
    with pytest.raises(ConnectionReleased):
        await engine.connections.receive(connection, {"x": 2})
    assert len(heard) == 1


# Who holds the slots.


async def test_only_clients_whose_stream_is_open_are_listed(engine: Engine) -> None:
    first, _, _ = await connected(engine)
    bound(engine, Paper(engine.links), news())
    engine.pool.acquire(engine.now(), Applicant())
    last, link, _ = await connected(engine)
    assert list(engine.connections) == [first, last]
    assert len(engine.connections.held()) == 4
    for connection in engine.connections:  # who is sent away while the list is gone through is no hindrance
        connection.close()
    assert list(engine.connections) == []
    engine.pool.release(engine.connections.held()[-1], engine.now())
    assert link.ended


def reserved(engine: Engine, link: Paper) -> Slot:
    return bound(engine, link, news())


def open_(engine: Engine, link: Paper) -> Slot:
    slot = bound(engine, link, news())
    engine.pool.start(slot, engine.now())
    return slot


def closing(engine: Engine, link: Paper) -> Slot:
    slot = open_(engine, link)
    link.room_left = 0
    link.close(Reason.LIFETIME)
    return slot


@pytest.mark.parametrize(
    ("state", "reason", "is_free", "counted", "told"),
    [
        (reserved, Reason.SHUTDOWN, True, Reason.SHUTDOWN, []),
        (reserved, Reason.SEND_TIMEOUT, True, Reason.SEND_TIMEOUT, []),
        (open_, Reason.SHUTDOWN, True, Reason.SHUTDOWN, ["ssepool.close"]),
        (open_, Reason.IDLE, True, Reason.IDLE, ["ssepool.close"]),
        (open_, Reason.SEND_TIMEOUT, True, Reason.SEND_TIMEOUT, []),
        (closing, Reason.SHUTDOWN, False, Reason.LIFETIME, ["ssepool.close"]),
        (closing, Reason.SEND_TIMEOUT, True, Reason.LIFETIME, []),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_a_client_is_sent_away_in_each_state_of_its_slot(
    engine: Engine,
    state: Callable[[Engine, Paper], Slot],
    reason: Reason,
    is_free: bool,
    counted: Reason,
    told: list[str],
) -> None:
    ended: list[str] = []
    engine.hooks.add("disconnect", lambda connection, reason: ended.append(reason))
    link = Paper(engine.links)
    slot = state(engine, link)
    was_reserved = slot.state is SlotState.RESERVED
    engine.connections.evict(slot, reason)
    assert (slot.state is SlotState.FREE) == is_free
    if not is_free:
        link.make_room()
    assert link.events() == told
    assert (slot.state, link.ended) == (SlotState.FREE, True)
    assert {name: count for name, count in engine.pool.stats().released.items() if count} == {counted.value: 1}
    await engine.hooks.close(10)
    assert ended == ([] if was_reserved else [counted.value])  # whoever was not let in does not leave


async def test_a_slot_that_no_link_holds_is_left_to_its_request(engine: Engine) -> None:
    slot = engine.pool.acquire(engine.now(), Applicant())
    assert isinstance(slot, Slot)
    engine.connections.evict(slot, Reason.SHUTDOWN)
    assert slot.state is SlotState.RESERVED
    engine.connections.abort()
    assert slot.state is SlotState.RESERVED
    engine.pool.release(slot, engine.now())
    engine.connections.evict(slot, Reason.SHUTDOWN)
    assert slot.state is SlotState.FREE


async def test_all_of_a_subscription_share_one_feed_until_the_last_has_left(engine: Engine) -> None:
    first, second = news(), news()
    assert first.subscription is not second.subscription
    _, one, slot = await connected(engine, first)
    _, other, _ = await connected(engine, second)
    assert first.subscription is second.subscription
    assert one.feed is other.feed is slot.feed is not None
    assert len(engine.feeds) == 1
    one.end(Reason.CLIENT_CLOSED)
    assert (len(engine.feeds), slot.feed, len(engine.feeds.listeners("news"))) == (1, None, 1)
    other.end(Reason.CLIENT_CLOSED)
    assert (len(engine.feeds), engine.feeds.listeners("news")) == (0, [])


async def test_a_client_that_leaves_is_no_longer_a_viewer_of_its_run(engine: Engine) -> None:
    source = Source()
    _, first, _ = await connected(engine, Visit(grant=STRANGER, source=source))
    _, second, _ = await connected(engine, Visit(grant=STRANGER, source=source))
    assert source.viewers == [first, second]
    first.end(Reason.CLIENT_CLOSED)
    assert source.viewers == [second]


async def test_numbers_of_those_who_have_left_are_kept(engine: Engine) -> None:
    connection, link, slot = await connected(engine)
    await connection.send("one")
    slot.skipped = 4
    before = engine.connections.totals()
    assert before == (1, 4, len(link.written))
    link.end(Reason.CLIENT_CLOSED)
    assert engine.connections.totals() == before
    assert (slot.events, slot.skipped, slot.bytes) == (0, 0, 0)
    again, _, _ = await connected(engine)
    await again.send("two")
    assert engine.connections.totals()[:2] == (2, 4)


async def test_the_hook_of_a_client_that_left_is_told_who_and_why(engine: Engine) -> None:
    told: list[tuple[str, bool, str]] = []
    engine.hooks.add("disconnect", lambda connection, reason: told.append((connection.id, connection.is_open, reason)))
    connection, _, _ = await connected(engine)
    connection.close("idle")
    await until(lambda: told)
    assert told == [(connection.id, False, "idle")]


async def test_only_reasons_of_the_design_close_a_connection(engine: Engine) -> None:
    connection, _, _ = await connected(engine)
    with pytest.raises(ValueError, match="'because' is not a valid Reason"):
        connection.close("because")
    assert connection.state == "open"


@in_virtual_time
async def test_that_all_have_gone_is_told_when_the_last_has() -> None:
    async with running(now=now()) as engine:
        gone = engine.connections.all_gone
        await gone()  # nobody is there
        began = now()()
        _, first, _ = await connected(engine)
        _, second, _ = await connected(engine)
        waiting = [asyncio.create_task(gone()), asyncio.create_task(gone())]
        await asyncio.sleep(1)
        first.end(Reason.CLIENT_CLOSED)
        _, third, _ = await connected(engine)
        await asyncio.sleep(1)
        second.end(Reason.CLIENT_CLOSED)
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        third.end(Reason.CLIENT_CLOSED)
        _, last, _ = await connected(engine)  # before anybody who waits has had a turn
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        last.end(Reason.CLIENT_CLOSED)
        await asyncio.gather(*waiting)
        assert now()() == pytest.approx(began + 4.0)


async def test_aborting_cuts_everybody_whatever_is_still_to_be_written(engine: Engine) -> None:
    links: list[Link] = []
    for state in (reserved, open_, closing):
        link = Paper(engine.links)
        state(engine, link)
        links.append(link)
    engine.connections.abort()
    assert all(link.ended for link in links)
    assert engine.connections.held() == []
