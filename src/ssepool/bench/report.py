"""The report of a measurement, as an object, as JSON and as rows for people."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssepool.bench.histogram import Histogram
from ssepool.bench.plan import Plan

MAX_REASONS = 10
"""Reasons that a report names at most; the others are counted as one."""
MAX_LOAD = 0.85
"""The share of a core that this side uses or waits for at most; above it, it was the bottleneck."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """The distribution of some times, in milliseconds."""

    count: int
    """How many times there are."""
    mean: float
    """Their mean."""
    p50: float
    """The median."""
    p90: float
    """The 90th percentile."""
    p99: float
    """The 99th percentile."""
    p999: float
    """The 99.9th percentile."""
    max: float
    """The longest."""

    @classmethod
    def of(cls, microseconds: Histogram) -> Latency | None:
        """The distribution in a histogram; `None` if the histogram is empty."""
        if not microseconds.count:
            return None
        at = {name: microseconds.at(share) / 1e3 for name, share in _SHARES.items()}
        return cls(count=microseconds.count, mean=microseconds.mean / 1e3, max=microseconds.greatest / 1e3, **at)


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, kw_only=True, slots=True)
class Connecting:
    """How the subscribers connected."""

    asked: int
    """Subscribers that the plan asks for."""
    open: int
    """Subscribers that got a stream."""
    failed: dict[str, int]
    """Subscribers without a stream, by the reason."""
    ended: dict[str, int]
    """Subscribers whose stream ended before the measurement did, by how it ended."""
    seconds: float
    """From the beginning of the first connection to the last head."""
    per_second: float
    """Streams that were opened a second."""
    head: Latency | None
    """From the beginning of a connection to the end of the answer's head."""
    first_byte: Latency | None
    """From the beginning of a connection to the first byte of its stream, if that came before events were published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publishing:
    """How the server took events."""

    events: int
    """Events that the server has taken."""
    requests: int
    """Requests that carried them."""
    failed: dict[str, int]
    """Requests of which the server took no event, or perhaps none, by the reason. Their events do not count as lost."""
    seconds: float
    """From the beginning of publishing to the last answer that meant success."""
    per_second: float
    """Events that the server took a second."""
    answer: Latency | None
    """From a request to its answer."""
    late: Latency | None
    """From the time that a request was due until it was sent; `None` if there was no rate, and in a replay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivering:
    """What became of the events. Counts are of the whole run; rates and times are of events due after the warm-up."""

    received: int
    """Deliveries: an event counts once for each subscriber that it reached."""
    lost: int
    """Deliveries that did not come although the subscriber's stream was open."""
    missed: int
    """Deliveries that did not come because the subscriber's stream had ended."""
    doubled: int
    """Deliveries that came again."""
    reordered: int
    """Deliveries that came after a later one of the same lane and topic."""
    seconds: float
    """From the end of the warm-up, in a replay from the beginning of the first connection, to the last delivery."""
    per_second: float
    """Deliveries a second."""
    per_read: float
    """The mean number of events that a read brought."""
    latency: Latency | None
    """From the time that an event was due until it was read."""
    buckets: list[tuple[float, int]]
    """The histogram of the latencies: the upper bound of each bucket in milliseconds, and the count in it."""
    time_to_last: Latency | None
    """From the time that an event was due until the last subscriber had read it."""
    catch_up: Latency | None
    """From the beginning of a connection until the subscriber had the whole replay; `None` if there was no replay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What the run cost the server's processes. `None` if the kernel does not tell, or there was nothing to measure.

    Memory is in bytes, without the kernel's own for sockets (see `Processes.memory`).
    """

    processes: int
    """How many processes there were at the end."""
    cpu_per_subscription: float | None
    """Microseconds of CPU for each subscriber that connected; `None` in a replay, whose events cost too."""
    cpu_per_delivery: float | None
    """Microseconds of CPU for each delivery."""
    cpu_share: float | None
    """The share of one core from the end of the warm-up to the last delivery; idle: while connections were held."""
    memory_per_connection: float | None
    """Bytes by which memory grew for each open connection."""
    memory_before: int | None
    """Bytes before the first connection."""
    memory_connected: int | None
    """Bytes when all subscribers were connected and had settled."""
    memory_after: int | None
    """Bytes at the end of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a phase cost this side, the load tool, as shares of one core."""

    used: float
    """The share of time that this process was on a core."""
    waited: float
    """The share of time that this thread was ready to run while others had the core."""

    @property
    def was_bottleneck(self) -> bool:
        """Whether this side had so little time left that the server may have waited for it."""
        return self.used + self.waited > MAX_LOAD


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """What the run cost this side, the load tool."""

    connecting: Load
    """While the subscribers connected."""
    delivering: Load
    """While events came; idle: while the connections were held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that a measurement has found."""

    plan: Plan
    """The plan that was carried out."""
    connecting: Connecting
    """How the subscribers connected."""
    publishing: Publishing | None
    """How the server took events; `None` if the plan was idle."""
    delivering: Delivering | None
    """What became of the events; `None` if the plan was idle."""
    server: Server | None
    """What the run cost the server's processes; `None` if the plan names none."""
    client: Client
    """What the run cost this side."""
    stalled: int
    """Subscribers that stopped reading, as planned."""
    cut_off: int
    """How many of the stalled subscribers the server has cut off."""
    notes: list[str]
    """Sentences that a reader has to know to judge the figures."""

    def as_dict(self) -> dict[str, Any]:
        """The report as a dictionary for JSON. Header fields are without their values, which may be secrets."""
        found = dataclasses.asdict(self)
        for fields in ("headers", "subscribe_headers"):
            found["plan"][fields] = [field.partition(":")[0] for field in found["plan"][fields]]
        for phase, load in (("connecting", self.client.connecting), ("delivering", self.client.delivering)):
            found["client"][phase]["was_bottleneck"] = load.was_bottleneck
        return found

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The report as people read it: rows of a group, a name and a value with its unit."""
        yield from _connecting(self.connecting)
        if self.stalled:
            yield "stalled", "subscribers", f"{self.stalled:,}"
            yield "stalled", "let go by the server", f"{self.cut_off:,}"
        if self.publishing:
            yield from _publishing(self.publishing)
        if self.delivering:
            yield from _delivering(self.delivering)
        if self.server:
            yield from _server(self.server)
        yield "this side", "load connecting", _load(self.client.connecting)
        yield "this side", "load afterwards", _load(self.client.delivering)


def reasons(counts: Counter[str]) -> dict[str, int]:
    """The most common reasons with their counts, and all others as one."""
    told = dict(counts.most_common(MAX_REASONS))
    others = counts.total() - sum(told.values())
    return {**told, "others": others} if others else told


def _connecting(found: Connecting) -> Iterator[tuple[str, str, str]]:
    yield "connecting", "open", f"{found.open:,} of {found.asked:,} in {found.seconds:.2f} s"
    yield "connecting", "rate", f"{found.per_second:,.0f}/s"
    for why, count in found.failed.items():
        yield "connecting", f"failed: {why}", f"{count:,}"
    for how, count in found.ended.items():
        yield "connecting", f"ended: {how}", f"{count:,}"
    yield from _latency("connecting", "head after", found.head)
    yield from _latency("connecting", "first byte after", found.first_byte)


def _publishing(found: Publishing) -> Iterator[tuple[str, str, str]]:
    yield "publishing", "events", f"{found.events:,} in {found.requests:,} requests, {found.seconds:.2f} s"
    yield "publishing", "rate", f"{found.per_second:,.0f} events/s"
    for why, count in found.failed.items():
        yield "publishing", f"failed: {why}", f"{count:,} requests"
    yield from _latency("publishing", "answer after", found.answer)
    yield from _latency("publishing", "late by", found.late)


def _delivering(found: Delivering) -> Iterator[tuple[str, str, str]]:
    yield "delivering", "events", f"{found.received:,} in {found.seconds:.2f} s"
    yield "delivering", "rate", f"{found.per_second:,.0f}/s, {found.per_read:.1f} with each read"
    yield "delivering", "lost", f"{found.lost:,}"
    if found.missed:
        yield "delivering", "missed after the end", f"{found.missed:,}"
    yield "delivering", "doubled", f"{found.doubled:,}"
    yield "delivering", "reordered", f"{found.reordered:,}"
    yield from _latency("delivering", "latency", found.latency)
    yield from _latency("delivering", "time to last", found.time_to_last)
    yield from _latency("delivering", "caught up after", found.catch_up)


def _server(found: Server) -> Iterator[tuple[str, str, str]]:
    yield "server", "processes", str(found.processes)
    if found.cpu_per_subscription is not None:
        yield "server", "CPU per subscription", f"{found.cpu_per_subscription:,.1f} us"
    if found.cpu_per_delivery is not None:
        yield "server", "CPU per delivery", f"{found.cpu_per_delivery:,.2f} us"
    if found.cpu_share is not None:
        yield "server", "CPU", f"{found.cpu_share:.1%} of a core"
    if found.memory_per_connection is not None:
        yield "server", "memory per connection", f"{found.memory_per_connection / 1024:,.2f} KiB"
    sizes = (found.memory_before, found.memory_connected, found.memory_after)
    if None not in sizes:
        told = " -> ".join(f"{size / 1024**2:,.1f}" for size in sizes if size is not None)
        yield "server", "memory", f"{told} MiB (before, connected, after)"


def _latency(group: str, name: str, found: Latency | None) -> Iterator[tuple[str, str, str]]:
    if found:
        shares = f"p50 {found.p50:,.2f}  p99 {found.p99:,.2f}  p99.9 {found.p999:,.2f}  max {found.max:,.2f} ms"
        yield group, name, shares


def _load(found: Load) -> str:
    return f"{found.used:.0%} of a core, waited for one {found.waited:.0%} of the time"
