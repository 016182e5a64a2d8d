"""What the hub itself puts on the wire: the head of a stream, and frames beside the events that are published."""

from __future__ import annotations

from typing import Any

import msgspec

from ssepool.core.event import comment, encode

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
"""No charset (one browser refuses all but utf-8), no Content-Length, and nothing for which a proxy holds data back."""

HEARTBEAT = comment("heartbeat")
"""One line, no blank line behind it: a blank line makes one popular client fire an empty message."""

COMPLETED_ID = "ssepool.completed"
"""The id of a finished generator's last frame. Who comes back with it has everything and is told to stay away."""


def own(type: str, data: Any, *, id: str | None = None, retry: int | None = None) -> bytes:
    """A frame of the type `ssepool.<type>`."""
    return encode(msgspec.json.encode(data).decode(), type=f"ssepool.{type}", id=id, retry=retry)


def opened(connection: str, token: str, node: str, *, retry: int) -> bytes:
    """The first event of each stream. Its `retry:`, in milliseconds, is what the client waits if the stream breaks
    without a goodbye: browsers of one kind would otherwise all come back in the same moment."""
    return own("open", {"connection": connection, "token": token, "node": node}, retry=retry)


def queued(position: int, waiting: int) -> bytes:
    return own("queued", {"position": position, "waiting": waiting})


def gap(requested: str | None, resumed: str | None, reason: str, **more: Any) -> bytes:
    """Something is missing here: what was asked for, the id at which delivery goes on (if one is known), and why."""
    return own("gap", {"requested": requested, "resumed": resumed, "reason": reason, **more})


def closed(reason: str, *, retry: int | None, id: str | None = None) -> bytes:
    """The last event of a stream that the hub ends. `retry` is in milliseconds."""
    return own("close", {"reason": reason}, id=id, retry=retry)
