"""Fleet: the nodes, the balancer, and the clients as columns of numbers."""

from __future__ import annotations

from array import array
from dataclasses import replace
from random import Random
from typing import Any

from simulation.balancer import Balancer
from simulation.node import Node
from simulation.record import Record
from simulation.setup import Setup
from simulation.timeline import Timeline
from ssepool.core.slot import Slot
from ssepool.core.states import SlotState, WaiterState
from ssepool.errors import PoolClosed, PoolFull

BROWSER_WAITS = ((3.0, 0.75), (5.0, 1.0))
"""What a browser waits before it reconnects unless it was told otherwise, and up to which share of them: Chromium,
Firefox. Neither adds jitter, and neither waits longer after a failure."""

NEAREST_SECONDS, FARTHEST_SECONDS = 0.02, 0.2
"""The least and the most time from an attempt's beginning in the browser to its arrival with its request."""

SYN_RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds after which a SYN without an answer is sent again (Linux and most others); then the attempt has failed."""


class Somebody:
    """An applicant that does wait: what the pool calls back."""

    __slots__ = ("client", "fleet", "node")

    def __init__(self, fleet: Fleet, node: Node, client: int) -> None:
        self.fleet, self.node, self.client = fleet, node, client

    def granted(self, slot: Slot) -> bool:
        self.fleet.timeline.at(self.fleet.timeline.now, self._open, slot)
        return True

    def failed(self, outcome: WaiterState) -> None:
        if outcome is WaiterState.TIMED_OUT:
            self.fleet.record.timed_out += 1
        self.fleet.refuse(self.client)

    def _open(self, slot: Slot) -> None:
        self.fleet.open(self.node, self.client, slot, self.fleet.timeline.now)


class Fleet:
    """All that there is in a run. Making one opens every pool and connects every client; that takes seconds.

    A client is a number. It streams (`slots[client]` is its slot and `lost_at` is negative), or it is away since
    `lost_at`, also while it has a slot and is given what it missed.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.random = Random(setup.seed)
        self.timeline = Timeline()
        self.record = Record()
        self.nodes = [Node(self, number) for number in range(setup.nodes)]
        self.slots: list[Slot | None] = [None] * setup.clients
        self.home: list[Node] = [self.nodes[client % setup.nodes] for client in range(setup.clients)]
        self.lost_at = array("d", [-1.0]) * setup.clients
        self.way = array("d", [self.random.uniform(NEAREST_SECONDS, FARTHEST_SECONDS) for _ in range(setup.clients)])
        self.wait = array("d", [self._browser() for _ in range(setup.clients)])
        """What each EventSource waits before it reconnects: its own until a `retry:` came, and that from then on."""
        self.tries: dict[int, int] = {}
        self.away = 0
        self.scenario: Any = None
        self.balancer = Balancer(setup.balancer, self.nodes, self.random)
        for client in range(setup.clients):
            self._seat(client)

    def _browser(self) -> float:
        chance = self.random.random()
        return next(wait for wait, share in BROWSER_WAITS if chance < share)

    def _seat(self, client: int) -> None:
        node = self.home[client]
        node.connections += 1
        slot = node.pool.acquire(0.0, Somebody(self, node, client))
        assert isinstance(slot, Slot)
        node.pool.start(slot, 0.0)
        slot.holder = client
        self.slots[client] = slot

    def change(self, **settings: Any) -> None:
        """Go on with other settings: anything but clients, nodes, `waiting` and `on_full`."""
        self.setup = setup = replace(self.setup, **settings)
        for node in self.nodes:
            node.pool.resize(setup.size, 0.0)
        self.balancer = Balancer(setup.balancer, self.nodes, self.random)
        if setup.told:
            for client in range(setup.clients):
                self.wait[client] = self.told_to_wait()

    def told_to_wait(self) -> float:
        """A `retry:` as the hub makes it (`Delivery.retry`)."""
        return self.setup.retry * (1 + self.setup.jitter * self.random.random())

    # A client's way.

    def lose(self, client: int, told: float | None = None, *, noticed: float = 0.0) -> None:
        """A stream has ended, with a `retry:` or without. The client sees it `noticed` seconds later."""
        now = self.timeline.now
        self.home[client].connections -= 1
        self.slots[client] = None
        if self.lost_at[client] < 0:
            self.lost_at[client] = now
            self.away += 1
        if told is not None:
            self.wait[client] = told
        self._come_back(client, noticed)

    def _come_back(self, client: int, later: float = 0.0) -> None:
        when = self.timeline.now + later + self.wait[client] + self.way[client]
        self.timeline.at(when, self._attempt, client)

    def _attempt(self, client: int) -> None:
        now = self.timeline.now
        self.record.attempt(now)
        node = self.home[client] = self.balancer.pick()
        node.connections += 1
        node.arrive(client, now)

    def fail(self, client: int) -> None:
        """A network error: an EventSource tries again after its time."""
        self.record.failed += 1
        self.home[client].connections -= 1
        self._come_back(client)

    def drop(self, client: int, node: Node) -> None:
        """The kernel's queue is full and says nothing: the client's own kernel sends its SYN again."""
        self.record.dropped += 1
        tries = self.tries.get(client, 0)
        if tries == len(SYN_RETRY_SECONDS):
            del self.tries[client]
            self.fail(client)
            return
        self.tries[client] = tries + 1
        self.timeline.at(self.timeline.now + SYN_RETRY_SECONDS[tries], self._again, client)

    def _again(self, client: int) -> None:
        self.home[client].arrive(client, self.timeline.now)

    def admit(self, node: Node, client: int, now: float) -> None:
        """The node has read a client's request."""
        self.tries.pop(client, None)
        try:
            place = node.pool.acquire(now, Somebody(self, node, client))
        except (PoolFull, PoolClosed):
            self.refuse(client)
            return
        if isinstance(place, Slot):
            self.open(node, client, place, now)
        else:
            self.record.queued += 1
            node.watch()

    def refuse(self, client: int) -> None:
        """Answered with 200, a `retry:`, and the end of the response."""
        self.record.refused += 1
        self.home[client].connections -= 1
        self.wait[client] = self.told_to_wait()
        self._come_back(client)

    def open(self, node: Node, client: int, slot: Slot, now: float) -> None:
        """The stream is open; what the client missed comes first."""
        node.pool.start(slot, now)
        slot.holder = client
        self.slots[client] = slot
        if self.setup.told:
            self.wait[client] = self.told_to_wait()
        if self.setup.events:
            node.replays.append((client, slot, self.lost_at[client] * self.setup.events))
        else:
            self.live(client, now)

    def live(self, client: int, now: float) -> None:
        """The client has all that it missed and gets what is new."""
        self.record.away.append(now - self.lost_at[client])
        self.lost_at[client] = -1.0
        self.away -= 1

    # The run.

    def drained(self, node: Node) -> None:
        """A node has sent all its clients away."""
        self.scenario.drained(node)

    def sample(self, _: None = None) -> None:
        """Write down where everybody is, each second, until the scenario is over and everybody is back."""
        held = [node.pool.count(SlotState.OPEN) for node in self.nodes]
        now = self.timeline.now
        self.record.samples.append((round(now - self.record.began, 1), self.away, max(held), min(held)))
        if now < self.setup.limit and (self.away or not self.scenario.over):
            self.timeline.at(now + 1.0, self.sample)

    def check(self) -> None:
        """Every client is in one place, and every pool's sum holds."""
        streaming = sum(since < 0 for since in self.lost_at)
        assert streaming + self.away == self.setup.clients
        assert len([slot for slot in self.slots if slot is not None]) == sum(
            node.pool.count(SlotState.OPEN) for node in self.nodes
        )
        for node in self.nodes:
            node.check()
            for slot in node.pool.slots:
                assert slot.state is not SlotState.OPEN or self.slots[slot.holder] is slot
