"""PoolStats and HubStats: the numbers of the pool and of the hub, frozen at one moment.

The annotations of `PoolStats` are its JSON Schema too: it is a part of every report (`core/report.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from ssepool.core.states import PoolState, Reason

Count = Annotated[int, Meta(ge=0)]
"""A number of things."""
Seconds = Annotated[float, Meta(ge=0)]
"""A length of time."""

_STATES = {"enum": [state.value for state in PoolState]}
_REASONS = {
    "required": [reason.value for reason in Reason],
    "properties": {reason.value: {"type": "integer", "minimum": 0} for reason in Reason},
}


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Gauges first, then counters since the pool was made; `free + reserved + open + closing == size` always."""

    state: Annotated[str, Meta(description="The state of the pool.", extra_json_schema=_STATES)]
    size: Annotated[Count, Meta(description="Slots that exist. While a pool shrinks this falls as clients leave.")]
    free: Annotated[Count, Meta(description="Slots without a client.")]
    reserved: Annotated[Count, Meta(description="Slots whose stream is about to open.")]
    open: Annotated[Count, Meta(description="Slots with an open stream.")]
    closing: Annotated[Count, Meta(description="Slots whose stream is being ended.")]
    waiting: Annotated[Count, Meta(description="Requests in the waiting queue, the living only.")]
    max_waiting: Annotated[Count, Meta(description="Requests that the waiting queue takes.")]
    requests: Annotated[Count, Meta(description="Requests for a slot, however they ended.")]
    queued: Annotated[Count, Meta(description="Requests that had to wait.")]
    granted: Annotated[Count, Meta(description="Requests that got a slot, at once or after waiting.")]
    timed_out: Annotated[Count, Meta(description="Waiters for which no slot came free in time.")]
    cancelled: Annotated[Count, Meta(description="Waiters whose client left.")]
    refused: Annotated[
        Count,
        Meta(
            description="Requests turned away: queue full, a limit, or the pool not open (waiters too, when it drains "
            "or closes)."
        ),
    ]
    wait_seconds: Annotated[Seconds, Meta(description="Seconds that granted requests have waited, summed.")]
    open_seconds: Annotated[Seconds, Meta(description="Seconds that released connections had been open, summed.")]
    released: Annotated[
        dict[str, Count],
        Meta(description="Slots freed, by reason; every reason is present.", extra_json_schema=_REASONS),
    ]


@dataclass(frozen=True, slots=True)
class HubStats:
    """The pool's numbers and the hub's own; counters run since the hub was opened."""

    node: str
    """The name of this process in its connections' ids."""
    pool: PoolStats
    """The numbers of the pool."""
    events_published: int
    """Events that reached this process, whoever published them."""
    events_delivered: int
    """Events handed to sockets, one for each connection that got one."""
    events_skipped: int
    """Events that clients did not get because they were too slow."""
    bytes_sent: int
    """Bytes handed to sockets."""
    feeds: int
    """Different subscriptions that are live now."""
    history_events: int
    """Events at hand for replay."""
    history_bytes: int
    """Bytes of memory that they take."""
    uptime: float
    """Seconds since the hub was opened."""
    rate_refused: dict[str, int] = field(default_factory=dict)
    """Requests turned away because their address exceeded a rate, by rate: subscribe, publish, message, failure."""
    history_dropped: dict[str, int] = field(default_factory=dict)
    """Events that are kept no longer, by reason: age, events, bytes, topic, replaced, live_only."""
