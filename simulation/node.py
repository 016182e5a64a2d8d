"""Node: one process with its pool, its core, and the kernel's queue in front of it."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Protocol

from simulation import costs
from simulation.record import Record
from simulation.setup import Setup
from simulation.timeline import Timeline
from ssepool.config import PoolConfig
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason, SlotState

LOOK_SECONDS = 15 / 16
"""Seconds between two looks of the reaper, as the hub sets it with default settings."""

BURST_CONNECTIONS = 64
"""Connections that the runtime accepts in a turn of its loop, at most."""

SLICE_SECONDS = 0.002
"""How long the runtime replays in a turn of its loop, at most."""

PAGE_EVENTS = 1000
"""Events that the runtime looks at in a page of a replay, at most."""


class Surroundings(Protocol):
    """What a node needs of the fleet that it belongs to: the run's time and chance, and what becomes of its clients."""

    setup: Setup
    random: Random
    timeline: Timeline
    record: Record
    slots: list[Slot | None]
    """By client: the slot that it has, on whichever node."""

    def fail(self, client: int) -> None:
        """The attempt met a node that is down."""

    def drop(self, client: int, node: Node) -> None:
        """The attempt found the kernel's queue full."""

    def admit(self, node: Node, client: int, now: float) -> None:
        """The node has read the client's request."""

    def live(self, client: int, now: float) -> None:
        """The client has all that it missed."""

    def lose(self, client: int, told: float | None = None, *, noticed: float = 0.0) -> None:
        """The client's stream has ended, with a `retry:` of `told` seconds or without."""

    def told_to_wait(self) -> float:
        """The seconds of a `retry:` as the hub makes it."""
        ...

    def drained(self, node: Node) -> None:
        """The node has sent all its clients away."""


class Node:
    """The runtime's part is modelled after `server/listener.py`, `delivery.py`, `replay.py`, `reaper.py` and
    `admission.py`; the pool is the real one.

    A turn of the loop takes up to `BURST_CONNECTIONS` connections and then replays for `SLICE_SECONDS`, and each
    costs CPU time. So within a turn the pool is told times a few milliseconds ahead of the timeline, never back.
    """

    def __init__(self, fleet: Surroundings, number: int) -> None:
        self.fleet = fleet
        self.number = number
        self.up = True
        self.connections = 0
        """As the balancer counts them: from the moment that it picked this node."""
        self.backlog: deque[int] = deque()
        self.replays: deque[tuple[int, Slot, float]] = deque()
        """Client, slot, and how far it has come in the broker's order."""
        self.free_at = 0.0
        """When the core is done with what it has begun."""
        self.busy = 0.0
        """Seconds of CPU used."""
        self.most_backlog = 0
        self._turning = self._looking = False
        self._second = self._arrived = self.most_arrivals = 0
        self.pool = self._new_pool()

    def _new_pool(self) -> Pool:
        setup = self.fleet.setup
        config = PoolConfig(size=setup.size, max_waiting=setup.waiting, on_full=setup.on_full, idle_timeout=0.0)
        pool = Pool(config, jitter=self.fleet.random.random)
        pool.open()
        return pool

    def check(self) -> None:
        """The pool's sum holds."""
        pool = self.pool
        held = [pool.count(state) for state in SlotState]
        assert sum(held) == len(pool.slots), f"node {self.number}: {pool!r}"
        assert pool.state is not PoolState.OPEN or not pool.waiting or not pool.count(SlotState.FREE), repr(pool)

    # Connections coming in.

    def arrive(self, client: int, now: float) -> None:
        """A client's connection attempt reaches this machine."""
        if not self.up:
            self.fleet.fail(client)
            return
        if len(self.backlog) >= self.fleet.setup.backlog:
            self.fleet.drop(client, self)
            return
        self._count(now)
        self.backlog.append(client)
        self._wake(now)

    def _count(self, now: float) -> None:
        if int(now) != self._second:
            self._second, self._arrived = int(now), 0
        self._arrived += 1
        self.most_arrivals = max(self.most_arrivals, self._arrived)
        self.most_backlog = max(self.most_backlog, len(self.backlog) + 1)

    def _wake(self, now: float) -> None:
        if self._turning:
            return
        self._turning = True
        if self.free_at <= now:
            self._turn(now)
        else:
            self.fleet.timeline.at(self.free_at, self._turn)

    def _turn(self, began: float | None = None) -> None:
        now = start = self.fleet.timeline.now if began is None else began
        for _ in range(min(BURST_CONNECTIONS, len(self.backlog))):
            now += costs.SUBSCRIPTION
            self.fleet.admit(self, self.backlog.popleft(), now)
        now = self._replay(now)
        self.free_at = now
        self.busy += now - start
        self.check()
        self._turning = bool(self.backlog or self.replays)
        if self._turning:
            self.fleet.timeline.at(now, self._turn)

    def _replay(self, now: float) -> float:
        """Pages for those who are catching up, one each in turn, for a slice; returns the time when it is over."""
        setup, replays = self.fleet.setup, self.replays
        deadline = now + SLICE_SECONDS
        each = setup.scanned + costs.REPLAYED * (setup.wanted / setup.events if setup.events else 0.0)
        while replays and now < deadline:
            client, slot, position = replays.popleft()
            if self.fleet.slots[client] is not slot:
                continue
            newest = now * setup.events
            if position < newest - setup.history:
                position = newest - setup.history
                self.fleet.record.gaps += 1
            page = min(PAGE_EVENTS, newest - position)
            now += page * each
            if position + page >= newest:
                self.fleet.live(client, now)
            else:
                replays.append((client, slot, position + page))
        return now

    # The reaper.

    def watch(self) -> None:
        """Have the reaper look. It is only asked while it has something to find: waiters, or clients to send away."""
        if not self._looking:
            self._looking = True
            self.fleet.timeline.at(self.fleet.timeline.now + LOOK_SECONDS, self._look)

    def _look(self, _: None) -> None:
        self._looking = False
        if not self.up:
            return
        now, pool = self.fleet.timeline.now, self.pool
        reaped = pool.reap(now)
        for slot, reason in reaped.evict:
            client: int = slot.holder
            pool.closing(slot, reason, now)
            pool.release(slot, now)
            self.fleet.lose(client, self.fleet.told_to_wait())
        self.check()
        if pool.waiting or (pool.state is PoolState.DRAINING and pool.count(SlotState.FREE) < len(pool.slots)):
            self.watch()
        elif pool.state is PoolState.DRAINING:
            self.fleet.drained(self)

    # Its life.

    def drain(self, seconds: float) -> None:
        self.pool.drain(self.fleet.timeline.now, seconds)
        self.watch()

    def stop(self) -> list[int]:
        """The process ends. Returns the clients whose streams, or attempts, end with it."""
        now = self.fleet.timeline.now
        self.up = False
        cut: list[int] = list(self.backlog)
        for slot in self.pool.close():
            cut.append(slot.holder)
            self.pool.release(slot, now, Reason.SHUTDOWN)
        self.backlog.clear()
        self.replays.clear()
        self.check()
        return cut

    def start(self) -> None:
        """The process begins anew, with an empty pool."""
        self.pool = self._new_pool()
        self.up = True

    def hang_up_all(self) -> list[int]:
        """Something in the network cuts every stream; the node goes on. Returns the clients."""
        now = self.fleet.timeline.now
        cut: list[int] = []
        for slot in self.pool.slots:
            if slot.state is SlotState.OPEN:
                cut.append(slot.holder)
                self.pool.release(slot, now, Reason.CLIENT_CLOSED)
        self.check()
        return cut
