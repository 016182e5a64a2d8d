"""HubStats: what the hub says of itself, frozen at one moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ssepool.core.stats import PoolStats


@dataclass(frozen=True, slots=True)
class HubStats:
    """The pool's numbers and the hub's own; counters run since the hub was opened."""

    node: str
    pool: PoolStats
    events_published: int
    events_delivered: int
    """Events handed to sockets, one for each connection that got one."""
    events_skipped: int
    """Events that clients did not get because they were too slow."""
    bytes_sent: int
    feeds: int
    """Different subscriptions that are live now."""
    history_events: int
    history_bytes: int
    uptime: float
    """Seconds."""

    def report(self) -> dict[str, Any]:
        """The same as plain data, in the form of `GET /pool`."""
        return {
            "node": self.node,
            "pool": asdict(self.pool),
            "events": {
                "published": self.events_published,
                "delivered": self.events_delivered,
                "skipped": self.events_skipped,
            },
            "bytes_sent": self.bytes_sent,
            "feeds": self.feeds,
            "history": {"events": self.history_events, "bytes": self.history_bytes},
            "uptime": round(self.uptime, 3),
        }
