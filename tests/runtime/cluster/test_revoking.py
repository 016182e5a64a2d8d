"""Revoking: streams end on all nodes, waiters are refused, and nothing is forgotten when nodes start anew."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from channel import Channel, Port, member, met
from channel import opened as opened_nodes
from parts import QUIET, Paper, connection_of, opened, running
from scripted_broker import Scripted
from ssepool.brokers.base import Fact
from ssepool.config import HubConfig
from ssepool.core.grant import Grant
from ssepool.core.revocations import MIN_KEPT_SECONDS, Revocation
from ssepool.core.states import WaiterState
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.errors import BrokerError, RevocationsFull
from ssepool.runtime.admission.admission import farewell, welcome
from ssepool.runtime.cluster import revoking as revoking_module
from ssepool.runtime.cluster.revoking import FACT, LOOK_SECONDS, Revoking
from ssepool.runtime.connections import Connection
from virtual import in_virtual_time, now

WALL = 1_700_000_000.0


class Site:
    """An engine and what makes it a node that can revoke."""

    def __init__(self, engine: Any, channel: Channel) -> None:
        self.engine = engine
        self.port = Port(channel)
        self.cluster = member(engine.node, self.port, now=engine.now)
        self.revoking = Revoking(engine, self.cluster)

    async def client(self, subject: str = "u1", **grant: Any) -> tuple[Connection, Paper]:
        link, _ = await opened(self.engine, visit_of(subject, **grant))
        return connection_of(link), link

    async def revoke(self, **given: Any) -> Revocation:
        return await self.revoking.revoke(revocation(self.engine.wall_clock(), **given))


def revocation(at: float, **given: Any) -> Revocation:
    fields: dict[str, Any] = {"subject": None, "issuer": None, "token_id": None, "issued_before": None, "now": at}
    return Revocation.of(**{"max_token_age": 3600.0, **fields, **given})


def visit_of(subject: str, **grant: Any) -> Visit:
    return Visit(grant=Grant(subject=subject, **grant), subscription=Subscription.of(["news"]), ip="127.0.0.1")


@contextlib.asynccontextmanager
async def sites(count: int = 2, broker: Scripted | None = None) -> AsyncIterator[list[Site]]:
    """So many nodes of one broker that know each other."""
    channel = Channel()
    config = HubConfig(pool=dataclasses.replace(QUIET, size=3), detach=False)
    broker = broker or Scripted(config)
    clock = now()
    began = clock()
    async with contextlib.AsyncExitStack() as stack:
        options = {"broker": broker, "now": clock, "wall_clock": lambda: WALL + clock() - began}
        engines = [await stack.enter_async_context(running(config, **options)) for _ in range(count)]
        found = [Site(engine, channel) for engine in engines]
        await stack.enter_async_context(opened_nodes(*(site.cluster for site in found)))
        await met(*(site.cluster for site in found))
        for site in found:
            await site.revoking.open()
            stack.push_async_callback(site.revoking.close)
        yield found


@in_virtual_time
async def test_the_streams_of_a_user_end_on_all_nodes_and_those_of_others_go_on() -> None:
    async with sites() as (a, b):
        gone = [await site.client("u1", issued_at=WALL - 5) for site in (a, b, b)]
        other, other_link = await a.client("u2", issued_at=WALL - 5)
        await a.revoke(subject="u1")
        await asyncio.sleep(1)
        assert [connection.is_open for connection, _ in gone] == [False] * 3
        for _, link in gone:
            goodbye = link.written.partition(b"event: ssepool.close\n")[2]
            assert goodbye.startswith(b"retry: ")
            assert b'data: {"reason":"revoked"}' in goodbye
        assert other.is_open
        assert b"ssepool.close" not in other_link.written
        assert a.engine.pool.stats().released["revoked"] == 1
        assert b.engine.pool.stats().released["revoked"] == 2


@in_virtual_time
async def test_who_logs_in_again_stays() -> None:
    async with sites() as (a, b):
        before, _ = await b.client("u1", issued_at=WALL - 5)
        await asyncio.sleep(10)
        await a.revoke(subject="u1", issued_before=WALL + 10)
        after, _ = await b.client("u1", issued_at=WALL + 10)
        await asyncio.sleep(1)
        assert (before.is_open, after.is_open) == (False, True)
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert after.is_open


@in_virtual_time
async def test_waiters_are_refused_at_once() -> None:
    async with sites(1) as [site]:
        for _ in range(3):
            await site.client("u2")
        waits = [Waiting(site, "u1"), Waiting(site, "u2")]
        await site.revoke(subject="u1")
        await asyncio.sleep(1)
        assert [waiting.outcome for waiting in waits] == [WaiterState.REFUSED, None]


class Waiting:
    """Somebody in the queue."""

    def __init__(self, site: Site, subject: str) -> None:
        self.outcome: WaiterState | None = None
        site.engine.pool.acquire(site.engine.now(), self, grant=Grant(subject=subject))

    def granted(self, slot: Any) -> bool:
        raise AssertionError("no slot is free")

    def failed(self, outcome: WaiterState) -> None:
        self.outcome = outcome

    def announce(self, position: int, waiting: int, now: float) -> None:
        pass


@in_virtual_time
async def test_a_stream_that_opens_meanwhile_ends_at_once() -> None:
    async with sites(1) as [site]:
        link = Paper(site.engine.links)
        slot = site.engine.pool.acquire(site.engine.now(), None)
        site.engine.connections.bind(slot, link, visit_of("u1"))
        await site.revoke(subject="u1")
        await asyncio.sleep(1)
        assert not link.ended
        await welcome(site.engine, connection_of(link), link, visit_of("u1"))
        assert b'{"reason":"revoked"}' in link.written
        assert b"ssepool.open" not in link.written
        assert link.ended


@in_virtual_time
async def test_a_lost_message_is_made_up_for_by_a_look_at_the_broker() -> None:
    async with sites() as (a, b):
        client, _ = await b.client("u1")
        a.port.channel.fate = lambda message: () if message.kind == "revoke" else (0.0,)
        await a.revoke(subject="u1")
        await asyncio.sleep(LOOK_SECONDS + 1)
        assert not client.is_open


@in_virtual_time
async def test_a_node_that_starts_later_knows_also_after_all_have_stopped() -> None:
    broker = Scripted(HubConfig())
    async with sites(2, broker) as (a, _):
        await a.revoke(subject="u1")
        await a.revoke(token_id="t1")
    async with sites(1, broker) as [later]:
        for visit in (visit_of("u1"), visit_of("u9", token_id="t1")):
            reply = farewell(later.engine, visit)
            assert reply is not None
            assert reply[0] == 204
        assert farewell(later.engine, visit_of("u2")) is None


@in_virtual_time
async def test_a_node_does_not_open_without_knowing() -> None:
    broker = Scripted(HubConfig())
    async with sites(1, broker) as [site]:
        late = Revoking(site.engine, site.cluster)
        broker.broken = "away on purpose"
        with pytest.raises(BrokerError, match="away on purpose"):
            await late.open()
        broker.broken = None


@in_virtual_time
async def test_what_the_broker_does_not_keep_holds_here_and_is_said() -> None:
    broker = Scripted(HubConfig())
    async with sites(1, broker) as [site]:
        client, _ = await site.client("u1")
        broker.broken = "away on purpose"
        with pytest.raises(BrokerError, match=r"^away on purpose; it holds on this node alone, .*: revoke again$"):
            await site.revoke(subject="u1")
        await asyncio.sleep(1)
        assert not client.is_open
        broker.broken = None
        await site.revoke(subject="u1")
        assert [fact.name.startswith(FACT) for fact in broker.facts] == [True]


@in_virtual_time
async def test_a_broker_that_hangs_is_waited_for_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Scripted(HubConfig())
    async with sites(1, broker) as [site]:

        async def hang(*given: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(broker, "keep", hang)
        began = now()()
        with pytest.raises(BrokerError, match=r"did not answer in 5 s; it holds on this node alone"):
            await site.revoke(subject="u1")
        assert now()() - began == pytest.approx(5)


@in_virtual_time
async def test_it_is_kept_for_as_long_as_a_token_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Scripted(HubConfig())
    kept: list[float] = []

    async def keep(name: str, data: bytes, seconds: float) -> None:
        kept.append(seconds)

    monkeypatch.setattr(broker, "keep", keep)
    async with sites(1, broker) as [site]:
        await site.revoke(subject="u1")
    assert kept == [pytest.approx(MIN_KEPT_SECONDS)]


@in_virtual_time
async def test_a_fact_that_cannot_be_read_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broker = Scripted(HubConfig())
    good = revocation(WALL, subject="u1")
    broker.facts = [
        Fact(FACT + "a", 1, b"no json"),
        Fact("something-else", 2, b"no json either"),
        Fact(FACT + good.id, 3, msgspec.json.encode(good)),
    ]
    async with sites(1, broker) as [site]:
        assert list(site.engine.revocations) == [good]
    assert len([line for line in caplog.messages if "cannot be read, and does not hold" in line]) == 1


@in_virtual_time
async def test_many_at_once_are_one_look_at_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    end_all = Revoking._end_all
    monkeypatch.setattr(Revoking, "_end_all", lambda self: looks.append(1) or end_all(self))
    async with sites(1) as [site]:
        clients = [await site.client(f"u{number}") for number in range(3)]
        for number in range(100):
            await site.revoke(subject=f"u{number}")
        await asyncio.sleep(1)
        assert not any(connection.is_open for connection, _ in clients)
    assert len(looks) == 1


@in_virtual_time
async def test_beyond_the_bound_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoking_module, "MAX_REVOCATIONS", 2)
    broker = Scripted(HubConfig())
    async with sites(1, broker) as [site]:
        await site.revoke(subject="u1")
        await site.revoke(subject="u2")
        with pytest.raises(RevocationsFull):
            await site.revoke(subject="u3")
        assert len(broker.facts) == len(site.engine.revocations) == 2
