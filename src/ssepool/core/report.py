"""Report: the numbers of one process as others are told them, and what several processes have together.

`GET /pool`, `GET /cluster`, the metrics, the live topic `ssepool/pool`, the command line and the OpenAPI document are
all made of the structs in this file: a number that is added here shows in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ssepool.core.states import PoolState
from ssepool.core.stats import HubStats, PoolStats

Count = Annotated[int, Meta(ge=0)]
"""A number that never falls below 0."""
Seconds = Annotated[float, Meta(ge=0)]
"""A time in seconds."""


class EventCounts(msgspec.Struct, frozen=True):
    """Events since the hub was opened."""

    published: Count
    """By whichever process."""
    delivered: Count
    """Written to connections, one for each connection that got one."""
    skipped: Count
    """Not given to connections that were too slow."""


class HistorySize(msgspec.Struct, frozen=True):
    """What is at hand for replay."""

    events: Count
    """How many."""
    bytes: Count
    """Bytes of their frames."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one process, or of several together."""

    node: str
    """The process's name in its connections' ids; of several, the first one's."""
    pool: PoolStats
    """The numbers of the pool."""
    events: EventCounts
    """What became of events."""
    bytes_sent: Count
    """Bytes written to connections."""
    feeds: Count
    """Subscriptions that differ: each has one feed."""
    history: HistorySize
    """What is at hand for replay."""
    uptime: Seconds
    """Seconds since the hub was opened."""
    cells: str | UnsetType = UNSET
    """The state of each slot as a letter, in the order of the slots; only for whoever asks for it."""

    @classmethod
    def of(cls, stats: HubStats, **more: Any) -> Self:
        """The report of one process; `more` are the fields of a subclass."""
        return cls(
            node=stats.node,
            pool=stats.pool,
            events=EventCounts(stats.events_published, stats.events_delivered, stats.events_skipped),
            bytes_sent=stats.bytes_sent,
            feeds=stats.feeds,
            history=HistorySize(stats.history_events, stats.history_bytes),
            uptime=round(stats.uptime, 3),
            **more,
        )


class BrokerReport(msgspec.Struct, frozen=True):
    """How a process stands with its broker."""

    url: str
    """Without a password."""
    position: Count
    """Of the newest event that this process has."""
    behind: Annotated[int, Meta(ge=0, description="Events that the broker has and this process has not.")]
    """Events that the broker has and this process has not."""
    failing: Annotated[str | None, Meta(description="Why the broker cannot be reached; null if it can.")]
    """Why the broker cannot be reached; None if it can."""


class NodeReport(Report, frozen=True, kw_only=True):
    """The numbers of one process, and which process it is."""

    host: str
    """The name of its machine."""
    pid: Count
    """Its process id there."""
    worker: Annotated[Annotated[int, Meta(ge=0)] | None, Meta(description="Its number among the workers.")]
    """Its number among the workers of its port; None if it is alone there."""
    broker: BrokerReport
    """How the process stands with its broker."""


def merged(reports: Sequence[Report]) -> Report:
    """The numbers of several processes together. Events published, history and uptime are those of the first: each
    process sees every event. Raises `IndexError` for no reports."""
    first = reports[0]
    events = [report.events for report in reports]
    cells = [report.cells for report in reports if report.cells is not UNSET]
    return Report(
        node=first.node,
        pool=_merged_pools([report.pool for report in reports]),
        events=EventCounts(
            first.events.published, sum(each.delivered for each in events), sum(each.skipped for each in events)
        ),
        bytes_sent=sum(report.bytes_sent for report in reports),
        feeds=sum(report.feeds for report in reports),
        history=first.history,
        uptime=first.uptime,
        cells="".join(cells) if cells else UNSET,
    )


def _merged_pools(pools: Sequence[PoolStats]) -> PoolStats:
    first = pools[0]
    sums = {
        item.name: sum(getattr(pool, item.name) for pool in pools)
        for item in fields(PoolStats)
        if item.name not in ("state", "released")
    }
    return PoolStats(
        # A pool of several is open as long as one of them is.
        state=PoolState.OPEN.value if any(pool.state == PoolState.OPEN.value for pool in pools) else first.state,
        released={reason: sum(pool.released[reason] for pool in pools) for reason in first.released},
        **sums,
    )
