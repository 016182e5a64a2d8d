"""What happens to a fleet: a rolling restart, the loss of a node, all streams cut at once."""

from __future__ import annotations

from typing import Any

from simulation.fleet import Fleet
from simulation.node import Node
from ssepool.core.states import SlotState

CUT_AT_SECONDS = 1.0
"""When the fault begins, on the timeline."""

PROXY_WAIT_SECONDS = 60.0
"""Time without a byte after which a proxy in front gives a host up: nginx's default for `proxy_read_timeout`."""

HEARTBEAT_SECONDS = 15.0
"""Time from one heartbeat of a stream to the next: the default of the setting `heartbeat_interval`."""


class Scenario:
    """Begins at `CUT_AT_SECONDS`; is over when nothing more will happen by itself."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.over = False

    def begin(self, _: None) -> None:
        raise NotImplementedError

    def drained(self, node: Node) -> None:
        """A node has sent all its clients away."""


class RollingRestart(Scenario):
    """One node after the other: drain, end, boot, and on when the balancer has seen that it is back."""

    def begin(self, _: None) -> None:
        self._left = list(self.fleet.nodes)
        self._next(None)

    def _next(self, _: None) -> None:
        if not self._left:
            self.over = True
            return
        timeline, setup = self.fleet.timeline, self.fleet.setup
        node = self._left.pop(0)
        node.drain(setup.drain)
        timeline.at(timeline.now + setup.notice, self.fleet.balancer.remove, node)

    def drained(self, node: Node) -> None:
        timeline, setup = self.fleet.timeline, self.fleet.setup
        # A balancer that has not yet noticed sends clients here: the node stays to tell them when to come back.
        timeline.at(timeline.now + setup.notice, self._stop, node)

    def _stop(self, node: Node) -> None:
        timeline, setup = self.fleet.timeline, self.fleet.setup
        for client in node.stop():
            self.fleet.fail(client)
        timeline.at(timeline.now + setup.boot, self._start, node)

    def _start(self, node: Node) -> None:
        timeline, setup = self.fleet.timeline, self.fleet.setup
        node.start()
        timeline.at(timeline.now + setup.notice, self._back, node)

    def _back(self, node: Node) -> None:
        self.fleet.balancer.add(node)
        self._next(None)


class ThreeRestarts(RollingRestart):
    """The first three of a rolling restart: what the clients of the second and third meet, all others meet too."""

    def begin(self, _: None) -> None:
        self._left = self.fleet.nodes[:3]
        self._next(None)


class Killed(Scenario):
    """A process dies (`kill -9`): the kernel closes its sockets, and its clients see that at once."""

    def begin(self, _: None) -> None:
        node = self.fleet.nodes[0]
        for client in node.stop():
            self.fleet.lose(client)
        self._removed(node)

    def _removed(self, node: Node) -> None:
        timeline = self.fleet.timeline
        timeline.at(timeline.now + self.fleet.setup.notice, self.fleet.balancer.remove, node)
        self.over = True


class Vanished(Killed):
    """A host vanishes without a word. A proxy in front gives each stream up 60 s after its last heartbeat."""

    def begin(self, _: None) -> None:
        node = self.fleet.nodes[0]
        for client in node.stop():
            noticed = PROXY_WAIT_SECONDS - HEARTBEAT_SECONDS * self.fleet.random.random()
            self.fleet.lose(client, noticed=noticed)
        self._removed(node)


class AllCut(Scenario):
    """Every stream is cut at once, and all nodes are well: a balancer fails over, or a network is away for a moment."""

    def begin(self, _: None) -> None:
        for node in self.fleet.nodes:
            for client in node.hang_up_all():
                self.fleet.lose(client)
        self.over = True


SCENARIOS: dict[str, type[Scenario]] = {
    "rolling": RollingRestart,
    "three": ThreeRestarts,
    "killed": Killed,
    "vanished": Vanished,
    "cut": AllCut,
}


def play(fleet: Fleet, scenario: str, **settings: Any) -> dict[str, Any]:
    """Play one scenario to its end on a fleet that has just been made, and say how it went."""
    fleet.change(**settings)
    fleet.record.began = CUT_AT_SECONDS
    fleet.scenario = SCENARIOS[scenario](fleet)
    fleet.timeline.at(CUT_AT_SECONDS, fleet.scenario.begin)
    fleet.timeline.at(CUT_AT_SECONDS, fleet.sample)
    fleet.timeline.run(fleet.setup.limit)
    fleet.check()
    samples = fleet.record.samples
    return {
        **fleet.record.summary(),
        "still_away": fleet.away,
        "lasted": samples[-1][0],
        "most_on_a_node": max(most for _, _, most, _ in samples),
        "end_on_a_node": [min(held := [node.pool.count(SlotState.OPEN) for node in fleet.nodes]), max(held)],
        "node_peak": max(node.most_arrivals for node in fleet.nodes),
        "node_backlog": max(node.most_backlog for node in fleet.nodes),
        "node_busy": round(max(node.busy for node in fleet.nodes), 2),
        "samples": samples[:: max(1, len(samples) // 150)],
        "per_second": fleet.record.per_second(),
    }
