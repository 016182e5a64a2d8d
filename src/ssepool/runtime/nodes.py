"""Nodes: what can be done with every connection and pool of the cluster, on whichever node it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from ssepool.config import PoolConfig
from ssepool.errors import BrokerError, ConfigError
from ssepool.runtime.cluster import Node
from ssepool.runtime.presence import Page, Wanted, describe, merge, page_of
from ssepool.runtime.stats import merged

if TYPE_CHECKING:
    from ssepool.runtime.cluster import Cluster
    from ssepool.runtime.connection import Connection
    from ssepool.runtime.hub import Hub


class Nodes:
    """Does at once what concerns this node, and asks the others for the rest.

    Each method raises `BrokerError` if other nodes cannot be reached; where only some did not answer, it says which.
    """

    def __init__(self, hub: Hub, cluster: Cluster) -> None:
        self._hub = hub
        self._cluster = cluster
        for kind, handler in (
            ("connections", self._list_here),
            ("connection", self._describe_here),
            ("kick", self._kick_here),
            ("ban", self._ban_here),
            ("message", self._receive_here),
            ("report", self._report_here),
            ("resize", self._resize_here),
            ("drain", self._drain_here),
        ):
            cluster.on(kind, handler)

    # Connections.

    async def connections(self, wanted: Wanted) -> tuple[Page, list[str]]:
        """The wanted connections of all nodes, in the order of their ids, and the nodes that did not answer."""
        others = [node.node for node in self._cluster.others]
        here, answers = await asyncio.gather(
            page_of(self._hub, wanted), self._cluster.ask("connections", wanted, nodes=others)
        )
        pages = {node: msgspec.convert(page, Page) for node, page in answers.items()}
        return merge({**pages, self._hub.node: here}, wanted.limit), [node for node in others if node not in answers]

    def may_have(self, id: str) -> bool:
        """Whether there is a node that could have this connection."""
        node = id.partition("-")[0]
        return self._knows(node) if node != self._hub.node else self._find({"id": id}) is not None

    async def connection(self, id: str) -> dict[str, Any] | None:
        """What there is to know of one connection; None if it is not there."""
        found: dict[str, Any] | None = await self._where(id, "connection", {"id": id}, self._describe_here)
        return found

    async def kick(self, id: str, seconds: float) -> bool:
        """Send a client away, and tell all nodes to keep it away for so long. False if it is not there."""
        return bool(await self._where(id, "kick", {"id": id, "seconds": seconds}, self._kick_here))

    async def receive(self, id: str, token: str, data: Any) -> str:
        """Hand a client's own data to the `on_message` hooks of its node: `accepted`, `invalid_token` or `not_found`.

        Data that is too big for a message between nodes raises `BrokerError`.
        """
        body = {"id": id, "token": token, "data": data}
        return await self._where(id, "message", body, self._receive_here) or "not_found"

    # Pools.

    async def reports(self, *, group: bool = False, cells: bool = False) -> tuple[list[dict[str, Any]], list[Node]]:
        """The numbers of all nodes, this one first, and who did not answer.

        With `group` only those of this one's workers, in their order; with `cells` also each slot's state as a letter.
        """
        known = self._cluster.group if group else self._cluster.others
        others = [node for node in known if node.node != self._hub.node]
        answers = await self._cluster.ask("report", cells, nodes=[node.node for node in others])
        found = [await self._report_here(cells), *answers.values()]
        if group:
            found.sort(key=lambda report: report["worker"] or 0)
        return found, [node for node in others if node.node not in answers]

    async def here(self) -> dict[str, Any]:
        """The numbers of this node: of its one process, or the sums of its workers and then each of them."""
        if self._cluster.me.group is None:
            return {**self._hub.stats().report(), "workers": [], "missing": []}
        workers, missing = await self.reports(group=True)
        return {**merged(workers), "workers": workers, "missing": missing}

    async def resize(self, size: int) -> None:
        """Share a new number of slots out among the workers of this group. Raises `ConfigError`."""
        workers = self._workers()
        PoolConfig(size=size)
        if size < len(workers):
            raise ConfigError(f"size = {size} is not allowed; {len(workers)} workers take {len(workers)} at least")
        shares = [share(size, place, len(workers)) for place in range(len(workers))]
        for node, slots in zip(workers, shares, strict=True):
            if node == self._hub.node:
                self._hub.resize(slots)
            else:
                await self._cluster.ask("resize", slots, nodes=[node])

    async def drain(self, seconds: float) -> None:
        """Drain this node with all its workers."""
        self._hub.drain(seconds)
        await self._cluster.ask("drain", seconds, nodes=[node for node in self._workers() if node != self._hub.node])

    @property
    def are_workers(self) -> bool:
        """Whether this hub is one of several processes on one port."""
        return self._cluster.me.group is not None

    def _workers(self) -> list[str]:
        return [node.node for node in self._cluster.group]

    async def _where(self, id: str, kind: str, body: dict[str, Any], here: Any) -> Any:
        """Have something done by the node that a connection's id names."""
        node = id.partition("-")[0]
        if node == self._hub.node:
            return await here(body)
        if not self._knows(node):
            return None
        answers = await self._cluster.ask(kind, body, nodes=[node])
        if node not in answers:
            raise BrokerError(f"node {node} of connection {id} did not answer")
        return answers[node]

    def _knows(self, node: str) -> bool:
        """Whether this is another node; while the broker is away nobody can tell."""
        failing = self._hub.log.failing
        if failing is not None and not self._cluster.knows(node):
            raise BrokerError(f"other nodes cannot be reached while the broker is away: {failing}")
        return self._cluster.knows(node)

    # What this node does for others.

    def _find(self, body: dict[str, Any]) -> Connection | None:
        connection = self._hub.connection(body["id"])
        return connection if connection is not None and connection.is_open else None

    async def _list_here(self, body: Any) -> Page:
        return await page_of(self._hub, msgspec.convert(body, Wanted))

    async def _describe_here(self, body: dict[str, Any]) -> dict[str, Any] | None:
        connection = self._find(body)
        return describe(connection) if connection is not None else None

    async def _kick_here(self, body: dict[str, Any]) -> bool:
        connection = self._find(body)
        if connection is None:
            return False
        self._hub.kick(connection, body["seconds"])
        return True

    async def _ban_here(self, body: dict[str, Any]) -> None:
        self._hub.bans.add(body["likeness"], self._hub.now() + body["seconds"])

    async def _receive_here(self, body: dict[str, Any]) -> str:
        connection = self._find(body)
        if connection is None:
            return "not_found"
        if not connection.accepts(body["token"]):
            return "invalid_token"
        await self._hub.receive(connection, body["data"])
        return "accepted"

    async def _report_here(self, body: bool) -> dict[str, Any]:
        hub, me = self._hub, self._cluster.me
        failing = hub.log.failing
        return {
            **hub.stats().report(),
            **({"cells": hub.pool.cells()} if body else {}),
            "host": me.host,
            "pid": me.pid,
            "worker": me.worker,
            "broker": {
                "url": hub.broker.url,
                "position": hub.log.position,
                "behind": max(0, hub.log.bounds.newest - hub.log.position),
                "failing": None if failing is None else str(failing),
            },
        }

    async def _resize_here(self, body: int) -> bool:
        self._hub.resize(body)
        return True

    async def _drain_here(self, body: float) -> bool:
        self._hub.drain(body)
        return True


def share(whole: int, place: int, parts: int) -> int:
    """What falls to one of several parts that share a whole number as evenly as can be."""
    return whole // parts + (place < whole % parts)
