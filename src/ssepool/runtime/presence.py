"""Presence: who is connected, as others may know it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from ssepool.config import KiB

if TYPE_CHECKING:
    from ssepool.runtime.connection import Connection
    from ssepool.runtime.hub import Hub

SLICE = 250
"""Connections that are looked at in one go; other work of the event loop gets its turn in between."""

MOST_BYTES = 256 * KiB
"""Of a page, as JSON: it has to fit into a message to another node."""


class Wanted(msgspec.Struct):
    """Which connections a question is about, and how many are to be listed."""

    limit: int
    topic: str | None = None
    user: str | None = None
    ip: str | None = None
    state: str | None = None
    after: tuple[str, int] | None = None
    """Node and slot that come before those to be listed."""

    def covers(self, connection: Connection) -> bool:
        return (
            (self.state is None or connection.state == self.state)
            and (self.user is None or connection.user == self.user)
            and (self.ip is None or connection.ip == self.ip)
            and (self.topic is None or self.topic in connection.topics or self.topic in connection.patterns)
        )


class Page(msgspec.Struct):
    """Connections of one node, by slot."""

    connections: list[Any]
    more: bool = False


async def page_of(hub: Hub, wanted: Wanted) -> Page:
    """The wanted connections of this hub."""
    node, slot = wanted.after or ("", -1)
    if node > hub.node:
        return Page([])
    first = slot if node == hub.node else -1
    found: list[dict[str, Any]] = []
    size = 0
    for place, connection in enumerate(hub.connections):
        if place % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        if not connection.is_open or slot_of(connection.id) <= first or not wanted.covers(connection):
            continue
        described = describe(connection)
        size += len(msgspec.json.encode(described))
        if len(found) == wanted.limit or (found and size > MOST_BYTES):
            return Page(found, True)
        found.append(described)
    return Page(found)


def merge(pages: dict[str, Page], limit: int) -> Page:
    """The first of several nodes' pages, in the order of their names."""
    merged: list[Any] = []
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


def describe(connection: Connection) -> dict[str, Any]:
    """What others may know of a connection: everything but its token."""
    return {
        "id": connection.id,
        "state": connection.state,
        "user": connection.user,
        "ip": connection.ip,
        "topics": connection.topics,
        "patterns": connection.patterns,
        "data": _as_json(connection.data),
        "opened_at": connection.opened_at,
        "events_sent": connection.events_sent,
        "bytes_sent": connection.bytes_sent,
        "events_skipped": connection.events_skipped,
    }


def _as_json(data: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(data))
    except (TypeError, ValueError, RecursionError):
        # An application may keep whatever it likes on a connection.
        return msgspec.Raw(msgspec.json.encode(ascii(data)))
