"""What a node's core is asked for, in seconds of CPU, as measured. A node has one core for all of it.

The upper half is from docs/performance/results.md; `scripts/simulate costs` measures the lower half.
"""

from __future__ import annotations

import gc
import time
import tracemalloc

from ssepool.core.event import Entry, Event
from ssepool.core.feed import Feed
from ssepool.core.topics import Subscription, TopicIndex
from ssepool.core.window import Window

SUBSCRIPTION = 60e-6
"""One subscription, from `accept` to its first event, and its departure (scenario f)."""

DELIVERY = 9.8e-6
"""One event written alone to one connection (scenario a)."""

JOINED = 0.26e-6
"""One more event in the same write: the whole cost of a delivery where events come in batches (scenario b)."""

REPLAYED = 0.78e-6
"""One event replayed to one client (scenario g)."""

CONNECTION_BYTES = int(0.63 * 1024)
"""Process memory of an idle connection (scenario e)."""

SOCKET_BYTES = 4 * 1024
"""The kernel's memory for it, the upper end of 2 to 4 KiB."""

SCANNED = 0.6e-6
"""One event of the history looked at in a replay, whether the client wants it or not; others have just looked at it,
as in a storm of reconnects. The quickest of four measurements; the others were 0.76, 0.98 and, where nobody had just
looked at it, 1.1 us."""

DISPATCHED = 0.7e-6
"""One event from the broker that nobody on this node wants."""

FED = 1.5e-6
"""One event from the broker put into one feed, before anything is written."""

KEPT_BYTES = 390
"""What an event in the history takes beyond its own bytes on the wire."""

MEASURED_EVENTS, MEASURED_FEEDS, MEASURED_REPLAYS = 10_000, 20_000, 20
"""How many events, feeds and replays a measurement of the lower half takes."""

PAGE_EVENTS = 1000
"""Events that a replay asks the history for at a time."""


def main() -> None:
    """Measure the lower half on this machine, with the core's own parts, and print it."""
    index: TopicIndex[Feed] = TopicIndex()
    for number in range(MEASURED_FEEDS):
        subscription = Subscription.of([f"user/{number}"])
        index.add(subscription, Feed(subscription))
    for title, topic in (("DISPATCHED", "nobody"), ("FED", "user")):
        entries = _entries(topic)
        began = time.process_time()
        for entry in entries:
            for feed in index.match(entry.topics, entry.private):
                feed.append(entry, began)
        _show(title, time.process_time() - began, MEASURED_EVENTS)
    _measure_history()


def _measure_history() -> None:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    entries = _entries("nobody")
    window = Window("e", events=MEASURED_EVENTS, bytes=MEASURED_EVENTS * 1000, age=3600.0)
    window.append(entries, 0.0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"{'KEPT_BYTES':<12} {(taken - window.kept.bytes) / MEASURED_EVENTS:.0f} B an event")
    wanted = Subscription.of(["other"])
    began = time.process_time()
    for _ in range(MEASURED_REPLAYS):
        position = 0
        while position < window.newest:
            for entry in window.read(position, max_entries=PAGE_EVENTS):
                position = entry.position
                assert not wanted.matches(entry.topics, entry.private)
    _show("SCANNED", time.process_time() - began, MEASURED_REPLAYS * MEASURED_EVENTS)


def _entries(topic: str) -> list[Entry]:
    entries = []
    for number in range(1, MEASURED_EVENTS + 1):
        event = Event("x" * 150, (f"{topic}/{number}",))
        id = f"epoch123-{number}"
        entries.append(Entry(number, id, event.topics, event.encode(id)))
    return entries


def _show(title: str, seconds: float, count: int) -> None:
    print(f"{title:<12} {seconds / count * 1e6:.2f} us an event")
