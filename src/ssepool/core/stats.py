"""PoolStats and HubStats: what the pool and the hub say of themselves, frozen at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Gauges first, then counters since the pool was made; `free + reserved + open + closing == size` always."""

    state: str
    """new, open, draining or closed."""
    size: int
    """Slots that exist. While a pool shrinks this falls as clients leave."""
    free: int
    """Slots without a client."""
    reserved: int
    """Slots whose client's stream has not opened."""
    open: int
    """Slots whose client's stream is open."""
    closing: int
    """Slots whose client is being sent away."""
    waiting: int
    """Requests in the waiting queue, the living only."""
    max_waiting: int
    """Requests that may wait."""
    requests: int
    """Requests for a slot, however they ended."""
    queued: int
    """Requests that had to wait."""
    granted: int
    """Requests that got a slot, at once or after waiting."""
    timed_out: int
    """Waiters whose time was up."""
    cancelled: int
    """Waiters whose client left."""
    refused: int
    """Requests turned away: queue full, a limit, or the pool not open (waiters too, when it drains or closes)."""
    wait_seconds: float
    """Seconds that granted requests have waited, summed."""
    open_seconds: float
    """Seconds that released connections had been open, summed."""
    released: dict[str, int]
    """Slots freed, by reason; every reason is present."""


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
    """Their bytes."""
    uptime: float
    """Seconds since the hub was opened."""
