"""A measurement, phase by phase: connect, settle, warm up, publish, wait for the rest, report."""

from __future__ import annotations

import gc
import math
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ssepool.bench.connecting import Crowd
from ssepool.bench.histogram import Histogram
from ssepool.bench.ledger import Ledger
from ssepool.bench.loop import MAX_WAIT_SECONDS, Sockets, clock
from ssepool.bench.plan import Plan
from ssepool.bench.process import Processes, own_cpu, own_wait
from ssepool.bench.publisher import BenchError, Publisher
from ssepool.bench.replay import Witness
from ssepool.bench.report import Client, Connecting, Delivering, Latency, Load, Publishing, Report, Server, reasons
from ssepool.bench.subscribers import Subscribers
from ssepool.bench.target import Target
from ssepool.errors import ConfigError

QUIET_SECONDS = 2.0
"""Time without any delivery after which no more are waited for."""
STALLED_SILENCE_SECONDS = 0.5
"""Time without any byte for a stalled subscriber after which those without an end count as still connected."""
PROGRESS_SECONDS = 0.5
"""Time between two calls of `on_progress`."""
SPARE_FILES = 64
"""Descriptors for everything but connections, beyond which the limit of the process is raised."""
TOO_SLOW_SHARE = 0.95
"""A rate below this share of the planned one is worth a note in the report."""
TOO_LATE_MICROSECONDS = 10_000
"""Requests that are later than this, at the 99th percentile, are worth a note in the report."""

Tick = Callable[[int], float]
"""A function of the time by `clock` that does what is due, and returns the microseconds until there is more to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a measurement has come."""

    phase: str
    """What it does now, in a word or two."""
    seconds: float
    """Time since it began."""
    asked: int
    """Subscribers that the plan asks for."""
    open: int
    """Subscribers whose stream is open."""
    failed: int
    """Subscribers that have no stream."""
    published: int
    """Events that the server has taken since publishing last began: the warm-up counts by itself."""
    received: int
    """Deliveries so far."""
    behind: int
    """Deliveries that have yet to come."""
    latency: Latency | None
    """From the time that an event was due until it was read; `None` before the first delivery that counts."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, and what everything has cost until then."""

    time: int
    """Microseconds by `clock`."""
    server: float | None
    """Seconds of CPU that the server's processes have used; `None` if the kernel does not tell."""
    used: float
    """Seconds of CPU that this process has used."""
    waited: float
    """Seconds that this thread was ready to run and had no core."""
    received: int
    """Deliveries so far."""


def run(plan: Plan, on_progress: Callable[[Progress], None] | None = None) -> Report:
    """Carry out a plan, and return what was found.

    `on_progress` is called twice a second, and its time is part of the load of this side. Raises `ConfigError` for a
    plan that this machine cannot carry out, `BenchError` if there is nothing to measure.
    """
    _allow_files(plan.subscribers + plan.lanes + SPARE_FILES)
    with closing(Sockets()) as sockets, _without_collector():
        return Measurement(plan, sockets, on_progress).report()


