"""Frames: what the hub itself puts on the wire, beside the events that are published."""

from __future__ import annotations

from typing import Any

import msgspec

from ssepool.core.event import comment, encode

COMPLETED_ID = "ssepool.completed"
"""The id of a finished run's last frame. A client that comes back with it has everything and is told to stay away."""


class Dialect:
    """How the hub speaks to one client: the head of its stream, and every frame that no publisher wrote.

    All ways to a client ask the dialect of its `Visit`, so another dialect is a subclass and nothing else. `retry` is
    in milliseconds everywhere.
    """

    headers: tuple[tuple[bytes, bytes], ...] = (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"incremental", b"?1"),
        (b"x-content-type-options", b"nosniff"),
    )
    """`Incremental` asks proxies to pass each part on as it comes (RFC 10036).

    No charset (one browser refuses all but utf-8), no Content-Length, and nothing for which a proxy holds data back.
    """

    heartbeat = comment("heartbeat")
    """One line, no blank line behind it: a blank line makes one popular client fire an empty message."""

    def opened(self, connection: str, token: str, node: str, *, retry: int) -> bytes:
        """The first event of each stream. Its `retry` is what the client waits if the stream breaks without a goodbye:
        browsers of one kind would otherwise all come back in the same moment."""
        return _own("open", {"connection": connection, "token": token, "node": node}, retry=retry)

    def queued(self, position: int, waiting: int) -> bytes:
        """The client's place in the waiting queue, from 1 on, and how many wait in all."""
        return _own("queued", {"position": position, "waiting": waiting})

    def gap(self, requested: str | None, resumed: str | None, reason: str, **more: Any) -> bytes:
        """Something is missing here: the id that was asked for, the id at which delivery goes on (None if that is not
        known), and the reason."""
        return _own("gap", {"requested": requested, "resumed": resumed, "reason": reason, **more})

    def expiring(self, seconds: int) -> bytes:
        """The client's grant runs out in so many seconds: it is time to renew what it presents."""
        return _own("expiring", {"seconds": seconds})

    def closed(self, reason: str, *, retry: int | None, id: str | None = None) -> bytes:
        """The last event of a stream that the hub ends."""
        return _own("close", {"reason": reason}, id=id, retry=retry)


DIALECT = Dialect()
"""The hub's own dialect: events whose types begin with `ssepool.`."""


def jittered(seconds: float, chance: float) -> int:
    """Milliseconds for a `retry:` line: `seconds`, and up to as much again by `chance` (a number from 0 to 1), so that
    clients that were sent away together do not come back together."""
    return int(seconds * 1000 * (1 + chance))


def _own(type: str, data: Any, *, id: str | None = None, retry: int | None = None) -> bytes:
    return encode(msgspec.json.encode(data).decode(), type=f"ssepool.{type}", id=id, retry=retry)
