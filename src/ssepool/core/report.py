"""Report: the numbers of one process as it tells them to others, and the sums of several processes.

`GET /pool`, `GET /cluster`, the metrics, the live topic `ssepool/pool`, the command line and the OpenAPI document are
all made of the structs in this file: a number that is added here shows in each of them. The description of a field is
in its annotation, where the JSON Schema takes it from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ssepool.core.states import PoolState
from ssepool.core.stats import Count, HubStats, PoolStats, Seconds

# Fields that several structs have.
NodeName = Annotated[str, Meta(description="The process's name in its connections' ids.")]
"""The name of a process."""
Host = Annotated[str, Meta(description="The name of its machine.")]
"""The name of a machine."""
Pid = Annotated[Count, Meta(description="Its process id there.")]
"""A process id."""
Worker = Annotated[Count | None, Meta(description="Its number among the workers of its port; null if it is alone.")]
"""The number of a worker, from 0."""


class Node(msgspec.Struct, frozen=True):
    """A hub as the others know it."""

    node: NodeName
    host: Host
    pid: Pid
    group: Annotated[str | None, Meta(description="Names the workers of one port; null if it is alone.")] = None
    worker: Worker = None


class EventCounts(msgspec.Struct, frozen=True):
    """Events since the hub was opened."""

    published: Annotated[Count, Meta(description="Events published, by whichever process.")]
    delivered: Annotated[Count, Meta(description="Events written to connections, once for each connection.")]
    skipped: Annotated[Count, Meta(description="Events not given to connections that were too slow.")]


class DropCounts(msgspec.Struct, frozen=True):
    """Events that this process has seen leave the history, by reason."""

    age: Annotated[Count, Meta(description="They were too old: `history_age`, `topic_age` or a rule's `age`.")] = 0
    events: Annotated[Count, Meta(description="Of all topics there were too many: `history_events`.")] = 0
    bytes: Annotated[Count, Meta(description="Those of all topics took too much memory: `history_bytes`.")] = 0
    topic: Annotated[
        Count, Meta(description="Their topics had more than they may: `topic_events`, `topic_bytes` or a rule.")
    ] = 0
    replaced: Annotated[Count, Meta(description="Another event with their key took their place.")] = 0
    live_only: Annotated[Count, Meta(description="Nothing of their topics is kept: `events=0`.")] = 0


class HistorySize(msgspec.Struct, frozen=True):
    """What is at hand for replay, and what has left."""

    events: Annotated[Count, Meta(description="Events at hand for replay.")]
    bytes: Annotated[Count, Meta(description="Bytes of memory that they take.")]
    topics: Annotated[Count, Meta(description="Topics that they are of.")] = 0
    dropped: Annotated[DropCounts, Meta(description="Events that are kept no longer, by reason.")] = DropCounts()


class RateCounts(msgspec.Struct, frozen=True):
    """Requests turned away because their address exceeded a rate, since the hub was opened."""

    subscribe: Annotated[Count, Meta(description="Requests for the stream: `subscribe_rate`.")] = 0
    publish: Annotated[Count, Meta(description="Requests to publish: `publish_rate`.")] = 0
    message: Annotated[Count, Meta(description="Messages of clients: `message_rate`.")] = 0
    failure: Annotated[Count, Meta(description="Requests behind too many refused ones: `failure_rate`.")] = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one process, or of several together."""

    node: Annotated[str, Meta(description="The process's name in its connections' ids; of several, the first one's.")]
    pool: Annotated[PoolStats, Meta(description="The numbers of the pool.")]
    events: Annotated[EventCounts, Meta(description="Events since the hub was opened.")]
    bytes_sent: Annotated[Count, Meta(description="Bytes written to connections.")]
    feeds: Annotated[Count, Meta(description="Subscriptions that differ: each has one feed.")]
    history: Annotated[HistorySize, Meta(description="What is at hand for replay.")]
    uptime: Annotated[Seconds, Meta(description="Seconds since the hub was opened.")]
    rate_refused: Annotated[
        RateCounts, Meta(description="Requests turned away because their address exceeded a rate.")
    ] = RateCounts()
    cells: Annotated[
        str | UnsetType,
        Meta(description="The state of each slot as a letter, by slot; only on the live topic `ssepool/pool`."),
    ] = UNSET

    @classmethod
    def of(cls, stats: HubStats, *, topics: int = 0, **more: Any) -> Self:
        """The report of one process, whose history has so many topics; `more` are the fields of a subclass."""
        return cls(
            node=stats.node,
            pool=stats.pool,
            events=EventCounts(stats.events_published, stats.events_delivered, stats.events_skipped),
            bytes_sent=stats.bytes_sent,
            feeds=stats.feeds,
            history=HistorySize(stats.history_events, stats.history_bytes, topics, DropCounts(**stats.history_dropped)),
            uptime=round(stats.uptime, 3),
            rate_refused=RateCounts(**stats.rate_refused),
            **more,
        )


class BrokerReport(msgspec.Struct, frozen=True):
    """How a process stands with its broker."""

    url: Annotated[str, Meta(description="The broker's URL, without a password.")]
    position: Annotated[Count, Meta(description="The position of the newest event that this process has.")]
    behind: Annotated[Count, Meta(description="Events that the broker has and this process has not.")]
    failing: Annotated[str | None, Meta(description="Why the broker cannot be reached; null if it can.")]
    messages_dropped: Annotated[
        Count, Meta(description="Messages between nodes that this process did not believe.")
    ] = 0
    records_unread: Annotated[
        Count, Meta(description="Records of the history that this process could not read: of a newer version, say.")
    ] = 0


class NodeReport(Report, frozen=True, kw_only=True):
    """The numbers of one process, and which process it is."""

    host: Host
    pid: Pid
    worker: Worker
    broker: Annotated[BrokerReport, Meta(description="How this process stands with its broker.")]


class PoolReport(Report, frozen=True, kw_only=True):
    """The numbers of one port: of its one process, or the sums of its workers and then each of them."""

    workers: Annotated[
        list[NodeReport], Meta(description="Each of the processes on this port, where there are several.")
    ]
    missing: Annotated[list[Node], Meta(description="Workers that did not answer in time: the sums are without them.")]


class ClusterReport(msgspec.Struct, frozen=True):
    """The numbers of all nodes of a broker."""

    nodes: Annotated[list[NodeReport], Meta(description="The nodes that answered, first the one that was asked.")]
    missing: Annotated[list[Node], Meta(description="Nodes that did not answer in time.")]


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
        rate_refused=RateCounts(
            *(sum(getattr(report.rate_refused, name) for report in reports) for name in RateCounts.__struct_fields__)
        ),
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
