"""Balancer: which node a new connection goes to."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from random import Random

from simulation.node import Node

_connections = attrgetter("connections")


class Balancer:
    """Picks among the nodes that it holds to be ready. It counts connections itself, as balancers do."""

    def __init__(self, policy: str, nodes: list[Node], random: Random) -> None:
        self.ready = list(nodes)
        self._random = random
        self._turn = 0
        self.pick: Callable[[], Node] = {
            "least": self._least,
            "two": self._two,
            "robin": self._robin,
            "random": self._any,
        }[policy]

    def add(self, node: Node) -> None:
        if node not in self.ready:
            self.ready.append(node)

    def remove(self, node: Node) -> None:
        if node in self.ready:
            self.ready.remove(node)

    def _least(self) -> Node:
        return min(self.ready, key=_connections)

    def _two(self) -> Node:
        return min(self._any(), self._any(), key=_connections)

    def _robin(self) -> Node:
        self._turn = (self._turn + 1) % len(self.ready)
        return self.ready[self._turn]

    def _any(self) -> Node:
        return self.ready[int(self._random.random() * len(self.ready))]
