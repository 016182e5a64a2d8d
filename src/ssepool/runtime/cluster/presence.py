"""Presence: who is connected, as others may know it."""

from __future__ import annotations

from typing import Any

import msgspec

from ssepool.config import KiB
from ssepool.runtime.cluster.messages import ConnectionInfo, FindConnections, KickAll, Page
from ssepool.runtime.connections import Connection, Connections
from ssepool.runtime.streams.slices import Slice

MAX_PAGE_BYTES = 256 * KiB
"""Bytes of a page, as JSON: it has to fit into a message to another node."""


async def all_of(connections: Connections, order: KickAll) -> list[Connection]:
    """The connections of this node whom an order is about; some may have left while others were looked for."""
    wanted = FindConnections(0, order.topic, order.user, order.ip)
    found: list[Connection] = []
    slice = Slice(connections.now)
    for connection in connections:
        if slice.is_over:
            await slice.pause()
        if connection.is_open and is_wanted(connection, wanted):
            found.append(connection)
    return found


async def page_of(connections: Connections, wanted: FindConnections) -> Page:
    """The wanted connections of this node."""
    node, slot = wanted.after or ("", -1)
    if node > connections.node:
        return Page([])
    first = slot if node == connections.node else -1
    found: list[ConnectionInfo] = []
    size = 0
    slice = Slice(connections.now)
    for connection in connections:
        if slice.is_over:
            await slice.pause()
        if not connection.is_open or slot_of(connection.id) <= first or not is_wanted(connection, wanted):
            continue
        described = describe(connection)
        size += len(msgspec.json.encode(described))
        if len(found) == wanted.limit or (found and size > MAX_PAGE_BYTES):
            return Page(found, True)
        found.append(described)
    return Page(found)


def is_wanted(connection: Connection, wanted: FindConnections) -> bool:
    """Whether a connection is among those asked for."""
    return (
        (wanted.state is None or connection.state == wanted.state)
        and (wanted.user is None or connection.user == wanted.user)
        and (wanted.ip is None or connection.ip == wanted.ip)
        and (wanted.topic is None or wanted.topic in connection.topics or wanted.topic in connection.patterns)
    )


def merge(pages: dict[str, Page], limit: int) -> Page:
    """The first of several nodes' pages, in the order of their names."""
    merged: list[ConnectionInfo] = []
    for node in sorted(pages):
        page = pages[node]
        room = limit - len(merged)
        merged += page.connections[:room]
        if page.more or len(page.connections) > room:
            return Page(merged, True)
    return Page(merged)


def slot_of(id: str) -> int:
    """The index of the slot that a connection's id names."""
    return int(id.split("-")[1])


def describe(connection: Connection) -> ConnectionInfo:
    """What others may know of a connection."""
    return ConnectionInfo(
        id=connection.id,
        state="open" if connection.state == "open" else "closing",
        user=connection.user,
        ip=connection.ip,
        topics=connection.topics,
        patterns=connection.patterns,
        data=_as_json(connection.data),
        opened_at=connection.opened_at,
        events_sent=connection.events_sent,
        bytes_sent=connection.bytes_sent,
        events_skipped=connection.events_skipped,
    )


def _as_json(data: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(data))
    except (TypeError, ValueError, RecursionError):
        # An application may keep whatever it likes on a connection.
        return msgspec.Raw(msgspec.json.encode(ascii(data)))
