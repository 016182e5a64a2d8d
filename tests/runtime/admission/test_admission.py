"""Admission: how a request gets its slot, what it is told meanwhile, and what those are answered who get none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from admitting import Handed, Headless, Source, news, pool_of, take_slot, takes_sockets
from parts import QUIET, TO_NEWS, Applicant, Paper, bound, connection_of, delivered, opened, running, until
from ssepool.config import AccessConfig, HubConfig, OnFull, PoolConfig
from ssepool.core.decoder import Decoder
from ssepool.core.event import Event
from ssepool.core.frames import COMMENTS, COMPLETED_ID, DIALECT, Dialect
from ssepool.core.grant import ANYBODY, STRANGER, Grant
from ssepool.core.refusal import reason_code
from ssepool.core.revocations import Revocation
from ssepool.core.slot import NEVER, Slot
from ssepool.core.states import Reason, SlotState
from ssepool.core.term import Term
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.core.window import Window
from ssepool.errors import PoolClosed, PoolFull, PoolTimeout, SSEPoolError, TokenExpired, Unauthorized
from ssepool.runtime.admission.admission import (
    NOBODY,
    ClientGone,
    SlotRequest,
    admit_nowait,
    check_grant,
    compile_late,
    farewell,
    is_refused,
    is_to_stay_away,
    last_words,
    no_slot_reply,
    rate_refusal,
    welcome,
    welcome_nowait,
)
from ssepool.runtime.engine import Engine
from virtual import in_virtual_time, now


class Asking:
    """A request that waits in a task of its own, as a server has it, and keeps its slot until it is told to go."""

    def __init__(self, engine: Engine, link: Paper | None = None, visit: Visit | None = None) -> None:
        self.engine = engine
        self.visit = visit or news()
        self.link = link or Paper(engine.links)
        self.slot: Slot | None = None
        self.request: SlotRequest | None = None
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        with SlotRequest(self.engine.pool, self.visit, self.engine.now, self.engine.wakes) as self.request:
            await self.request.granted_slot(self.link)
            self.slot = self.request.take()

    async def outcome(self) -> BaseException | None:
        """Why it got no slot."""
        await asyncio.wait([self.task])
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    def release(self) -> None:
        assert self.slot is not None
        self.engine.pool.release(self.slot, self.engine.now())


# A request for a slot.


@in_virtual_time
async def test_a_free_slot_is_granted_at_once() -> None:
    async with pool_of() as engine:
        request = SlotRequest(engine.pool, news(), engine.now, engine.wakes)
        assert not request.waits
        began = now()()
        await request.granted_slot(Paper(engine.links))
        slot = request.take()
        assert (slot.state, now()()) == (SlotState.RESERVED, began)
        engine.pool.release(slot, engine.now())


@in_virtual_time
async def test_requests_are_granted_slots_in_the_order_in_which_they_came() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        first, second = Asking(engine), Asking(engine)
        await asyncio.sleep(5)
        assert first.request is not None
        assert (first.request.waits, len(engine.pool.waiting)) == (True, 2)
        engine.pool.release(slot, engine.now())
        assert not first.request.waits
        await asyncio.sleep(5)
        assert (first.slot, second.slot) == (slot, None)
        first.release()
        await asyncio.sleep(5)
        assert second.slot is slot
        assert engine.pool.stats().wait_seconds == 5 + 10
        second.release()


@in_virtual_time
async def test_who_waits_too_long_is_told_how_long() -> None:
    async with pool_of(acquire_timeout=12.5) as engine:
        slot = take_slot(engine)
        asking = Asking(engine)
        await asyncio.sleep(12)
        engine.pool.reap(engine.now())
        assert len(engine.pool.waiting) == 1
        await asyncio.sleep(1)
        engine.pool.reap(engine.now())
        error = await asking.outcome()
        assert isinstance(error, PoolTimeout)
        assert str(error).startswith("no slot came free (<Pool open size=1 open=0 reserved=1 waiting=0>")
        assert str(error).endswith("waited 12.5 s)")
        assert len(engine.pool.waiting) == 0
        engine.pool.release(slot, engine.now())


@pytest.mark.parametrize(
    ("end", "state"), [(lambda pool: pool.drain(1e9, 30.0), "draining"), (lambda pool: pool.close(), "closed")]
)
@in_virtual_time
async def test_who_waits_is_refused_when_the_pool_closes(end: Callable[[Any], Any], state: str) -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        asking = Asking(engine)
        await asyncio.sleep(1)
        end(engine.pool)
        error = await asking.outcome()
        assert isinstance(error, PoolClosed)
        assert str(error).startswith(f"the pool takes no more requests (<Pool {state} ")
        engine.pool.release(slot, engine.now())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_waiting": 0}, "no slot is free"),
        ({"on_full": "retry"}, "no slot is free"),
        ({"on_full": "reject"}, "no slot is free"),
        ({"max_per_ip": 1}, "max_per_ip=1 reached by ip '192.0.2.7'"),
        ({"max_per_user": 1}, "max_per_user=1 reached by user 'ada'"),
        ({"max_per_topic": 1}, "max_per_topic=1 reached by topic 'news'"),
    ],
)
@in_virtual_time
async def test_who_may_not_wait_is_told_at_once(settings: dict[str, Any], message: str) -> None:
    async with pool_of(**settings) as engine:
        with SlotRequest(engine.pool, visitor(), engine.now, engine.wakes):
            with pytest.raises(PoolFull, match=message):
                SlotRequest(engine.pool, visitor(), engine.now, engine.wakes)
            assert len(engine.pool.waiting) == 0


@in_virtual_time
async def test_nothing_is_applied_for_in_a_pool_that_is_not_open() -> None:
    engine = Engine(HubConfig(), now=now())
    with pytest.raises(PoolClosed, match="the pool is new"):
        SlotRequest(engine.pool, news(), engine.now, engine.wakes)


@in_virtual_time
async def test_a_client_that_leaves_is_out_of_the_queue_in_the_same_moment() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        leaves, stays = Asking(engine), Asking(engine)
        await asyncio.sleep(1)
        leaves.link.end(Reason.CLIENT_CLOSED)
        assert len(engine.pool.waiting) == 1
        engine.pool.release(slot, engine.now())
        assert isinstance(await leaves.outcome(), ClientGone)
        assert await stays.outcome() is None
        assert stays.slot is slot
        stats = engine.pool.stats()
        assert (stats.cancelled, stats.granted) == (1, 2)
        stays.release()


@pytest.mark.parametrize("full", [True, False])
@in_virtual_time
async def test_a_client_that_has_left_before_it_waits_gets_no_slot(full: bool) -> None:
    async with pool_of() as engine:
        slot = take_slot(engine) if full else None
        link = Paper(engine.links)
        link.end(Reason.CLIENT_CLOSED)
        assert isinstance(await Asking(engine, link).outcome(), ClientGone)
        assert (len(engine.pool.waiting), engine.pool.count(SlotState.FREE)) == (0, 0 if full else 1)
        if slot is not None:
            engine.pool.release(slot, engine.now())


@in_virtual_time
async def test_a_client_that_leaves_in_the_moment_of_its_grant_gives_the_slot_to_the_next() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        leaves, stays = Asking(engine), Asking(engine)
        await asyncio.sleep(1)
        engine.pool.release(slot, engine.now())  # granted, but its task has not run yet
        leaves.link.end(Reason.CLIENT_CLOSED)
        assert isinstance(await leaves.outcome(), ClientGone)
        assert await stays.outcome() is None
        assert (leaves.slot, stays.slot) == (None, slot)
        stays.release()


@pytest.mark.parametrize("granted", [False, True])
@in_virtual_time
async def test_a_request_that_is_cancelled_gives_back_its_place_or_its_slot(granted: bool) -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        asking = Asking(engine)
        await asyncio.sleep(1)
        if granted:
            engine.pool.release(slot, engine.now())
        asking.task.cancel()
        assert isinstance(await asking.outcome(), asyncio.CancelledError)
        assert len(engine.pool.waiting) == 0
        assert slot.state is (SlotState.FREE if granted else SlotState.RESERVED)
        if not granted:
            engine.pool.release(slot, engine.now())
        assert engine.pool.count(SlotState.FREE) == 1


@in_virtual_time
async def test_a_request_gives_back_what_it_owns_and_nothing_that_was_taken() -> None:
    async with pool_of() as engine:
        with SlotRequest(engine.pool, news(), engine.now, engine.wakes):
            assert engine.pool.count(SlotState.FREE) == 0
            with SlotRequest(engine.pool, news(), engine.now, engine.wakes):
                assert len(engine.pool.waiting) == 1
            assert len(engine.pool.waiting) == 0
        assert engine.pool.count(SlotState.FREE) == 1
        with SlotRequest(engine.pool, news(), engine.now, engine.wakes) as request:
            slot = request.take()
        assert slot.state is SlotState.RESERVED
        engine.pool.release(slot, engine.now())
        with contextlib.suppress(RuntimeError), SlotRequest(engine.pool, news(), engine.now, engine.wakes):
            raise RuntimeError
        assert engine.pool.count(SlotState.FREE) == 1


@in_virtual_time
async def test_only_what_becomes_of_a_request_first_counts() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        asking = Asking(engine)
        await asyncio.sleep(1)
        assert asking.request is not None
        engine.pool.close()
        asking.link.end(Reason.CLIENT_CLOSED)
        assert not asking.request.granted(slot)
        assert isinstance(await asking.outcome(), PoolClosed)
        engine.pool.release(slot, engine.now())


# What it is told while it waits.


@in_virtual_time
async def test_a_client_whose_head_is_out_is_told_its_place_at_once_and_then_what_changes() -> None:
    async with pool_of(heartbeat_interval=10.0) as engine:
        slot = take_slot(engine)
        first, second = Asking(engine), Asking(engine)
        await asyncio.sleep(0)
        assert (first.link.events(), second.link.events()) == (["ssepool.queued"], ["ssepool.queued"])
        assert second.link.written == DIALECT.queued(2, 2)
        request = second.request
        assert request is not None
        steps = [
            (2, 2, 0.0, b""),
            (2, 5, 9.0, b""),  # how many wait behind it is no news to it
            (2, 5, 10.0, DIALECT.heartbeat),
            (2, 5, 19.0, b""),
            (1, 4, 19.5, DIALECT.queued(1, 4)),
            (1, 4, 29.0, b""),
            (1, 4, 29.5, DIALECT.heartbeat),
        ]
        for position, waiting, seconds, expected in steps:
            second.link.written = b""
            request.announce(position, waiting, now()() + seconds)
            assert (seconds, second.link.written) == (seconds, expected)
        for asking in (first, second):
            asking.task.cancel()
        await asyncio.wait([first.task, second.task])
        engine.pool.release(slot, engine.now())


@in_virtual_time
async def test_nothing_is_said_to_a_client_that_has_no_slot_to_wait_for() -> None:
    async with pool_of() as engine:
        asking = Asking(engine)
        assert await asking.outcome() is None
        assert asking.link.written == b""
        asking.release()


def before_its_link_is_known(request: SlotRequest, link: Paper) -> None:
    request._link = None


def before_its_head(request: SlotRequest, link: Paper) -> None:
    request._link = Headless(link.context)


def stalled(request: SlotRequest, link: Paper) -> None:
    link.stall()


def ended(request: SlotRequest, link: Paper) -> None:
    link.end(Reason.CLIENT_CLOSED)


@pytest.mark.parametrize("state", [before_its_link_is_known, before_its_head, stalled, ended])
@in_virtual_time
async def test_a_client_that_cannot_be_told_now_is_told_nothing(state: Callable[[SlotRequest, Paper], None]) -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        link = Paper(engine.links)
        with SlotRequest(engine.pool, news(), engine.now, engine.wakes) as request:
            request._link = link
            state(request, link)
            request.announce(1, 1, engine.now())
            assert (link.written, link.outbox) == (b"", None)
            if state is stalled:
                link.make_room()
                request.announce(1, 1, engine.now())  # which it has not been told yet
                assert link.written == DIALECT.queued(1, 1)
        engine.pool.release(slot, engine.now())


def test_nobody_takes_no_slot_and_is_told_nothing() -> None:
    assert not NOBODY.granted(Slot(0))


# Who is to stay away.


@in_virtual_time
async def test_who_has_everything_or_was_kicked_is_to_stay_away() -> None:
    async with pool_of() as engine:
        kicked = news(grant=Grant(subject="kicked"))
        engine.bans.add(kicked.fingerprint, engine.now() + 30)
        table = [
            (news(grant=STRANGER), False),
            (news(last_event_id=COMPLETED_ID), True),
            (news(last_event_id="x", source=Source(last="x")), True),
            (news(last_event_id="y", source=Source(last="x")), False),
            (news(source=Source()), False),
            (kicked, True),
            (news(grant=Grant(subject="another")), False),
        ]
        for visit, expected in table:
            assert (visit, is_to_stay_away(engine, visit, engine.now())) == (visit, expected)
        await asyncio.sleep(30)
        assert not is_to_stay_away(engine, kicked, engine.now())


@pytest.mark.parametrize(
    ("seconds", "retry"),
    [(30.0, 30_000), (0.5, 500), (299.0, 299_000), (3600.0, 300_000), (1e9, 300_000)],
)
@in_virtual_time
async def test_who_only_looks_like_one_that_was_kicked_is_told_when_to_come_back(seconds: float, retry: int) -> None:
    async with pool_of() as engine:
        visit = news(ip="192.0.2.7", data={"page": 3})
        assert farewell(engine, visit) is None
        engine.bans.add(visit.fingerprint, engine.now() + seconds)
        for chance in (0.0, 0.999):
            engine.chance = lambda chance=chance: chance
            status, headers, body = farewell(engine, visit) or (0, [], b"")
            assert (status, headers) == (200, list(DIALECT.headers))
            assert body == DIALECT.closed("kicked", retry=retry + engine.retry())
        assert farewell(engine, news(ip="192.0.2.7", data={"page": 4})) is None


@in_virtual_time
async def test_who_is_known_to_be_the_one_or_has_everything_is_told_to_stay_away() -> None:
    async with pool_of() as engine:
        user, done = news(grant=Grant(subject="kicked")), news(last_event_id=COMPLETED_ID)
        engine.bans.add(user.fingerprint, engine.now() + 30)
        engine.bans.add(done.fingerprint, engine.now() + 30)
        assert farewell(engine, user) == farewell(engine, done) == (204, [], b"")
        await asyncio.sleep(30)
        assert farewell(engine, user) is None


@in_virtual_time
async def test_a_rate_counts_strangers_and_no_client_of_an_application() -> None:
    async with rated(detach=False) as engine:
        stranger, own = visitor(stranger=True), visitor()
        for _ in range(10):
            assert not is_refused(engine, stranger)
            assert rate_refusal(engine, stranger) is None
        assert is_refused(engine, stranger)
        refusal = rate_refusal(engine, stranger)
        assert refusal is not None
        assert rate_refusal(engine, own) is None
        for on_full, status in (("wait", 200), ("retry", 200), ("reject", 429)):
            engine.config = HubConfig(pool=PoolConfig(on_full=on_full))
            found, headers, body = no_slot_reply(engine, refusal, DIALECT)
            assert (found, b"too_many_requests" in body) == (status, True)
            assert int(dict(headers).get(b"retry-after", b"4")) >= 4  # a second for the rate, and the usual time
        await asyncio.sleep(1)
        assert rate_refusal(engine, stranger) is None


@in_virtual_time
async def test_who_is_let_in_after_all_has_its_patterns_compiled() -> None:
    async with rated(detach=False) as engine:
        wild = Subscription.of(patterns=["late/*"], compiled=False)
        visit = Visit(grant=STRANGER, subscription=wild, ip="192.0.2.7", stranger=True)
        slot = engine.pool.acquire(engine.now(), Applicant())
        engine.pool.config = PoolConfig(on_full="retry")
        compile_late(engine, visit)
        assert not wild.is_compiled  # it is turned away
        engine.pool.release(slot, engine.now())
        assert not admit_nowait(engine, visit, never, head)
        compile_late(engine, visit)
        assert wild.is_compiled


@in_virtual_time
async def test_who_would_be_turned_away_is_refused() -> None:
    async with pool_of(1, max_patterns=0) as engine:
        assert not is_refused(engine, news())
        assert is_refused(engine, news(last_event_id=COMPLETED_ID))
        wild = Visit(grant=STRANGER, subscription=Subscription.of(patterns=["*"]))
        assert not is_refused(engine, wild)  # the application chose it
        wild.stranger = True
        assert is_refused(engine, wild)
        take_slot(engine)
        assert not is_refused(engine, news())  # it may wait
        engine.pool.drain(engine.now(), 0.0)
        assert is_refused(engine, news())


# Admission at once.


def head(dialect: Dialect) -> bytes:
    return b"HEAD "


def never() -> Any:
    raise AssertionError("the socket is still the caller's")


def drained(engine: Engine) -> None:
    engine.pool.drain(engine.now(), 30.0)


def closed(engine: Engine) -> None:
    engine.pool.close()


def full(engine: Engine) -> None:
    take_slot(engine)
    take_slot(engine)


def kicked(engine: Engine) -> None:
    engine.bans.add(visitor().fingerprint, engine.now() + 30)


def as_many_patterns(engine: Engine) -> None:
    engine.pool.acquire(engine.now(), Applicant(), patterns=("a/*",))


def limited(engine: Engine) -> None:
    engine.pool.acquire(engine.now(), Applicant(), ip="192.0.2.7", user="ada", topics=("news",))


def as_it_is(engine: Engine) -> None:
    pass


def rated(**settings: Any) -> Any:
    """An engine with a rate that allows 10 subscriptions at once."""
    config = HubConfig(
        pool=PoolConfig(size=settings.pop("size", 1), heartbeat_interval=1e6), subscribe_rate=1, **settings
    )
    return running(config, now=now())


def visitor(**fields: Any) -> Visit:
    return Visit(**{"grant": Grant(subject="ada"), "subscription": TO_NEWS, "ip": "192.0.2.7", **fields})


@takes_sockets
@pytest.mark.parametrize(
    ("settings", "change", "fields"),
    [
        ({"detach": False}, as_it_is, {}),
        ({}, drained, {}),
        ({}, closed, {}),
        ({"max_patterns": 1}, as_many_patterns, {"subscription": Subscription.of(patterns=["b/*"]), "stranger": True}),
        ({}, full, {}),
        ({}, kicked, {}),
        ({}, as_it_is, {"last_event_id": COMPLETED_ID}),
        ({}, as_it_is, {"last_event_id": "x", "source": Source(last="x")}),
        ({"max_per_ip": 1}, limited, {}),
        ({"max_per_user": 1}, limited, {}),
        ({"max_per_topic": 1}, limited, {}),
    ],
    ids=["no streamer", "draining", "closed", "patterns", "full", "kicked", "completed", "over", "ip", "user", "topic"],
)
@in_virtual_time
async def test_what_is_out_of_the_ordinary_goes_the_longer_way_and_nothing_has_been_done(
    settings: dict[str, Any], change: Callable[[Engine], None], fields: dict[str, Any]
) -> None:
    async with pool_of(2, **{"detach": True} | settings) as engine:
        change(engine)
        before = engine.pool.stats()
        assert admit_nowait(engine, visitor(**fields), never, head) is False
        assert engine.pool.stats() == before
        assert not engine.streamer  # which has no link, if it is there
        for slot in engine.connections.held():
            engine.pool.release(slot, engine.now())


@takes_sockets
@in_virtual_time
async def test_who_is_beyond_its_rate_goes_the_longer_way_and_nobody_is_counted_twice() -> None:
    async with rated(size=2, detach=True) as engine:
        stranger = visitor(stranger=True, grant=STRANGER)
        assert engine.rates.allows("subscribe", stranger.ip, engine.now(), 9, take=True)
        with Handed() as handed:
            assert admit_nowait(engine, stranger, lambda: handed, head) is True
            assert admit_nowait(engine, visitor(stranger=True, grant=STRANGER), never, head) is False
            assert engine.rates.refused["subscribe"] == 0  # the longer way counts it
        await until(lambda: engine.pool.count(SlotState.FREE) == 2)
        with Handed() as handed:  # who is known counts as himself, not as one of an address that others have
            assert admit_nowait(engine, visitor(stranger=True), lambda: handed, head) is True
        await until(lambda: engine.pool.count(SlotState.FREE) == 2)
        with Handed() as handed:
            assert admit_nowait(engine, visitor(), lambda: handed, head) is True  # an application's client
        await until(lambda: engine.pool.count(SlotState.FREE) == 2)


@takes_sockets
@in_virtual_time
async def test_a_pool_that_was_never_opened_admits_nobody() -> None:
    engine = Engine(HubConfig(), now=now())
    assert admit_nowait(engine, news(), never, head) is False


@takes_sockets
@in_virtual_time
async def test_a_client_is_admitted_at_once() -> None:
    async with pool_of(2, detach=True, max_per_ip=1) as engine:
        engine.publish_nowait([Event.of("news", "before", id="before"), Event.of("news", "missed")])
        with Handed() as handed:
            taken: list[Handed] = []

            def take() -> Handed:
                taken.append(handed)
                return handed

            assert admit_nowait(engine, visitor(last_event_id="before"), take, head) is True
            assert (taken, handed.sink, len(asyncio.all_tasks())) == ([handed], None, 1)
            assert handed.received.startswith(b"HEAD 89\r\nid: before\nevent: ssepool.open\n")
            [connection] = engine.connections
            assert (connection.ip, connection.user, connection.state) == ("192.0.2.7", "ada", "open")
            assert connection.bytes_sent == len(handed.received)
            await until(lambda: b"data: missed\n\n" in handed.received)
            assert b"data: before" not in handed.received
            assert admit_nowait(engine, visitor(), never, head) is False  # it counts
        await until(lambda: not connection.is_open)  # it has left
        assert handed.gone_calls == 0  # there is no server's side


@takes_sockets
@in_virtual_time
async def test_hooks_are_waited_for_in_a_task() -> None:
    async with pool_of(2, detach=True) as engine:
        greeted: list[str] = []

        async def greet(connection: Any) -> None:
            await asyncio.sleep(1)
            greeted.append(connection.id)
            await connection.send("hello")

        engine.hooks.add("connect", greet)
        with Handed() as handed:
            assert admit_nowait(engine, news(), lambda: handed, head) is True
            assert (handed.received, greeted) == (b"", [])
            await asyncio.sleep(2)
            engine.publish_nowait([Event.of("news", "live")])
            await delivered(engine)
            assert [connection.id for connection in engine.connections] == greeted
            assert handed.received.index(b"ssepool.open") < handed.received.index(b"data: hello")
            assert handed.received.index(b"data: hello") < handed.received.index(b"data: live")
            engine.connections.abort()
            await engine.tasks.close(1)


@takes_sockets
@in_virtual_time
async def test_a_socket_that_cannot_be_taken_costs_no_slot() -> None:
    async with pool_of(2, detach=True) as engine:

        def fail() -> Any:
            raise OSError("on purpose")

        with pytest.raises(OSError, match="on purpose"):
            admit_nowait(engine, news(), fail, head)
        assert engine.pool.count(SlotState.FREE) == 2
        assert engine.pool.stats().released["error"] == 1


# The beginning of a stream.


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running() as engine:
        yield engine


def id_of(link: Paper) -> str | None:
    """The id of the first event."""
    return Decoder().feed(link.written)[0].id or None


async def test_a_stream_opens_with_who_the_client_is_and_when_to_come_back() -> None:
    async with running(chance=lambda: 0.0) as engine:
        link, slot = await opened(engine)
        connection = connection_of(link)
        place = f"{engine.log.window.epoch}-0"
        assert link.written == DIALECT.opened(connection.id, connection.token, engine.node, retry=3000, id=place)
        assert slot.state is SlotState.OPEN


@pytest.mark.parametrize("has_hook", [False, True])
async def test_a_client_that_has_left_already_is_not_welcomed(engine: Engine, has_hook: bool) -> None:
    called: list[Any] = []
    if has_hook:
        engine.hooks.add("connect", called.append)
    link = Paper(engine.links)
    slot = bound(engine, link)
    connection = connection_of(link)
    link.end(Reason.CLIENT_CLOSED)
    await welcome(engine, connection, link, news())
    assert (called, slot.state, len(engine.feeds)) == ([], SlotState.FREE, 0)


async def test_hooks_run_before_what_was_missed_and_what_is_live(engine: Engine) -> None:
    engine.publish_nowait([Event.of("news", "missed")])

    async def hook(connection: Any) -> None:
        assert connection.state == "open"
        await connection.send("from the hook")
        engine.publish_nowait([Event.of("news", "meanwhile")])

    engine.hooks.add("connect", hook)
    link, _ = await opened(engine, news(last_event_id="earliest"))
    engine.publish_nowait([Event.of("news", "live")])
    await delivered(engine)
    assert link.events() == ["ssepool.open", "from the hook", "missed", "meanwhile", "live"]


async def test_without_an_id_a_stream_begins_at_the_place_that_its_opening_names(engine: Engine) -> None:
    engine.publish_nowait([Event.of("news", "before")])

    async def hook(connection: Any) -> None:
        engine.publish_nowait([Event.of("news", "meanwhile")])
        await connection.send("from the hook")

    engine.hooks.add("connect", hook)
    link, _ = await opened(engine, news())
    engine.publish_nowait([Event.of("news", "live")])
    await delivered(engine)
    assert link.events() == ["ssepool.open", "from the hook", "meanwhile", "live"]
    assert link.written.startswith(f"id: {engine.log.window.epoch}-1\n".encode())


async def test_a_client_that_has_had_no_event_comes_back_and_has_missed_none(engine: Engine) -> None:
    for topic in ("news", "other"):  # the place may be that of an event of others
        engine.publish_nowait([Event.of(topic, "before")])
        first, _ = await opened(engine, news())
        place = id_of(first)
        first.end(Reason.CLIENT_CLOSED)
        engine.publish_nowait([Event.of("news", "missed")])
        again, _ = await opened(engine, news(last_event_id=place))
        await delivered(engine)
        assert again.events() == ["ssepool.open", "missed"]
        assert id_of(again) == place


async def test_the_place_of_an_event_that_has_gone_is_told_as_a_gap_only_if_one_behind_it_has() -> None:
    async with running(HubConfig(history_events=2)) as engine:
        place = id_of((await opened(engine, news()))[0])
        for number in range(2):
            engine.publish_nowait([Event.of("news", number)])
        assert (await opened(engine, news(last_event_id=place)))[0].events() == ["ssepool.open", "0", "1"]
        engine.publish_nowait([Event.of("news", 2)])
        assert (await opened(engine, news(last_event_id=place)))[0].events()[:2] == ["ssepool.open", "ssepool.gap"]


async def test_a_history_that_is_lost_during_a_hook_is_told_as_a_gap(engine: Engine) -> None:
    engine.publish_nowait([Event.of("news", "before")])

    def lose(connection: Any) -> None:
        window = engine.log.window
        engine.log.window = Window("00000000", after=window.newest, events=1, bytes=1, age=1)

    engine.hooks.add("connect", lose)
    link, _ = await opened(engine, news())
    await delivered(engine)
    assert link.events()[:2] == ["ssepool.open", "ssepool.gap"]


@pytest.mark.parametrize("wanted", ["earliest", "two words", "a\ndata: forged"])
async def test_what_is_no_id_is_not_repeated(engine: Engine, wanted: str) -> None:
    link, _ = await opened(engine, news(last_event_id=wanted))
    assert id_of(link) is None


async def test_a_stream_without_a_topic_begins_at_no_place(engine: Engine) -> None:
    link, _ = await opened(engine, Visit(grant=STRANGER, source=Source()))
    assert id_of(link) is None


@pytest.mark.parametrize(("start", "place"), [(None, 3), (1, 1), (9, 3)])
async def test_a_run_s_viewer_begins_where_the_run_did(engine: Engine, start: int | None, place: int) -> None:
    engine.publish_nowait([Event.of("news", number) for number in range(3)])
    link, _ = await opened(engine, news(source=Source(start=start)))
    assert id_of(link) == f"{engine.log.window.epoch}-{place}"
    await delivered(engine)
    assert link.events()[1:] == [str(number) for number in range(place, 3)]


async def test_a_hook_that_fails_does_not_keep_the_client_out(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fail(connection: Any) -> None:
        raise RuntimeError("on purpose")

    engine.hooks.add("connect", fail)
    link, _ = await opened(engine, news())
    assert link.events() == ["ssepool.open"]
    assert len(engine.feeds) == 1
    assert "an on_connect hook failed" in caplog.text


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_client_that_is_sent_away_or_leaves_during_a_hook_follows_nothing(engine: Engine, leaves: bool) -> None:
    source = Source()

    def hook(connection: Any) -> None:
        if leaves:
            link.end(Reason.CLIENT_CLOSED)
        else:
            link.room_left = 0  # so that it is still here afterwards
            connection.close()

    engine.hooks.add("connect", hook)
    link = Paper(engine.links)
    visit = news(source=source)
    slot = bound(engine, link, visit)
    await welcome(engine, connection_of(link), link, visit)
    assert (len(engine.feeds), source.viewers) == (0, [])
    assert slot.state is (SlotState.FREE if leaves else SlotState.CLOSING)


@pytest.mark.parametrize("nowait", [False, True])
@pytest.mark.parametrize(("end", "reason"), [(drained, Reason.DRAINED), (closed, Reason.SHUTDOWN)])
async def test_a_pool_that_began_to_end_meanwhile_sends_the_client_away(
    engine: Engine, end: Callable[[Engine], None], reason: Reason, nowait: bool
) -> None:
    link = Paper(engine.links)
    visit = news()
    bound(engine, link, visit)
    connection = connection_of(link)
    end(engine)
    if nowait:
        welcome_nowait(engine, connection, link, visit)
    else:
        await welcome(engine, connection, link, visit)
    assert link.events() == ["ssepool.close"]
    assert f'{{"reason":"{reason}"}}'.encode() in link.written
    assert engine.pool.stats().released[reason] == 1
    assert not connection.is_open


async def test_a_client_that_stalled_before_it_had_a_slot_is_judged_from_now_on(engine: Engine) -> None:
    link = Paper(engine.links)
    slot = bound(engine, link)
    link.stall()
    assert slot.blocked_at == NEVER
    welcome_nowait(engine, connection_of(link), link, news())
    assert slot.opened_at <= slot.blocked_at <= engine.now()


async def test_without_hooks_a_client_is_welcomed_without_a_task(engine: Engine) -> None:
    link = Paper(engine.links)
    bound(engine, link)
    welcome_nowait(engine, connection_of(link), link, news())
    assert link.events() == ["ssepool.open"]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("outcome", [None, Reason.COMPLETED, Reason.ERROR])
async def test_who_asks_for_a_run_attends_it_and_gets_what_came_since_its_start(
    engine: Engine, outcome: Reason | None
) -> None:
    engine.publish_nowait([Event.of("news", "before"), Event.of("news", "one"), Event.of("news", "two")])
    source = Source(start=1, outcome=outcome)
    link, _ = await opened(engine, news(source=source))
    if outcome is None:
        assert source.viewers == [link]
        assert link.events() == ["ssepool.open", "one", "two"]
    else:
        assert link.events() == ["ssepool.open", "one", "two", "ssepool.close"]
        assert f'{{"reason":"{outcome}"}}'.encode() in link.written
        assert (link.ended, source.viewers) == (True, [])


# Refusals.

FULL, TIMEOUT, CLOSED = PoolFull("it is full"), PoolTimeout("it took too long"), PoolClosed("it is closed")
CODES = {"it is full": "pool_full", "it took too long": "timed_out", "it is closed": "pool_closed"}


@pytest.mark.parametrize("error", [FULL, TIMEOUT, CLOSED])
@pytest.mark.parametrize("on_drain", ["retry", "reject"])
@pytest.mark.parametrize("on_full", ["wait", "retry", "reject"])
def test_a_refusal_is_a_stream_that_ends_or_an_honest_error(on_full: Any, on_drain: Any, error: SSEPoolError) -> None:
    config = HubConfig(pool=PoolConfig(on_full=on_full, on_drain=on_drain), retry=2.0)
    engine = Engine(config, chance=lambda: 0.5)
    status, headers, body = no_slot_reply(engine, error, DIALECT)
    code = CODES[str(error)]
    assert reason_code(error) == code
    if on_full == "reject" or (on_drain == "reject" and error is CLOSED):
        assert (status, dict(headers)) == (503, {b"content-type": b"application/json", b"retry-after": b"3"})
        assert json.loads(body) == {"error": {"code": code, "message": str(error)}}
    else:
        assert (status, headers) == (200, list(DIALECT.headers))
        assert body == DIALECT.closed(code, retry=3000)


@pytest.mark.parametrize(("retry", "seconds"), [(0.001, b"1"), (0.4, b"1"), (1.4, b"1"), (2.6, b"3"), (60.0, b"60")])
def test_a_program_is_told_whole_seconds_but_never_none(retry: float, seconds: bytes) -> None:
    engine = Engine(HubConfig(pool=PoolConfig(on_full="reject"), retry=retry), chance=lambda: 0.0)
    assert dict(no_slot_reply(engine, FULL, DIALECT)[1])[b"retry-after"] == seconds


def test_a_client_is_refused_in_its_own_dialect() -> None:
    class Other(Dialect):
        headers = ((b"content-type", b"text/other"),)

        def closed(self, reason: str, *, retry: int | None, id: str | None = None) -> bytes:
            return f"bye, {reason}".encode()

    assert no_slot_reply(Engine(HubConfig(pool=QUIET)), FULL, Other()) == (
        200,
        [(b"content-type", b"text/other")],
        b"bye, pool_full",
    )


# Grants that run out, or are taken back.


EXPIRED = TokenExpired("the grant has run out", presented=True)
REVOKED = Unauthorized("the grant has been revoked", presented=True)


@pytest.mark.parametrize("on_full", ["wait", "retry", "reject"])
def test_who_would_take_a_stream_that_ends_at_once_for_an_answer_is_refused_with_a_status(on_full: OnFull) -> None:
    engine = Engine(HubConfig(pool=PoolConfig(on_full=on_full), retry=2), chance=lambda: 0.0)
    for error, status, code in [
        (FULL, 503, b"pool_full"),
        (PoolClosed("it closes"), 503, b"pool_closed"),
        (EXPIRED, 401, b"token_expired"),
        (REVOKED, 401, b"unauthorized"),
    ]:
        found, headers, body = no_slot_reply(engine, error, COMMENTS)
        assert (found, code in body) == (status, True)
        assert dict(headers)[b"content-type"] == b"application/json"
        assert int(dict(headers)[b"retry-after"]) >= 2


def ending(seconds: float, reason: Reason = Reason.TOKEN_EXPIRED) -> Visit:
    """The visit of a client whose grant ends so soon."""
    at = now()() + seconds
    return news(Grant(subject="u1"), term=Term(at, reason, NEVER, at + 1))


def revoke(engine: Engine, subject: str = "u1") -> None:
    engine.revocations.add(Revocation(subject=subject, until=2e9))


@in_virtual_time
async def test_who_waits_until_the_grant_has_run_out_gets_no_slot_and_is_told() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        asking = Asking(engine, visit=ending(5))
        await asyncio.sleep(6)  # nobody has looked
        assert not asking.task.done()
        engine.pool.release(slot, engine.now())
        error = await asking.outcome()
        assert isinstance(error, TokenExpired)
        assert asking.slot is None
        assert engine.pool.count(SlotState.FREE) == 1


@in_virtual_time
async def test_who_waits_until_the_grant_is_to_be_asked_for_again_comes_back_soon() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        asking = Asking(engine, visit=ending(5, Reason.LIFETIME))
        await asyncio.sleep(6)
        engine.pool.release(slot, engine.now())
        error = await asking.outcome()
        assert isinstance(error, PoolTimeout)
        assert b"retry: " in no_slot_reply(engine, error, DIALECT)[2]


@in_virtual_time
async def test_a_grant_that_runs_out_between_the_slot_and_the_stream_opens_none() -> None:
    async with pool_of() as engine:
        visit = ending(5)
        check_grant(engine, visit)
        await asyncio.sleep(5)
        with pytest.raises(TokenExpired):
            check_grant(engine, visit)


@in_virtual_time
async def test_a_grant_that_is_taken_back_while_its_client_waits_opens_no_stream() -> None:
    async with pool_of() as engine:
        visit = news(Grant(subject="u1"))
        check_grant(engine, visit)
        revoke(engine)
        with pytest.raises(Unauthorized, match="revoked"):
            check_grant(engine, visit)
        assert is_to_stay_away(engine, visit, engine.now())
        assert not is_to_stay_away(engine, news(Grant(subject="u2")), engine.now())


@in_virtual_time
async def test_a_waiter_that_alone_is_refused_is_told_that_its_grant_was_taken_back() -> None:
    async with pool_of() as engine:
        slot = take_slot(engine)
        asking = Asking(engine, visit=news(Grant(subject="u1")))
        await asyncio.sleep(1)
        engine.pool.refuse(engine.pool.waiting.first())
        error = await asking.outcome()
        assert type(error) is Unauthorized
        engine.pool.release(slot, engine.now())


@takes_sockets
@pytest.mark.parametrize("why", ["expired", "revoked"])
@in_virtual_time
async def test_no_socket_is_taken_for_a_grant_that_does_not_count_any_more(why: str) -> None:
    async with pool_of(detach=True) as engine:
        if why == "revoked":
            revoke(engine)
        visit = ending(0) if why == "expired" else news(Grant(subject="u1"))
        assert not admit_nowait(engine, visit, lambda: pytest.fail("it was taken"), lambda dialect: b"")
        assert engine.pool.count(SlotState.FREE) == 1


@pytest.mark.parametrize("on_full", ["wait", "reject"])
@in_virtual_time
async def test_a_grant_that_has_just_run_out_has_its_browser_come_back_later(on_full: Any) -> None:
    async with pool_of(on_full=on_full) as engine:
        retries = []
        for _ in range(20):
            status, headers, body = no_slot_reply(engine, EXPIRED, DIALECT)
            assert (status, headers) == (200, list(DIALECT.headers))
            assert b'{"reason":"token_expired"}' in body
            retries.append(int(body.partition(b"retry: ")[2].partition(b"\n")[0]))
        assert min(retries) >= 60_000
        assert max(retries) <= 120_000
        assert len(set(retries)) > 10


@in_virtual_time
async def test_a_grant_that_was_taken_back_ends_an_eventsource_for_good() -> None:
    async with pool_of() as engine:
        assert no_slot_reply(engine, REVOKED, DIALECT) == (204, [], b"")
        revoke(engine)
        assert farewell(engine, news(Grant(subject="u1"))) == (204, [], b"")


@in_virtual_time
async def test_who_was_told_its_place_is_told_why_it_gets_no_slot() -> None:
    async with pool_of() as engine:
        assert b'{"reason":"revoked"}' in last_words(engine, REVOKED, DIALECT)
        assert b'{"reason":"token_expired"}' in last_words(engine, EXPIRED, DIALECT)
        assert b'{"reason":"timed_out"}' in last_words(engine, PoolTimeout("late"), DIALECT)


# The term of a grant, on the clocks of the hub.


@in_virtual_time
async def test_what_a_grant_says_becomes_a_time_of_the_hubs_own_clock_once() -> None:
    wall = 1_700_000_000.0
    config = HubConfig(pool=PoolConfig(reap_interval=1.0), access=AccessConfig(max_grant_age=1800))
    async with running(config, now=now(), wall_clock=lambda: wall, chance=lambda: 0.0) as engine:
        began = now()()
        term = engine.term(Grant(subject="u1", expires_at=wall + 600), from_door=True)
        wall += 1e6  # the clock on the wall is set
        assert (term.ends_at, term.expires_at, term.reason) == (began + 599, began + 600, Reason.TOKEN_EXPIRED)


@pytest.mark.parametrize(
    ("grant", "from_door", "seconds", "reason"),
    [
        (Grant(subject="u1"), True, 1800, Reason.LIFETIME),
        (Grant(subject="u1"), False, NEVER, Reason.LIFETIME),
        (Grant(subject="u1", expires_at=600), False, 599, Reason.TOKEN_EXPIRED),
        (Grant(subject="u1", expires_at=86_400), False, 1800, Reason.LIFETIME),
        (Grant(subject="u1", expires_at=86_400), True, 1800, Reason.LIFETIME),
        (ANYBODY, True, NEVER, Reason.LIFETIME),
        (STRANGER, True, NEVER, Reason.LIFETIME),
    ],
)
@in_virtual_time
async def test_a_grant_of_the_door_is_asked_for_again(
    grant: Grant, from_door: bool, seconds: float, reason: Reason
) -> None:
    async with running(HubConfig(), now=now(), wall_clock=lambda: 0.0, chance=lambda: 0.0) as engine:
        term = engine.term(grant, from_door=from_door)
        assert (term.ends_at - now()(), term.reason) == (seconds, reason)
