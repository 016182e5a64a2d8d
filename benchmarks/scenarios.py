"""What is asked of each system. A scenario is a load and the systems that it makes sense for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

OURS, PLAIN, NCHAN, BETTER, STARLETTE = "ours", "ours, plain ASGI", "nchan", "better-sse", "sse-starlette"
PUSHPIN = "Pushpin"
WATCHED = "ours, watched"
"""Ours with a watchdog in its event loop."""
BARE = "bare send()"
"""What nobody can go below with one `send` an event."""
ALL = (OURS, PLAIN, NCHAN, PUSHPIN, BETTER, STARLETTE, BARE)

# As many on their way as keep a server busy; more would only wait, and be measured as its latency.
BATCH = {"batch": 20, "window": 40.0}


@dataclass(frozen=True)
class Scenario:
    """A load."""

    name: str
    """A letter, and what tells its variants apart."""
    title: str
    load: dict[str, Any]
    peers: tuple[str, ...] = ALL
    others: bool = True
    """Whether hubs given by URL take part."""


def full(max_files: int) -> Iterator[Scenario]:
    """All scenarios, some ten minutes."""
    yield from _one_topic(1000, seconds=4.0)
    ten = {"subscribers": 10_000, "rate": 1.0, "warmup": 0.0, "seconds": 5.0, "settle": 1.0, "drain": 20.0}
    yield Scenario("cf", "10,000 subscribers at once, then 1 event/s", ten)
    idle = {"subscribers": 10_000, "connect_rate": 2000.0, "idle": True, "settle": 2.0, "seconds": 1.0}
    yield Scenario("e", "10,000 subscribers, 2,000 of them coming each second, idle", idle)
    for topics in (100, 1000, 10_000):
        load = {"subscribers": topics, "topics": 0, "rate": 1000.0, "seconds": 4.0}
        yield Scenario(f"d {topics}", f"{topics:,} subscribers with a topic each, 1,000 events/s", load, (OURS, NCHAN))
    load = {"subscribers": 1000, "replay": 1000, "drain": 60.0}
    yield Scenario("g", "1,000 subscribers fetch 1,000 missed events each", load, (OURS, PLAIN, NCHAN), others=False)
    load = {"subscribers": 500, "stall": 0.1, "size": 8000, "rate": 50.0, "seconds": 15.0}
    yield Scenario("h", "500 subscribers, 10 % stop reading; 50 events/s of 8,000 bytes", load, (OURS, NCHAN, BETTER))
    for subscribers in (1000, 2000, 5000, 10_000, 19_000):
        if subscribers + 200 < max_files:
            load = {"subscribers": subscribers, "rate": 40_000 / subscribers, "seconds": 4.0}
            title = f"{subscribers:,} subscribers, 40,000 deliveries/s"
            yield Scenario(f"i {subscribers}", title, load, (OURS, NCHAN, BARE))


def quick(max_files: int) -> Iterator[Scenario]:
    """A few of them, smaller and shorter, two minutes."""
    yield from (_hurried(scenario) for scenario in _one_topic(500, seconds=1.0))
    load = {"subscribers": 1000, "rate": 2.0, "warmup": 0.0, "seconds": 1.5}
    yield _hurried(Scenario("cf", "1,000 subscribers at once, then 2 events/s", load))
    load = {"subscribers": 1000, "connect_rate": 1000.0, "idle": True, "seconds": 0.5}
    yield _hurried(Scenario("e", "1,000 subscribers within a second, idle", load))


def _hurried(scenario: Scenario) -> Scenario:
    peers = tuple(peer for peer in scenario.peers if peer != BARE)
    return replace(scenario, load={"warmup": 0.5, "settle": 0.3, **scenario.load}, peers=peers)


def _one_topic(subscribers: int, *, seconds: float) -> Iterator[Scenario]:
    several = f"{subscribers:,} subscribers of one topic"
    load = {"subscribers": subscribers, "seconds": seconds}
    yield Scenario("a 50", f"{several}, 50 events/s", {**load, "rate": 50.0, "drain": 60.0})
    yield Scenario("a 5", f"{several}, 5 events/s", {**load, "rate": 5.0})
    flat_out = {**load, "rate": 0.0, "window": 100.0, "drain": 30.0}
    yield Scenario("b single", f"{several}, flat out, one event a request", flat_out, (*ALL, WATCHED))
    batch = {**flat_out, **BATCH}
    yield Scenario("b batch", f"{several}, flat out, 20 events a request", batch, (OURS, PLAIN), others=False)
    rate = 1_500_000 / subscribers
    # With 100 requests a second the load tool has no time left, and what is measured as latency is its own.
    paced = {**load, "rate": rate, "batch": int(rate / 30)}
    yield Scenario("b paced", f"{several}, 1.5 million deliveries/s, 30 requests/s", paced, (OURS,), others=False)
