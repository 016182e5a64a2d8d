"""Nodes: what can be done with every connection and pool of the cluster, on whichever node it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from ssepool.core.audit import Entry, Trail, newest
from ssepool.core.bans import MAX_BAN_SECONDS, MAX_BANS
from ssepool.core.grant import Grant
from ssepool.core.report import BrokerReport, Node, NodeReport, PoolReport, merged
from ssepool.core.tickets import Ticket, Tickets
from ssepool.core.visit import Visit
from ssepool.errors import BrokerError, ConfigError, InvalidGrant
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.messages import (
    AskAudit,
    AskBans,
    AskReport,
    Ban,
    Bans,
    ConnectionInfo,
    DescribeConnection,
    Drain,
    FindConnections,
    Kick,
    KickAll,
    Outcome,
    Page,
    Question,
    Receive,
    Resize,
    UseTicket,
)
from ssepool.runtime.cluster.presence import MAX_PAGE_BYTES, all_of, describe, merge, page_of
from ssepool.runtime.cluster.topics import Topics
from ssepool.runtime.connections import Connection
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.slices import Slice

logger = logging.getLogger("ssepool")

MAX_ASKED_FOR_BANS = 3
"""Nodes that a new one asks whom they keep away: each should know all, but one of them may be new too."""

A = TypeVar("A")


class Nodes:
    """Does at once what concerns this node, and asks the others for the rest.

    Each method raises `BrokerError` if other nodes cannot be reached; where only some did not answer, it says which.
    """

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._tickets = Tickets()
        self.trail = Trail()
        """The last that operators did in this process, and that was refused."""
        self.topics = Topics(engine, cluster)
        """What there is to know of topics."""
        cluster.on(FindConnections, self._list_here)
        cluster.on(DescribeConnection, self._describe_here)
        cluster.on(Kick, self._kick_here)
        cluster.on(KickAll, self._kick_all_here)
        cluster.on(Ban, self._ban_here)
        cluster.on(Bans, self._learn_here)
        cluster.on(AskBans, self._bans_here)
        cluster.on(Receive, self._receive_here)
        cluster.on(UseTicket, self._use_here)
        cluster.on(AskReport, self._report_here)
        cluster.on(AskAudit, self._audit_here)
        cluster.on(Resize, self._resize_here)
        cluster.on(Drain, self._drain_here)

    # Connections.

    async def connections(self, wanted: FindConnections) -> tuple[Page, list[str]]:
        """The wanted connections of all nodes, in the order of their ids, and the nodes that did not answer."""
        others = [node.node for node in self._cluster.others]
        here, answers = await asyncio.gather(self._list_here(wanted), self._cluster.ask(wanted, nodes=others))
        missing = [node for node in others if node not in answers]
        return merge({**answers, self._engine.node: here}, wanted.limit), missing

    async def connection(self, id: str) -> ConnectionInfo | None:
        """What there is to know of one connection; None if it is not there."""
        return await self._where(id, DescribeConnection(id), self._describe_here)

    async def kick(self, id: str, seconds: float) -> bool:
        """Send a client away, and tell all nodes to keep it away for so long. False if it is not there."""
        kicked: bool | None = await self._where(id, Kick(id, seconds), self._kick_here)
        return bool(kicked)

    async def kick_all(self, order: KickAll) -> tuple[int, list[str]]:
        """Send all clients of a topic, a user and an address away, on all nodes, and keep them away: how many they
        were, and the nodes that did not answer."""
        others = [node.node for node in self._cluster.others]
        here, answers = await asyncio.gather(self._kick_all_here(order), self._cluster.ask(order, nodes=others))
        return here + sum(answers.values()), [node for node in others if node not in answers]

    def send_away(self, connection: Connection, seconds: float) -> None:
        """As `kick`, for a connection of this node. For 0 seconds it may come back at once."""
        if seconds > 0:
            seconds = min(seconds, MAX_BAN_SECONDS)
            fingerprint = connection.visit.fingerprint
            self._ban(fingerprint, seconds)
            self._cluster.spread(Ban(fingerprint, seconds))
        connection.close()

    async def learn_bans(self) -> None:
        """Keep away whom the other nodes keep away: for a node that has just been opened."""
        await self._cluster.meet_any()
        names = [node.node for node in self._cluster.others]
        asked = random.sample(names, min(len(names), MAX_ASKED_FOR_BANS))
        try:
            answers = await asyncio.gather(*(self._cluster.ask(AskBans(), nodes=[name]) for name in asked))
        except BrokerError as error:
            logger.warning("the other nodes could not be asked whom they keep away: %s", error)
            return
        for answer in answers:
            for left in answer.values():
                self._engine.bans.learn(left, self._engine.now())

    def expects(self, id: str, token: str) -> Outcome:
        """What will become of a client's own data, as far as that is known before it is there: `accepted` also where
        another node has to be asked. With a key that the nodes share a wrong token is known of all their connections.
        Without the token nobody learns whether the connection is there.
        """
        node = id.partition("-")[0]
        is_own = node == self._engine.node
        if (is_own or self._engine.knows_all_tokens) and not self._engine.connections.is_token(id, token):
            return "invalid_token"
        is_there = self._find(id) is not None if is_own else self._knows(node)
        return "accepted" if is_there else "not_found"

    async def receive(self, id: str, token: str, data: object) -> Outcome:
        """Hand a client's own data to the `on_message` hooks of its node.

        Data that is too big for a message between nodes raises `BrokerError`.
        """
        if (outcome := self.expects(id, token)) != "accepted":
            return outcome
        return await self._where(id, Receive(id, token, data), self._receive_here) or "not_found"

    # Tickets. Each is kept by the node that made it, and nowhere else: so it counts once, whoever else has seen it.

    def issue(self, ticket: Ticket) -> str:
        """What a client presents for this ticket, once, on any node. Raises `InvalidGrant` as `Tickets.add`."""
        name = f"{self._engine.node}-{secrets.token_urlsafe(18)}"
        self._tickets.add(name, ticket, self._engine.now())
        return f"{name}.{self._engine.connections.token(name)}"

    async def use(self, presented: str) -> Ticket | None:
        """The ticket that a client presents, which is used up then; None if it does not count (any more)."""
        name, _, token = presented.partition(".")
        is_own = name.partition("-")[0] == self._engine.node
        if (is_own or self._engine.knows_all_tokens) and not self._engine.connections.is_token(name, token):
            return None  # no other node is asked about what a stranger has made up
        return await self._where(name, UseTicket(name), self._use_here)

    # Pools.

    async def reports(self, *, group: bool = False, cells: bool = False) -> tuple[list[NodeReport], list[Node]]:
        """The numbers of all nodes, this one first, and the nodes that did not answer.

        With `group` only those of this one's workers, in their order; with `cells` also each slot's state as a letter.
        """
        known = self._cluster.group if group else self._cluster.others
        others = [node for node in known if node.node != self._engine.node]
        question = AskReport(cells)
        answers = await self._cluster.ask(question, nodes=[node.node for node in others])
        found = [await self._report_here(question), *answers.values()]
        if group:
            found.sort(key=lambda report: report.worker or 0)
        return found, [node for node in others if node.node not in answers]

    async def audit(self, limit: int) -> tuple[list[Entry], list[str]]:
        """The last of what operators did at all workers of this port, and of what these refused, the newest first; and
        the workers that did not answer."""
        others = [node for node in self._workers() if node != self._engine.node]
        answers = await self._cluster.ask(AskAudit(limit), nodes=others)
        found = [*self.trail.newest(limit), *(entry for answer in answers.values() for entry in answer)]
        return newest(found, limit), [node for node in others if node not in answers]

    async def here(self) -> PoolReport:
        """The numbers of this node: of its one process, or the sums of its workers and then each of them."""
        if not self.are_workers:
            window = await self._engine.log.indexed()
            return PoolReport.of(self._engine.stats(), topics=window.topics, workers=[], missing=[])
        workers, missing = await self.reports(group=True)
        sums = msgspec.structs.asdict(merged(workers))
        return PoolReport(**sums, workers=workers, missing=missing)

    async def resize(self, size: int) -> None:
        """Share a new number of slots out among the workers of this group. Raises `ConfigError`."""
        workers = self._workers()
        self._engine.config.pool.check_resize(size)
        if size < len(workers):
            raise ConfigError(f"size = {size} is not allowed; {len(workers)} workers take {len(workers)} at least")
        self._engine.check_size(share(size, 0, len(workers)))  # theirs are like this one's
        for place, node in enumerate(workers):
            order = Resize(share(size, place, len(workers)))
            if node == self._engine.node:
                await self._resize_here(order)
            else:
                await self._cluster.ask(order, nodes=[node])

    async def drain(self, seconds: float) -> None:
        """Drain this node with all its workers."""
        order = Drain(seconds)
        await self._drain_here(order)
        await self._cluster.ask(order, nodes=[node for node in self._workers() if node != self._engine.node])

    @property
    def are_workers(self) -> bool:
        """Whether this hub is one of several processes on one port."""
        return self._cluster.me.group is not None

    def _workers(self) -> list[str]:
        return [node.node for node in self._cluster.group]

    async def _where(self, id: str, question: Question[A], here: Callable[..., Awaitable[A]]) -> A | None:
        """Have something done by the node that a connection's id names; None if there is no such node."""
        node = id.partition("-")[0]
        if node == self._engine.node:
            return await here(question)
        if not self._knows(node):
            return None
        answers = await self._cluster.ask(question, nodes=[node])
        if node not in answers:
            raise BrokerError(f"node {node} of connection {id} did not answer")
        return answers[node]

    def _knows(self, node: str) -> bool:
        """Whether this is another node; while the broker is away nobody can tell."""
        failing = self._engine.log.failing
        if failing is not None and not self._cluster.knows(node):
            raise BrokerError(f"other nodes cannot be reached while the broker is away: {failing}")
        return self._cluster.knows(node)

    # What this node does for others.

    def _find(self, id: str) -> Connection | None:
        connection = self._engine.connections.find(id)
        return connection if connection is not None and connection.is_open else None

    async def _list_here(self, wanted: FindConnections) -> Page:
        return await page_of(self._engine.connections, wanted)

    async def _describe_here(self, question: DescribeConnection) -> ConnectionInfo | None:
        connection = self._find(question.id)
        return describe(connection) if connection is not None else None

    async def _kick_here(self, order: Kick) -> bool:
        connection = self._find(order.id)
        if connection is None:
            return False
        self.send_away(connection, order.seconds)
        return True

    async def _kick_all_here(self, order: KickAll) -> int:
        engine = self._engine
        if order.seconds > 0 and order.user is not None and order.topic is order.ip is None:
            # At once, or whoever comes back while the others are looked for would stay.
            with contextlib.suppress(InvalidGrant):  # nobody has such a name
                visit = Visit(grant=Grant(subject=order.user))
                engine.bans.learn([(visit.fingerprint, order.seconds)], engine.now())
        found = await all_of(engine.connections, order)
        bans: dict[str, float] = {}
        slice = Slice(engine.now)
        for connection in found if order.seconds > 0 else ():
            if slice.is_over:
                await slice.pause()
            if connection.is_open:
                bans[connection.visit.fingerprint] = order.seconds
        if bans:
            news = Bans(list(bans.items())[-MAX_BANS:])
            await self._learn_here(news)
            self._cluster.spread(news)
        return engine.connections.kick_all(found)

    async def _learn_here(self, news: Bans) -> None:
        self._engine.bans.learn(news.left, self._engine.now())

    async def _ban_here(self, order: Ban) -> None:
        self._ban(order.fingerprint, order.seconds)

    async def _bans_here(self, question: AskBans) -> list[tuple[str, float]]:
        return self._engine.bans.left(self._engine.now())

    def _ban(self, fingerprint: str, seconds: float) -> None:
        self._engine.bans.add(fingerprint, self._engine.now() + seconds)

    async def _receive_here(self, message: Receive) -> Outcome:
        if not self._engine.connections.is_token(message.id, message.token):
            return "invalid_token"
        connection = self._find(message.id)
        if connection is None:
            return "not_found"
        await self._engine.connections.receive(connection, message.data)
        return "accepted"

    async def _use_here(self, question: UseTicket) -> Ticket | None:
        return self._tickets.use(question.name, self._engine.now())

    async def _report_here(self, question: AskReport) -> NodeReport:
        engine, log, me = self._engine, self._engine.log, self._cluster.me
        topics = (await log.indexed()).topics
        broker = BrokerReport(
            url=log.broker.url,
            position=log.position,
            behind=max(0, log.bounds.newest - log.position),
            failing=None if log.failing is None else str(log.failing),
            messages_dropped=self._cluster.dropped,
            records_unread=log.unread.records,
        )
        cells = engine.pool.cells() if question.cells else msgspec.UNSET
        return NodeReport.of(
            engine.stats(), topics=topics, host=me.host, pid=me.pid, worker=me.worker, broker=broker, cells=cells
        )

    async def _audit_here(self, question: AskAudit) -> list[Entry]:
        found: list[Entry] = []
        room = MAX_PAGE_BYTES
        for entry in self.trail.newest(question.limit):
            room -= len(msgspec.json.encode(entry))
            if room < 0:
                break
            found.append(entry)
        return found

    async def _resize_here(self, order: Resize) -> bool:
        self._engine.resize(order.size)
        await self._engine.resized()
        return True

    async def _drain_here(self, order: Drain) -> bool:
        self._engine.pool.drain(self._engine.now(), order.seconds)
        return True


def share(whole: int, place: int, parts: int) -> int:
    """What falls to one of several parts that share a whole number as evenly as can be."""
    return whole // parts + (place < whole % parts)
