"""HubStats: what the hub says of itself, frozen at one moment."""

from __future__ import annotations

from collections.abc import Sequence
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


PER_NODE = ("host", "pid", "worker", "broker")
"""What a report of one process says that has no sum."""

ALIKE = ("node", "uptime", "history", "published")
"""What the first of several processes says for all: each sees every event."""


def merged(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report of several processes together: their numbers summed."""
    return {name: _together(name, [report[name] for report in reports]) for name in reports[0] if name not in PER_NODE}


def _together(name: str, values: list[Any]) -> Any:
    if name in ALIKE:
        return values[0]
    if name == "state":  # a pool of several is open as long as one of them is
        return "open" if "open" in values else values[0]
    if isinstance(values[0], dict):
        return {key: _together(key, [value[key] for value in values]) for key in values[0]}
    return "".join(values) if isinstance(values[0], str) else sum(values)
