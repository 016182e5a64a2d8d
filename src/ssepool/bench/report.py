"""What a measurement has found, for people and for machines."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssepool.bench.histogram import Histogram
from ssepool.bench.plan import Plan

MAX_REASONS = 10
"""Reasons that are told apart in a report."""
MAX_LOAD = 0.85
"""The share of a core from which this side is taken for the bottleneck."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """How long something took, in milliseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, microseconds: Histogram) -> Latency | None:
        """What a histogram holds; `None` if that is nothing."""
        if not microseconds.count:
            return None
        at = {name: microseconds.at(share) / 1e3 for name, share in _SHARES.items()}
        return cls(count=microseconds.count, mean=microseconds.mean / 1e3, max=microseconds.greatest / 1e3, **at)


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, kw_only=True, slots=True)
class Connecting:
    """How the subscribers came."""

    asked: int
    open: int
    failed: dict[str, int]
    """Those without a stream, by why."""
    ended: dict[str, int]
    """Those whose stream ended before the measurement did, by how."""
    seconds: float
    """From the first one's start to the last one's head."""
    per_second: float
    head: Latency | None
    """From a subscriber's start to the end of the answer's head."""
    first_byte: Latency | None
    """From a subscriber's start to the first byte of the stream, where one came before events were published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publishing:
    """How the server took events."""

    events: int
    requests: int
    failed: dict[str, int]
    """Requests by which it took none, or perhaps none, by why. Their events are not counted as lost."""
    seconds: float
    per_second: float
    """Events a second."""
    answer: Latency | None
    """From a request to its answer."""
    late: Latency | None
    """From the time that a request was due until it was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivering:
    """What came of the events. The counts are of the whole run, rates and times of what was due after the warm-up."""

    received: int
    lost: int
    missed: int
    """Events that subscribers did not get because their stream had ended."""
    doubled: int
    reordered: int
    seconds: float
    per_second: float
    per_read: float
    """Events that came with a read."""
    latency: Latency | None
    """From the time that an event was due until it was read."""
    buckets: list[tuple[float, int]]
    """The histogram of the latencies: the greatest of each bucket in milliseconds, and how many are in it."""
    time_to_last: Latency | None
    """From the time that an event was due until the last subscriber had read it."""
    catch_up: Latency | None
    """In a replay: from a subscriber's start until it had all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What it cost the server's processes. `None` where the kernel does not tell, or nothing was to be told."""

    processes: int
    cpu_per_subscription: float | None
    """Microseconds."""
    cpu_per_delivery: float | None
    """Microseconds."""
    cpu_share: float | None
    """Of one core, from the end of the warm-up to the last delivery; idle: while the connections were held."""
    memory_per_connection: float | None
    """Bytes of growth per open connection, the kernel's own for sockets not among them."""
    memory_before: int | None
    memory_connected: int | None
    memory_after: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What it cost this side during a phase, as shares of one core."""

    used: float
    waited: float
    """The share of time in which it could have gone on, and others had the core."""

    @property
    def was_bottleneck(self) -> bool:
        """Whether it had so little left that the server may have waited for it."""
        return self.used + self.waited > MAX_LOAD


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """What it cost this side."""

    connecting: Load
    delivering: Load
    """While events came; idle: while the connections were held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that a measurement has found."""

    plan: Plan
    connecting: Connecting
    publishing: Publishing | None
    delivering: Delivering | None
    server: Server | None
    client: Client
    stalled: int
    """Subscribers that did not read."""
    cut_off: int
    """Of these, how many the server has let go."""
    notes: list[str]
    """What has to be known to judge the figures."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can carry it. Of header fields there are only the names: the values may be secrets."""
        found = dataclasses.asdict(self)
        for fields in ("headers", "subscribe_headers"):
            found["plan"][fields] = [field.partition(":")[0] for field in found["plan"][fields]]
        for phase, load in (("connecting", self.client.connecting), ("delivering", self.client.delivering)):
            found["client"][phase]["was_bottleneck"] = load.was_bottleneck
        return found

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The report as people read it: group, name and value."""
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
    """The most common reasons, and all others as one."""
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
