"""GET /metrics: the hub's numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from ssepool.runtime.hub import Hub


def routes(hub: Hub) -> list[BaseRoute]:
    """The route of this file."""
    registries: list[CollectorRegistry] = []

    async def metrics(request: Request) -> Response:
        # Loaded when it is first needed: a hub that nobody scrapes does not pay for it.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        if not registries:
            # One of the hub's own, so that two hubs in a process do not mix and nothing else gets in.
            registries.append(CollectorRegistry())
            registries[0].register(HubCollector(hub))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registries[0]), headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return [Route("/metrics", metrics, methods=["GET"])]


class HubCollector:
    """Reads `hub.stats()` at each scrape, so that counting costs the hub nothing of its own."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        """All metrics at this moment, taken from one frozen object and so consistent with each other."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        stats = self._hub.stats()
        pool = stats.pool
        slots = GaugeMetricFamily("ssepool_slots", "Slots of the pool by state.", labels=["state"])
        for state in ("free", "reserved", "open", "closing"):
            slots.add_metric([state], getattr(pool, state))
        yield slots
        states = GaugeMetricFamily("ssepool_pool_state", "1 for the state that the pool is in.", labels=["state"])
        for state in ("new", "open", "draining", "closed"):
            states.add_metric([state], float(pool.state == state))
        yield states
        for name, help, value in (
            ("size", "Slots that exist.", pool.size),
            ("waiting", "Requests that wait for a slot.", pool.waiting),
            ("max_waiting", "Requests that may wait for a slot.", pool.max_waiting),
            (
                "saturation",
                "Slots that are not free and requests that wait, divided by the slots: 1 is full, more is a queue.",
                (pool.size - pool.free + pool.waiting) / max(1, pool.size),  # no slots yet: the hub is not open
            ),
            ("feeds", "Subscriptions that differ: each has one feed.", stats.feeds),
            ("history_events", "Events kept for replay.", stats.history_events),
            ("history_bytes", "Bytes of the events kept for replay.", stats.history_bytes),
            ("uptime_seconds", "Seconds since the hub was opened.", stats.uptime),
        ):
            yield GaugeMetricFamily(f"ssepool_{name}", help, value=value)
        for name, help, value in (
            ("requests", "Requests for a slot, however they ended.", pool.requests),
            ("queued", "Requests that had to wait.", pool.queued),
            ("granted", "Requests that got a slot, at once or after waiting.", pool.granted),
            ("timed_out", "Waiters whose time was up.", pool.timed_out),
            ("cancelled", "Waiters whose client left.", pool.cancelled),
            ("refused", "Requests turned away at once.", pool.refused),
            ("wait_seconds", "Seconds that granted requests have waited, summed.", pool.wait_seconds),
            ("open_seconds", "Seconds that released connections had been open, summed.", pool.open_seconds),
            ("events_published", "Events published.", stats.events_published),
            ("events_delivered", "Events written to connections.", stats.events_delivered),
            ("events_skipped", "Events that lagging connections did not get.", stats.events_skipped),
            ("bytes_sent", "Bytes written to connections.", stats.bytes_sent),
        ):
            yield CounterMetricFamily(f"ssepool_{name}", help, value=value)
        released = CounterMetricFamily("ssepool_released", "Slots freed, by reason.", labels=["reason"])
        for reason, count in pool.released.items():
            released.add_metric([reason], count)
        yield released
