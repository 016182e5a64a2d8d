"""Setup: what a run is played with."""

from __future__ import annotations

from dataclasses import dataclass

from simulation import costs
from ssepool.config import OnFull


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A fleet, its clients, and what happens to them. Times in seconds."""

    clients: int = 1_000_000
    nodes: int = 50
    size: int = 22_000
    """Slots of each node: a tenth more than its share of the clients."""
    waiting: int = 1000
    """The setting `max_waiting`."""
    on_full: OnFull = "wait"
    seed: int = 1

    balancer: str = "least"
    """Which node a new connection goes to: `least` (fewest connections), `two` (the better of two by chance),
    `robin` (in turn) or `random`."""
    notice: float = 2.0
    """Until the balancer has seen that a node takes clients, or takes none."""

    retry: float = 3.0
    """The setting `retry`: what clients that are sent away are told to wait."""
    jitter: float = 1.0
    """Up to so many times `retry` on top, by chance. The server's is 1."""
    told: bool = False
    """Whether a stream's first event carries such a `retry:` too. Otherwise a client that loses its node unheard waits
    what its browser waits: the same for all."""
    drain: float = 30.0
    boot: float = 5.0
    """From a node's end to its next life."""

    events: float = 10.0
    """Events a second through the broker. All of them are looked at in a replay."""
    wanted: float = 1.0
    """Events a second that one client gets."""
    history: int = 10_000
    """The setting `history_events`."""
    scanned: float = costs.SCANNED
    """CPU for each event that a replay looks at; 0 for a history that is indexed by topic."""

    backlog: int = 2048
    """The setting `backlog`: connections that the kernel holds for a node that is busy."""
    limit: float = 3600.0
    """The run ends there, whoever is still away."""
