"""How many events a broker takes through `AsyncPublisher`, and how long a publish takes."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks.brokers.kinds import Backend
from benchmarks.brokers.nodes import nodes
from ssepool import AsyncPublisher, Event
from ssepool.bench.histogram import Histogram
from ssepool.bench.loop import clock
from ssepool.bench.process import Processes, own_cpu

DATA = "x" * 100


@dataclass(frozen=True)
class Shape:
    """A way of publishing."""

    title: str
    tasks: int
    batch: int
    followed: bool = False
    """Whether a node reads along."""


SHAPES = (
    Shape("one task", 1, 1),
    Shape("100 tasks", 100, 1),
    Shape("batches of 100", 1, 100),
    Shape("batches of 1,000", 1, 1000),
    Shape("batches of 1,000, a node follows", 1, 1000, followed=True),
)


def measure(backend: Backend, *, seconds: float) -> dict[str, Any]:
    """Publish in each shape for so many seconds; each has a history of its own."""
    found = {}
    for number, shape in enumerate(SHAPES):
        url = backend.url(f"publish{number}")
        with nodes(backend.folder, url) if shape.followed else nullcontext():
            found[shape.title] = uvloop.run(_publish(url, shape, seconds, backend.pids()))
    return found


async def _publish(url: str, shape: Shape, seconds: float, pids: tuple[int, ...]) -> dict[str, Any]:
    took, published = Histogram(), 0
    events = [Event(DATA, ("bench",))] * shape.batch
    server = Processes(pids)
    async with AsyncPublisher(url) as publisher:

        async def lane(until: int) -> None:
            nonlocal published
            while (start := clock()) < until:
                await publisher.publish_many(events)
                took.record(clock() - start)
                published += shape.batch

        async def lanes(seconds: float) -> None:
            until = clock() + int(seconds * 1e6)
            await asyncio.gather(*(lane(until) for _ in range(shape.tasks)))

        await lanes(seconds / 5)
        took, published = Histogram(), 0
        before, own, start = server.cpu() or 0.0, own_cpu(), clock()
        await lanes(seconds)
        elapsed = (clock() - start) / 1e6
    return {
        "per_second": published / elapsed,
        "p50": took.at(0.5) / 1e3,
        "p99": took.at(0.99) / 1e3,
        "cpu_publisher": (own_cpu() - own) / published * 1e6,
        "cpu_server": ((server.cpu() or 0.0) - before) / published * 1e6,
    }
