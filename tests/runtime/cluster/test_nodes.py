"""Nodes: engines that share nothing but a side channel, and what each can have done with all connections and pools."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec import UNSET

from channel import Channel, Port, member, met
from channel import opened as opened_nodes
from parts import QUIET, connection_of, opened, running
from ssepool.config import HubConfig
from ssepool.core.audit import Entry
from ssepool.core.grant import Grant
from ssepool.core.pool import Pool
from ssepool.core.report import merged
from ssepool.core.states import PoolState, Reason
from ssepool.core.tickets import TICKET_SECONDS, Ticket
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.errors import BrokerError, ConfigError
from ssepool.runtime import engine as engine_module
from ssepool.runtime.admission.admission import is_to_stay_away
from ssepool.runtime.cluster.cluster import ANSWER_SECONDS
from ssepool.runtime.cluster.messages import FindConnections, KickAll, Message
from ssepool.runtime.cluster.nodes import MAX_ASKED_FOR_BANS, Nodes, share
from ssepool.runtime.connections import Connection
from virtual import in_virtual_time, now


class Site:
    """An engine and what makes it a node."""

    def __init__(self, engine: Any, channel: Channel) -> None:
        self.engine = engine
        self.pool: Pool = engine.pool
        self.name: str = engine.node
        self.cluster = member(engine.node, Port(channel), now=engine.now)
        self.nodes = Nodes(engine, self.cluster)

    async def client(self, name: str = "ann") -> Connection:
        link, _ = await opened(self.engine, visit_of(name))
        return connection_of(link)

    def keeps_away(self, name: str) -> bool:
        return is_to_stay_away(self.engine, visit_of(name), self.engine.now())


class Sites(list[Site]):
    """In the order of their names."""

    channel: Channel

    def silence(self, site: Site) -> None:
        """Have everybody take a node for one that is there, but lose all that it answers."""
        self.channel.fate = lambda message: () if is_answer(message, site.name) else (0.0,)


def is_answer(message: Message, name: str) -> bool:
    return (message.kind, message.sender) == ("answer", name)


def visit_of(user: str) -> Visit:
    return Visit(grant=Grant(subject=user), subscription=Subscription.of(["news"]), ip="127.0.0.1")


@contextlib.asynccontextmanager
async def sites(count: int = 2, *, workers: bool = False, **settings: Any) -> AsyncIterator[Sites]:
    """So many nodes that know each other; with `workers` they are those of one port. `settings` are those of the
    hub."""
    channel = Channel()
    config = HubConfig(pool=dataclasses.replace(QUIET, size=10), detach=False, **settings)
    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(running(config, now=now())) for _ in range(count)]
        found = Sites(Site(engine, channel) for engine in sorted(engines, key=lambda engine: engine.node))
        found.channel = channel
        for number, site in enumerate(found):
            if workers:
                site.cluster.work_as(count - 1 - number, "port")  # not in the order of their names
        clusters = [site.cluster for site in found]
        await stack.enter_async_context(opened_nodes(*clusters))
        await met(*clusters)
        yield found


# Connections.


@in_virtual_time
async def test_the_connections_of_all_nodes_are_listed_in_one_order() -> None:
    async with sites() as (a, b):
        ids = [(await site.client()).id for site in (b, a, b, a, b)]
        expected = sorted(ids, key=lambda id: id.split("-")[0])
        for site in (a, b):
            page, missing = await site.nodes.connections(FindConnections(10))
            assert ([found.id for found in page.connections], page.more, missing) == (expected, False, [])


@pytest.mark.parametrize("limit", range(1, 7))
@in_virtual_time
async def test_the_pages_of_all_nodes_follow_each_other(limit: int) -> None:
    async with sites() as (a, b):
        expected = [(await site.client()).id for site in (a, a, a, b, b)]
        for site in (a, b):
            seen: list[str] = []
            after, more = None, True
            while more:
                page, _ = await site.nodes.connections(FindConnections(limit, after=after))
                seen += [found.id for found in page.connections]
                node, slot, _ = seen[-1].split("-")
                after, more = (node, int(slot)), page.more
            assert seen == expected


@in_virtual_time
async def test_a_node_that_does_not_answer_is_named() -> None:
    async with sites(3) as found:
        a, b, c = found
        ids = [(await site.client()).id for site in found]
        found.silence(b)
        page, missing = await a.nodes.connections(FindConnections(10))
        assert ([each.id for each in page.connections], missing) == ([ids[0], ids[2]], [b.name])
        reports, gone = await c.nodes.reports()
        assert ([report.node for report in reports], gone) == ([c.name, a.name], [b.cluster.me])


@in_virtual_time
async def test_a_connection_is_described_by_whichever_node() -> None:
    async with sites() as (a, b):
        connection = await b.client("bob")
        for site in (a, b):
            found = await site.nodes.connection(connection.id)
            assert found is not None
            assert (found.id, found.user, found.state) == (connection.id, "bob", "open")


@in_virtual_time
async def test_a_client_is_kicked_from_whichever_node_and_kept_away_by_all() -> None:
    async with sites(3) as (a, b, c):
        for place, site in enumerate((a, b)):
            name = f"client {place}"
            connection = await a.client(name)
            assert await site.nodes.kick(connection.id, 30.0)
            await asyncio.sleep(0.1)
            assert not connection.is_open
            assert [each.keeps_away(name) for each in (a, b, c)] == [True] * 3
            assert not any(each.keeps_away("somebody else") for each in (a, b, c))
            await asyncio.sleep(30.0)
            assert not any(each.keeps_away(name) for each in (a, b, c))


@in_virtual_time
async def test_a_client_that_may_come_back_at_once_is_sent_away_all_the_same() -> None:
    async with sites() as found:
        a, b = found
        connection = await a.client()
        assert await b.nodes.kick(connection.id, 0)
        await asyncio.sleep(0.1)
        assert not connection.is_open
        assert found.channel.of_kind("ban") == []
        assert not a.keeps_away("ann")
        assert not b.keeps_away("ann")


@in_virtual_time
async def test_a_node_that_starts_keeps_away_whom_the_others_keep_away() -> None:
    async with sites() as (a, b):
        connection = await a.client("mallory")
        a.nodes.send_away(connection, 30.0)
        await asyncio.sleep(10.0)
        async with running(now=now()) as engine:
            new = Site(engine, a.cluster._channel.channel)  # type: ignore[union-attr]
            async with opened_nodes(new.cluster):
                await new.nodes.learn_bans()
                assert new.keeps_away("mallory")
                assert not new.keeps_away("ann")
                await asyncio.sleep(20.0)
                assert [site.keeps_away("mallory") for site in (a, b, new)] == [False] * 3


@in_virtual_time
async def test_only_some_nodes_are_asked_for_their_bans_and_each_alone() -> None:
    async with sites(6) as found:
        await found[0].nodes.learn_bans()
        asked = found.channel.of_kind("bans")
        assert len(asked) == len({message.to for message in asked}) == MAX_ASKED_FOR_BANS
        assert len(found.channel.of_kind("answer")) == MAX_ASKED_FOR_BANS


@pytest.mark.parametrize("trouble", ["nobody else", "no answer", "refused"])
@in_virtual_time
async def test_a_node_starts_without_the_bans_of_others_if_it_has_to(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sites(1 if trouble == "nobody else" else 2) as found:
        a = found[0]
        if trouble == "no answer":
            found.silence(found[1])
        elif trouble == "refused":
            a.cluster._channel.refuses = True  # type: ignore[union-attr]
        began = now()()
        await a.nodes.learn_bans()
        assert now()() - began <= ANSWER_SECONDS + 0.01
        assert len(caplog.messages) == (trouble != "nobody else")
        if trouble == "refused":
            a.cluster._channel.refuses = False  # type: ignore[union-attr]


@in_virtual_time
async def test_a_ban_without_end_is_told_to_all() -> None:
    async with sites() as (a, b):
        a.nodes.send_away(await a.client("mallory"), math.inf)
        await asyncio.sleep(0.1)
        assert b.keeps_away("mallory")


Call = Callable[[Nodes, str, Connection], Awaitable[Any]]

CALLS: dict[str, tuple[Call, Any]] = {
    "connection": (lambda nodes, id, _: nodes.connection(id), None),
    "kick": (lambda nodes, id, _: nodes.kick(id, 1.0), False),
    "receive": (lambda nodes, id, connection: nodes.receive(id, connection._home.token(id), "x"), "not_found"),
}


@pytest.mark.parametrize(("call", "nothing"), CALLS.values(), ids=CALLS)
@in_virtual_time
async def test_a_connection_that_is_not_there_is_not_found(call: Call, nothing: Any) -> None:
    async with sites() as (a, b):
        connection = await b.client()
        gone = await b.client()
        connection_id = gone.id
        gone._link.end(Reason.CLIENT_CLOSED)
        for id in (connection_id, f"{b.name}-7-0", f"{b.name}-x-0", "ffffffff-0-0", "", "-", b.name):
            for site in (a, b):
                assert await call(site.nodes, id, connection) == nothing
        assert connection.is_open


@pytest.mark.parametrize(("call", "nothing"), CALLS.values(), ids=CALLS)
@in_virtual_time
async def test_what_the_node_of_a_connection_does_not_answer_is_an_error(call: Call, nothing: Any) -> None:
    async with sites() as found:
        a, b = found
        connection = await b.client()
        found.silence(b)
        with pytest.raises(BrokerError, match=f"node {b.name} of connection {connection.id} did not answer"):
            await call(a.nodes, connection.id, connection)


@pytest.mark.parametrize(("call", "nothing"), CALLS.values(), ids=CALLS)
@in_virtual_time
async def test_while_the_broker_is_away_nobody_can_tell_whether_a_node_is_there(call: Call, nothing: Any) -> None:
    async with sites() as (a, b):
        here, there = await a.client("ann"), await b.client("bob")
        a.engine.log.trouble.meet("look", BrokerError("on purpose"))
        with pytest.raises(BrokerError, match="cannot be reached while the broker is away: on purpose"):
            await call(a.nodes, "ffffffff-0-0", here)
        with pytest.raises(BrokerError, match="on purpose"):
            a.nodes.expects("ffffffff-0-0", "token")
        # But those that are there are, and so is this one.
        assert await call(a.nodes, there.id, there) not in (nothing, "invalid_token")
        assert await call(a.nodes, here.id, here) not in (nothing, "invalid_token")


# A client's own data.

TOKENS: dict[str, tuple[Callable[[Connection], tuple[str, str]], str]] = {
    "all is well": (lambda it: (it.id, it.token), "accepted"),
    "another token": (lambda it: (it.id, it.token[::-1]), "invalid_token"),
    "no token": (lambda it: (it.id, ""), "invalid_token"),
    "a token that is no text": (lambda it: (it.id, "\ud800"), "invalid_token"),
    "another connection, there or not": (lambda it: (it.id + "0", it.token), "invalid_token"),
    "another node": (lambda it: ("f" * 8 + it.id, it.token), "not_found"),
}


@pytest.mark.parametrize(("given", "outcome"), TOKENS.values(), ids=TOKENS)
@in_virtual_time
async def test_a_clients_own_data_gets_to_the_hooks_of_its_node_alone(
    given: Callable[[Connection], tuple[str, str]], outcome: str
) -> None:
    async with sites() as found:
        a, b = found
        received: list[tuple[str, str, Any]] = []
        for site in found:
            site.engine.hooks.add("message", lambda conn, data, site=site: received.append((site.name, conn.id, data)))
        connection = await b.client()
        id, token = given(connection)
        assert b.nodes.expects(id, token) == outcome
        assert await b.nodes.receive(id, token, {"x": 1}) == outcome
        if token != "\ud800":  # which no message can carry
            # Another node knows only whether there is a node of that name.
            assert a.nodes.expects(id, token) == ("accepted" if id.startswith(b.name) else "not_found")
            assert await a.nodes.receive(id, token, {"x": 1}) == outcome
        assert received == ([(b.name, connection.id, {"x": 1})] * 2 if outcome == "accepted" else [])


@pytest.mark.parametrize(("given", "outcome"), TOKENS.values(), ids=TOKENS)
@in_virtual_time
async def test_with_a_key_that_nodes_share_a_wrong_token_goes_to_no_other_node(
    given: Callable[[Connection], tuple[str, str]], outcome: str
) -> None:
    async with sites(cluster_key="k") as found:
        a, b = found
        id, token = given(await b.client())
        known = "accepted" if outcome == "accepted" else "invalid_token"  # whether there is such a node or not
        assert a.nodes.expects(id, token) == known
        assert await a.nodes.receive(id, token, {"x": 1}) == known
        assert len(found.channel.of_kind("message")) == (outcome == "accepted")
        assert b.nodes.expects(id, token) == known


@in_virtual_time
async def test_data_says_that_its_client_is_there() -> None:
    async with sites() as (a, b):
        connection = await b.client()
        await asyncio.sleep(100.0)
        await a.nodes.receive(connection.id, connection.token, None)
        assert b.pool.slots[0].received_at == pytest.approx(b.engine.now())


@in_virtual_time
async def test_data_that_is_too_big_for_a_message_is_an_error() -> None:
    async with sites() as (a, b):
        connection = await b.client()
        big = "x" * 600_000
        with pytest.raises(BrokerError, match="exceeds"):
            await a.nodes.receive(connection.id, connection.token, big)
        assert await b.nodes.receive(connection.id, connection.token, big) == "accepted"


# Pools.


@in_virtual_time
async def test_reports_are_of_all_nodes_and_begin_with_this_one() -> None:
    async with sites(3) as (a, b, c):
        await b.client()
        for site, order in ((a, (a, b, c)), (b, (b, a, c)), (c, (c, a, b))):
            reports, missing = await site.nodes.reports()
            assert ([report.node for report in reports], missing) == ([each.name for each in order], [])
            assert {report.node: report.pool.open for report in reports} == {a.name: 0, b.name: 1, c.name: 0}
            assert all(report.cells is UNSET for report in reports)
        reports, _ = await a.nodes.reports(cells=True)
        assert [report.cells for report in reports] == ["f" * 10, "o" + "f" * 9, "f" * 10]


@in_virtual_time
async def test_a_report_says_which_process_it_is_of_and_how_it_stands_with_its_broker() -> None:
    async with sites(1) as (a,):
        await a.engine.publish_many([])
        ((report,), _) = await a.nodes.reports()
        me = a.cluster.me
        assert (report.node, report.host, report.pid, report.worker) == (a.name, me.host, me.pid, None)
        assert (report.broker.url, report.broker.behind, report.broker.failing) == ("memory://", 0, None)
        a.engine.log.trouble.meet("look", BrokerError("on purpose"))
        a.engine.log.bounds = a.engine.log.bounds._replace(newest=a.engine.log.position + 3)
        a.cluster._receive(b"of nobody")
        ((report,), _) = await a.nodes.reports()
        assert (report.broker.behind, report.broker.failing) == (3, "on purpose")
        assert report.broker.messages_dropped == 1


@in_virtual_time
async def test_a_node_that_is_alone_on_its_port_has_no_workers() -> None:
    async with sites() as (a, b):
        await a.client()
        await b.client()
        assert not a.nodes.are_workers
        here = await a.nodes.here()
        assert (here.node, here.pool.size, here.pool.open) == (a.name, 10, 1)
        assert (here.workers, here.missing) == ([], [])


@in_virtual_time
async def test_the_numbers_of_a_port_are_the_sums_of_its_workers() -> None:
    async with sites(3, workers=True) as found:
        a, b, c = found
        for site in (a, b, b):
            await site.client()
        for site in found:
            assert site.nodes.are_workers
            here = await site.nodes.here()
            assert [report.node for report in here.workers] == [c.name, b.name, a.name]  # by number
            assert [report.worker for report in here.workers] == [0, 1, 2]
            assert (here.pool.size, here.pool.open, here.missing) == (30, 3, [])
            assert here.bytes_sent == merged(here.workers).bytes_sent > 0
        found.silence(b)
        here = await a.nodes.here()
        assert (here.pool.size, here.pool.open, here.missing) == (20, 1, [b.cluster.me])


@in_virtual_time
async def test_a_group_is_the_workers_of_one_port_only() -> None:
    async with sites(3, workers=True) as found:
        a, b, c = found
        c.cluster.work_as(0, "another port")
        await asyncio.sleep(1.5)
        reports, _ = await a.nodes.reports(group=True)
        assert [report.node for report in reports] == [b.name, a.name]
        assert len((await a.nodes.reports())[0]) == 3


@pytest.mark.parametrize(("size", "shares"), [(3, [1, 1, 1]), (11, [4, 4, 3]), (30, [10] * 3), (100, [34, 33, 33])])
@in_virtual_time
async def test_a_new_size_is_shared_out_among_the_workers(size: int, shares: list[int]) -> None:
    async with sites(3, workers=True) as found:
        await found[0].nodes.resize(size)
        assert [len(site.pool.slots) for site in reversed(found)] == shares


@pytest.mark.parametrize(
    ("size", "message"), [(2, "3 workers take 3 at least"), (0, "PoolConfig.size"), (10**7, "PoolConfig.size")]
)
@in_virtual_time
async def test_a_size_that_will_not_do_changes_nothing(size: int, message: str) -> None:
    async with sites(3, workers=True) as found:
        with pytest.raises(ConfigError, match=message):
            await found[0].nodes.resize(size)
        assert [len(site.pool.slots) for site in found] == [10, 10, 10]


@in_virtual_time
async def test_each_worker_has_descriptors_for_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "max_clients", lambda: 12)
    async with sites(3, workers=True) as found:
        await found[0].nodes.resize(36)
        with pytest.raises(ConfigError, match="size = 13 is not allowed; the limit on open files leaves"):
            await found[0].nodes.resize(37)
        assert [len(site.pool.slots) for site in found] == [12, 12, 12]


@in_virtual_time
async def test_only_the_workers_of_this_port_are_resized_and_drained() -> None:
    async with sites() as (a, b):
        await a.nodes.resize(4)
        assert [len(site.pool.slots) for site in (a, b)] == [4, 10]
        await a.nodes.drain(0.0)
        assert [site.pool.state for site in (a, b)] == [PoolState.DRAINING, PoolState.OPEN]


@in_virtual_time
async def test_all_workers_are_drained_together() -> None:
    async with sites(3, workers=True) as found:
        clients = [await site.client() for site in found]
        await found[1].nodes.drain(20.0)
        assert [site.pool.state for site in found] == [PoolState.DRAINING] * 3
        assert all(client.is_open for client in clients)  # the reaper sends them away


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 256])
def test_shares_are_even_and_add_up(parts: int) -> None:
    for whole in (0, 1, parts - 1, parts, parts + 1, 1000, 10**6):
        shares = [share(whole, place, parts) for place in range(parts)]
        assert sum(shares) == whole
        assert max(shares) - min(shares) <= 1
        assert shares == sorted(shares, reverse=True)


# All of a user, a topic or an address.


@in_virtual_time
async def test_all_of_a_user_are_kicked_on_every_node_and_kept_away_there() -> None:
    async with sites(3) as found:
        clients = [await site.client(name) for site in found for name in ("ann", "bob", "ann")]
        assert await found[0].nodes.kick_all(KickAll(30.0, user="ann")) == (6, [])
        await asyncio.sleep(1)
        assert [connection.is_open for connection in clients] == [False, True, False] * 3
        assert [site.keeps_away("ann") for site in found] == [True] * 3
        assert [site.keeps_away("bob") for site in found] == [False] * 3


@in_virtual_time
async def test_a_kick_of_many_tells_the_others_once_whom_to_keep_away() -> None:
    async with sites(2) as found:
        one, other = found
        for number in range(8):
            await one.client(f"u{number}")
        assert await one.nodes.kick_all(KickAll(30.0, topic="news")) == (8, [])
        await asyncio.sleep(0.5)
        assert all(other.keeps_away(f"u{number}") for number in range(8))
        assert (len(found.channel.of_kind("new_bans")), len(found.channel.of_kind("ban"))) == (1, 0)


@in_virtual_time
async def test_a_node_that_does_not_answer_a_kick_is_named() -> None:
    async with sites(2) as found:
        found.silence(found[1])
        await found[0].client("ann")
        assert await found[0].nodes.kick_all(KickAll(0.0, ip="127.0.0.1")) == (1, [found[1].name])
        assert not found[0].keeps_away("ann")


# The audit trail.


@in_virtual_time
async def test_the_trail_of_all_workers_is_read_at_any() -> None:
    async with sites(2, workers=True) as found:
        for number, site in enumerate(found * 3):
            fields: dict[str, Any] = dict.fromkeys(("action", "method", "path"), "x")
            fields |= dict.fromkeys(("ip", "subject", "issuer", "token_id"))
            entry = Entry(time=float(number), parts={}, allowed=True, status=200, **fields)
            site.nodes.trail.add(entry, 0.0)
        for site in found:
            entries, missing = await site.nodes.audit(4)
            assert ([entry.time for entry in entries], missing) == ([5.0, 4.0, 3.0, 2.0], [])
        found.silence(found[1])
        entries, missing = await found[0].nodes.audit(4)
        assert ([entry.time for entry in entries], missing) == ([4.0, 2.0, 0.0], [found[1].name])


# Tickets.


TICKET = Ticket.of(Subscription.of(["news"]), Grant(subject="ann", subscribe=["news"], data={"n": 1}))


@in_virtual_time
async def test_a_ticket_counts_once_whichever_node_it_is_shown_to() -> None:
    async with sites(3) as (first, second, third):
        presented = first.nodes.issue(TICKET)
        assert await second.nodes.use(presented) == TICKET
        assert [await site.nodes.use(presented) for site in (first, second, third)] == [None] * 3


@in_virtual_time
async def test_a_ticket_that_is_shown_to_all_nodes_at_once_counts_once() -> None:
    async with sites(3) as found:
        presented = found[0].nodes.issue(TICKET)
        answers = await asyncio.gather(*(site.nodes.use(presented) for site in found for _ in range(3)))
        assert sorted(map(repr, answers)) == sorted(map(repr, [TICKET, *[None] * 8]))


@in_virtual_time
async def test_an_old_ticket_does_not_count_on_any_node() -> None:
    async with sites() as (first, second):
        presented = first.nodes.issue(TICKET)
        await asyncio.sleep(TICKET_SECONDS)
        assert await second.nodes.use(presented) is None


@in_virtual_time
async def test_a_ticket_of_a_node_that_has_gone_does_not_count() -> None:
    async with sites() as (first, _):
        assert await first.nodes.use("abcdef-x.y") is None
        assert await first.nodes.use("") is None


@in_virtual_time
async def test_of_a_ticket_that_was_made_up_no_other_node_is_asked() -> None:
    async with sites(cluster_key="a secret") as found:
        first, second = found
        presented = first.nodes.issue(TICKET)
        asked = []
        found.channel.fate = lambda message: asked.append(message.kind) or (0.0,)  # type: ignore[func-returns-value]
        assert await second.nodes.use(f"{first.name}-made-up.{'0' * 32}") is None
        assert asked == []
        assert await second.nodes.use(presented) == TICKET
        assert asked.count("ticket") == 1


@in_virtual_time
async def test_a_node_that_does_not_answer_is_no_verdict() -> None:
    async with sites() as found:
        first, second = found
        found.silence(first)
        with pytest.raises(BrokerError, match="did not answer"):
            await second.nodes.use(first.nodes.issue(TICKET))
