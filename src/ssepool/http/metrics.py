"""GET /metrics: the hub's numbers for Prometheus, in its text format or as OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.core.grant import Grant
from ssepool.core.report import NodeReport
from ssepool.core.states import PoolState, SlotState
from ssepool.http.access.door import Door
from ssepool.http.access.gate import guarded
from ssepool.http.reply import NOT_SNIFFED
from ssepool.runtime.cluster.nodes import Nodes

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def routes(nodes: Nodes, door: Door) -> list[BaseRoute]:
    """GET /metrics."""

    async def metrics(request: Request, grant: Grant) -> Response:
        # Imported at the first request: a hub without a Prometheus does not pay for it.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        # All workers on this port report: the request may have come to any of them.
        reports, _ = await nodes.reports(group=True)
        # A registry for this answer alone: two hubs in a process do not mix, and no metric of the process gets in.
        registry = CollectorRegistry()
        registry.register(ReportCollector(reports, workers=nodes.are_workers))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={**NOT_SNIFFED, "Content-Type": content_type})

    return [guarded(door, "/metrics", metrics, methods=["GET"], needs="metrics")]


Metrics = tuple[tuple[str, str, Callable[[NodeReport], float]], ...]
"""Metrics of a kind: the name without `ssepool_`, the help text, and how the value is read from a report."""

GAUGES: Metrics = (
    ("size", "Slots that exist.", lambda r: r.pool.size),
    ("waiting", "Requests that wait for a slot.", lambda r: r.pool.waiting),
    ("max_waiting", "Requests that may wait for a slot.", lambda r: r.pool.max_waiting),
    (
        "saturation",
        "Slots that are not free and requests that wait, divided by the slots: 1 is full, more is a queue.",
        # A hub that is not open has no slots.
        lambda r: (r.pool.size - r.pool.free + r.pool.waiting) / max(1, r.pool.size),
    ),
    ("feeds", "Subscriptions that differ: each has one feed.", lambda r: r.feeds),
    ("history_events", "Events at hand for replay.", lambda r: r.history.events),
    ("history_bytes", "Bytes of memory that the events at hand for replay take.", lambda r: r.history.bytes),
    ("topics", "Topics that the history has events of.", lambda r: r.history.topics),
    ("broker_up", "1 while the broker can be reached.", lambda r: float(r.broker.failing is None)),
    ("broker_behind", "Events that the broker has and this process has not.", lambda r: r.broker.behind),
    ("uptime_seconds", "Seconds since the hub was opened.", lambda r: r.uptime),
)
"""Metrics that rise and fall. Names and help texts are a contract with dashboards and alerts."""

COUNTERS: Metrics = (
    ("requests", "Requests for a slot, however they ended.", lambda r: r.pool.requests),
    ("queued", "Requests that had to wait.", lambda r: r.pool.queued),
    ("granted", "Requests that got a slot, at once or after waiting.", lambda r: r.pool.granted),
    ("timed_out", "Waiters whose time was up.", lambda r: r.pool.timed_out),
    ("cancelled", "Waiters whose client left.", lambda r: r.pool.cancelled),
    ("refused", "Requests turned away at once.", lambda r: r.pool.refused),
    ("wait_seconds", "Seconds that granted requests have waited, summed.", lambda r: r.pool.wait_seconds),
    ("open_seconds", "Seconds that released connections were open, summed.", lambda r: r.pool.open_seconds),
    ("events_published", "Events published, by whichever process.", lambda r: r.events.published),
    ("events_delivered", "Events written to connections.", lambda r: r.events.delivered),
    ("events_skipped", "Events that lagging connections did not get.", lambda r: r.events.skipped),
    ("bytes_sent", "Bytes written to connections.", lambda r: r.bytes_sent),
    ("messages_dropped", "Messages between nodes that were not believed.", lambda r: r.broker.messages_dropped),
    ("records_unread", "Records of the history that could not be read.", lambda r: r.broker.records_unread),
)
"""Metrics that only rise while the process lives; Prometheus appends `_total` to their names."""


class ReportCollector:
    """Turns reports into metrics of Prometheus, as a collector of its client library."""

    def __init__(self, reports: list[NodeReport], *, workers: bool) -> None:
        """`reports` are those of one process, or of several; with `workers` each metric has the label `worker`."""
        self._of = [((str(report.worker),) if workers else (), report) for report in reports]
        self._labels = ["worker"] if workers else []

    def collect(self) -> Iterable[Metric]:
        """All metrics. Those of a process come from one report, so they are consistent with each other."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        slots = GaugeMetricFamily("ssepool_slots", "Slots of the pool by state.", labels=[*self._labels, "state"])
        states = GaugeMetricFamily(
            "ssepool_pool_state", "1 for the state that the pool is in.", labels=[*self._labels, "state"]
        )
        released = CounterMetricFamily("ssepool_released", "Slots freed, by reason.", labels=[*self._labels, "reason"])
        refused = CounterMetricFamily(
            "ssepool_rate_refused", "Requests beyond a rate of their address, by rate.", labels=[*self._labels, "rate"]
        )
        dropped = CounterMetricFamily(
            "ssepool_history_dropped", "Events that left the history, by reason.", labels=[*self._labels, "reason"]
        )
        for labels, report in self._of:
            pool = report.pool
            for slot_state in SlotState:
                slots.add_metric([*labels, slot_state.value], getattr(pool, slot_state.value))
            for state in PoolState:
                states.add_metric([*labels, state.value], float(pool.state == state.value))
            for reason, count in pool.released.items():
                released.add_metric([*labels, reason], count)
            for rate in report.rate_refused.__struct_fields__:
                refused.add_metric([*labels, rate], getattr(report.rate_refused, rate))
            for reason in report.history.dropped.__struct_fields__:
                dropped.add_metric([*labels, reason], getattr(report.history.dropped, reason))
        yield from (slots, states, released, refused, dropped)
        for make, metrics in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, help, value in metrics:
                family = make(f"ssepool_{name}", help, labels=self._labels)
                for labels, report in self._of:
                    family.add_metric(labels, value(report))
                yield family