class Measurement:
    """One measurement: `report` carries it out, once."""

    def __init__(self, plan: Plan, sockets: Sockets, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._plan = plan
        self._sockets = sockets
        self._on_progress = on_progress
        self._tell_at = self._began = clock()
        self._id = secrets.token_hex(3).encode()
        self._stream = Target.of(plan.subscribe, remote=plan.remote)
        self._ledger = Ledger(plan.topic_count, plan.lanes)
        self._publisher: Publisher | None = None
        if not plan.idle:
            intake = Target.of(plan.publish, remote=plan.remote)
            self._publisher = Publisher(plan, intake, sockets, self._ledger, self._id)
        # A replay begins behind one more event, whose id is learnt, or behind the one that the user names.
        primer = 1 if plan.replay and not plan.last_event_id else 0
        goal = plan.replay + primer if plan.replay else 0
        self._subscribers = Subscribers(sockets, self._ledger, self._id, plan.lanes, start=primer, goal=goal)
        self._crowd = Crowd(plan, self._stream, sockets, self._subscribers)
        self._was_cut_short = False
        self._processes = Processes(plan.pids)
        if missing := set(plan.pids) - self._processes.pids():
            raise ConfigError(f"there is no process {min(missing)}, or this system does not tell what it uses")

    def report(self) -> Report:
        """Go through all phases, and return what was found. Raises `BenchError` as `run` does."""
        plan, subscribers = self._plan, self._subscribers
        if plan.replay:
            self._publish_before()
        memory = [self._processes.memory()]
        before = self._moment()
        self._turns("connecting", lambda: self._crowd.is_done, self._crowd.tick)
        came = self._moment()
        if not self._crowd.open:
            raise BenchError(f"nobody could subscribe to {plan.subscribe}: {reasons(self._crowd.failed_by)}")
        self._turns("settling", _never, seconds=plan.settle)
        connected = start = self._moment()
        memory.append(self._processes.memory())
        if plan.idle:
            self._turns("idle", _never, seconds=plan.seconds)
        elif plan.replay:
            start = before
            self._wait_for_the_rest()
        else:
            start = self._publish()
            self._wait_for_the_rest()
        end = self._moment()
        memory.append(self._processes.memory())
        self._look_at_the_stalled()
        active = subscribers.last_delivery if subscribers.last_delivery > start.time else end.time
        load = _load(start, end, active)
        return Report(
            plan=plan,
            connecting=self._connecting(),
            publishing=self._publishing(),
            delivering=self._delivering(start),
            server=self._server(before, connected, start, end, active, memory) if plan.pids else None,
            client=Client(connecting=_load(before, came, came.time), delivering=load),
            stalled=len(subscribers.stalled),
            cut_off=subscribers.cut_off,
            notes=list(self._notes(load, memory)),
        )

    # Phases

    def _publish_before(self) -> None:
        """Publish the events to be replayed, and have the subscribers ask for them."""
        plan = self._plan
        if plan.last_event_id:
            self._flood(plan.replay)
            return
        witness = Witness(self._stream, plan.subscribe_headers, self._sockets, self._id, plan.connect_timeout)
        self._turns("first subscriber", lambda: witness.is_open, seconds=plan.connect_timeout)
        if not witness.is_open:
            raise BenchError(f"no stream within {plan.connect_timeout:g} s")
        self._flood(1)
        self._turns("first event", lambda: witness.events > 0, seconds=plan.drain)
        if not witness.first_id:
            what = "carry no id" if witness.events else f"do not come within {plan.drain:g} s"
            raise BenchError(f"the server's events {what}; a last event id has to be given")
        self._flood(plan.replay)
        self._turns("first subscriber", lambda: witness.events > plan.replay, seconds=plan.drain)
        witness.close()
        self._crowd.resume(witness.first_id)

    def _flood(self, events: int) -> None:
        """Publish this number of events as fast as the server takes them."""
        assert self._publisher
        seconds = self._plan.seconds + self._plan.connect_timeout
        self._publisher.begin(clock(), rate=0, seconds=seconds, events=events)
        self._turns("publishing", lambda: self._is_published, self._tick)
        if self._publisher.events < events:
            raise BenchError(f"only {self._publisher.events} of {events} events were taken within {seconds:g} s")

    def _publish(self) -> Moment:
        """Warm up and publish; return the moment at which the warm-up ended."""
        plan, publisher = self._plan, self._publisher
        assert publisher
        self._subscribers.counts_first_bytes = False
        if plan.warmup:
            publisher.begin(clock(), rate=plan.rate, seconds=plan.warmup)
            self._turns("warming up", lambda: self._is_published, self._tick)
        start = self._moment()
        self._subscribers.since = start.time
        publisher.begin(start.time, rate=plan.rate, seconds=plan.seconds, events=plan.events or math.inf)
        self._turns("publishing", lambda: self._is_published, self._tick)
        return start

    def _wait_for_the_rest(self) -> None:
        """Wait until everything has come, or nothing comes any more."""
        began, subscribers = clock(), self._subscribers

        def is_over() -> bool:
            return subscribers.is_complete or clock() - max(began, subscribers.last_delivery) > QUIET_SECONDS * 1e6

        self._turns("waiting", is_over, seconds=self._plan.drain)
        self._was_cut_short = not is_over()

    def _look_at_the_stalled(self) -> None:
        """Count the stalled subscribers that the server has cut off: the end follows what was sent to them before."""
        subscribers = self._subscribers
        subscribers.wake()

        def is_over() -> bool:
            waits = subscribers.cut_off < len(subscribers.stalled)
            return not waits or clock() - subscribers.last_look > STALLED_SILENCE_SECONDS * 1e6

        self._turns("stalled", is_over, seconds=self._plan.drain)

    @property
    def _is_published(self) -> bool:
        return self._publisher is None or self._publisher.is_over

    def _tick(self, now: int) -> float:
        assert self._publisher
        return self._publisher.tick(now, self._subscribers.last_delivery)

    def _turns(self, phase: str, is_over: Callable[[], bool], *ticks: Tick, seconds: float = math.inf) -> None:
        """Read, and do what is due, until the phase is over or has taken this many seconds."""
        deadline = clock() + seconds * 1e6
        while not is_over() and (now := clock()) < deadline:
            wait = min(deadline - now, MAX_WAIT_SECONDS * 1e6, *(tick(now) for tick in ticks))
            self._subscribers.turn(self._sockets.ready(wait / 1e6))
            if self._on_progress and now >= self._tell_at:
                self._tell_at = now + int(PROGRESS_SECONDS * 1e6)
                self._on_progress(self._progress(phase, now))

    def _progress(self, phase: str, now: int) -> Progress:
        return Progress(
            phase=phase,
            seconds=(now - self._began) / 1e6,
            asked=self._plan.subscribers,
            open=len(self._subscribers) + len(self._subscribers.stalled),
            failed=self._crowd.failed_by.total(),
            published=self._publisher.events if self._publisher else 0,
            received=self._subscribers.received,
            behind=self._ledger.behind,
            latency=Latency.of(self._subscribers.latency),
        )

    # Findings

    def _moment(self) -> Moment:
        server = self._processes.cpu() if self._plan.pids else None
        return Moment(clock(), server, own_cpu(), own_wait(), self._subscribers.received)

    def _connecting(self) -> Connecting:
        crowd = self._crowd
        return Connecting(
            asked=self._plan.subscribers,
            open=crowd.open,
            failed=reasons(crowd.failed_by),
            ended=reasons(self._subscribers.ended),
            seconds=crowd.seconds,
            per_second=crowd.open / max(crowd.seconds, 1e-6),
            head=Latency.of(crowd.head),
            first_byte=Latency.of(self._subscribers.first_byte),
        )

    def _publishing(self) -> Publishing | None:
        publisher = self._publisher
        if publisher is None:
            return None
        return Publishing(
            events=publisher.events,
            requests=publisher.requests,
            failed=reasons(publisher.failed_by),
            seconds=publisher.seconds,
            per_second=publisher.events / max(publisher.seconds, 1e-6),
            answer=Latency.of(publisher.answer),
            late=Latency.of(publisher.late) if self._plan.rate and not self._plan.replay else None,
        )

    def _delivering(self, start: Moment) -> Delivering | None:
        if self._plan.idle:
            return None
        subscribers = self._subscribers
        measured = subscribers.received if self._plan.replay else subscribers.measured
        seconds = max(0, subscribers.last_delivery - start.time) / 1e6
        to_last = Histogram()
        for due, came in subscribers.last.items():
            to_last.record(came - due)
        tally = subscribers.tally()
        return Delivering(
            received=subscribers.received,
            lost=tally.lost,
            missed=tally.missed,
            doubled=tally.doubled,
            reordered=tally.reordered,
            seconds=seconds,
            per_second=measured / max(seconds, 1e-6),
            per_read=subscribers.received / max(1, subscribers.reads),
            latency=Latency.of(subscribers.latency),
            buckets=[(greatest / 1e3, count) for greatest, count in subscribers.latency.buckets()],
            time_to_last=Latency.of(to_last),
            catch_up=Latency.of(subscribers.caught_up),
        )

    def _server(
        self, before: Moment, connected: Moment, start: Moment, end: Moment, active: int, memory: list[int | None]
    ) -> Server:
        replay, connections = self._plan.replay, self._crowd.open
        used = _difference(start.server, end.server)
        received = end.received - start.received
        connecting = None if replay else _difference(before.server, connected.server)
        growth = _difference(memory[0], memory[1])
        return Server(
            processes=len(self._processes.pids()),
            cpu_per_subscription=connecting and connecting / connections * 1e6,
            cpu_per_delivery=used and used / received * 1e6 if received else None,
            cpu_share=used and used / (active - start.time) * 1e6,
            memory_per_connection=growth and growth / connections,
            memory_before=memory[0],
            memory_connected=memory[1],
            memory_after=memory[2],
        )

    def _notes(self, load: Load, memory: list[int | None]) -> Iterator[str]:
        plan, publisher, crowd = self._plan, self._publisher, self._crowd
        if crowd.open < plan.subscribers:
            yield f"{plan.subscribers - crowd.open} of {plan.subscribers} subscribers have no stream"
        if ended := self._subscribers.ended.total():
            yield f"{ended} streams ended before the measurement did; what they missed is not counted as lost"
        if load.was_bottleneck:
            yield (
                f"this side was the bottleneck: it used {load.used:.0%} of a core and waited for one in "
                f"{load.waited:.0%} of the time; the server may do better than these figures"
            )
        if publisher and not plan.replay and publisher.failed_by:
            yield f"{publisher.failed_by.total()} requests to publish failed; their events are not counted as lost"
        if self._was_cut_short:
            yield f"events were still coming {plan.drain:g} s after the last was published; those count as lost"
        if publisher and plan.rate and not plan.replay and not plan.events:
            rate = publisher.events / plan.seconds if plan.seconds else 0.0
            if rate < TOO_SLOW_SHARE * plan.rate:
                yield f"the server took {rate:,.0f} of {plan.rate:,.0f} events a second"
            elif publisher.late.at(0.99) > TOO_LATE_MICROSECONDS:
                yield f"one request in a hundred was sent {publisher.late.at(0.99) / 1e3:.0f} ms late or later"
        if plan.pids and None in memory:
            yield "the memory of the server's processes is not to be had"
        if sys.platform != "linux":
            yield "without epoll this side is slow; the figures that count are had on Linux"


def _never() -> bool:
    return False


def _load(start: Moment, end: Moment, active: int) -> Load:
    """The load of this side between two moments; its shares are of the time until `active`, the last activity."""
    seconds = max(active - start.time, 1) / 1e6
    used, waited = end.used - start.used, end.waited - start.waited
    return Load(used=min(1.0, used / seconds), waited=min(1.0, waited / seconds))


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def _allow_files(needed: int) -> None:
    """Raise the limit on open files to the number needed. Raises `ConfigError` where that is not allowed."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(f"{needed} open files are needed, and {hard} are allowed (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Turn the garbage collector off: it finds nothing here, and its pauses would be measured."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
