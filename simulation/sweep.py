"""Sweep: what a full run plays, part by part."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from simulation.fleet import Fleet
from simulation.outage import Outage
from simulation.scenarios import play
from simulation.setup import Setup


class Run(NamedTuple):
    name: str
    scenario: str
    settings: dict[str, Any]


DRAINS, RETRIES, JITTERS = (0, 5, 10, 30, 60, 120), (1, 3, 5, 10), (0, 0.5, 1, 2)
BALANCERS = ("least", "two", "robin", "random")
EVENTS = (0, 10, 30, 100, 300, 1000)
OUTAGES = (1, 5, 20, 100)
"""Events a second to everybody."""

SLOWER = 1e-6
"""What looking at an event cost in the slowest of several measurements; `costs.SCANNED` is from the quickest."""

FULL = Setup()
TIGHT = Setup(clients=100_000, size=2_200, waiting=100)
"""A tenth of it: the reapers of a million clients who wait in pools that are full take a quarter of an hour."""

SMALL = Setup(clients=100_000, nodes=5, size=30_000)
"""Nodes of the same size, but fewer: where all nodes meet the same, five say it as well as fifty."""

SPREAD = Setup(clients=50_000, nodes=50, size=4_000)
"""As many nodes, but small ones with room for four times their share."""


def _named(scenario: str, **settings: Any) -> Run:
    return Run(" ".join(f"{name}={value}" for name, value in settings.items()) or "as it is", scenario, settings)


def _restarts() -> Iterator[Run]:
    for jitter in JITTERS:
        for drain in DRAINS:
            yield _named("three", drain=drain, retry=3, jitter=jitter)
        for retry in RETRIES:
            if retry != 3:
                yield _named("three", drain=0, retry=retry, jitter=jitter)


def _storms(scenario: str) -> Iterator[Run]:
    yield _named(scenario)
    for jitter in JITTERS:
        yield _named(scenario, told=True, retry=3, jitter=jitter)
    for retry in (5, 10):
        yield _named(scenario, told=True, retry=retry, jitter=1)


def _replays() -> Iterator[Run]:
    common = {"told": True, "limit": 180.0}
    for events in EVENTS:
        yield Run(f"events={events}", "cut", {"events": events, **common})
        yield Run(f"events={events} indexed", "cut", {"events": events, "scanned": 0.0, **common})
        yield Run(f"events={events} slower", "cut", {"events": events, "scanned": SLOWER, **common})
    for history in (1_000, 100_000):
        yield Run(f"events=300 history={history}", "cut", {"events": 300, "history": history, **common})


PARTS: dict[str, tuple[Setup, list[Run]]] = {
    "restart": (FULL, list(_restarts())),
    "rolling": (FULL, [_named("rolling", drain=drain, limit=8000.0) for drain in DRAINS]),
    "balancers": (TIGHT, [_named("rolling", balancer=balancer, limit=7200.0) for balancer in BALANCERS]),
    "full": (replace(TIGHT, on_full="retry"), [_named("rolling", balancer=balancer) for balancer in BALANCERS[1:]]),
    "room": (SPREAD, [_named("rolling", balancer=balancer) for balancer in BALANCERS]),
    "killed": (FULL, list(_storms("killed"))),
    "vanished": (FULL, list(_storms("vanished"))),
    "cut": (FULL, [*_storms("cut"), _named("cut", backlog=16_384)]),
    "replay": (SMALL, list(_replays())),
    "busy": (FULL, [_named("three", events=events, limit=300.0) for events in (10, 100, 300, 1000)]),
}

_fleet: Fleet


def played(part: str, jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Play a part, run by run. The fleet is made once; each run has it as it was, in a forked process of its own."""
    global _fleet
    if part == "broker":
        yield from ((f"rate={rate}", Outage(rate).play()) for rate in OUTAGES)
        return
    setup, runs = PARTS[part]
    _fleet = Fleet(setup)
    gc.freeze()  # a collection would touch, and so copy, every page
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as workers:
        yield from workers.imap(_play, runs, chunksize=1)


def _play(run: Run) -> tuple[str, dict[str, Any]]:
    gc.disable()
    return run.name, play(_fleet, run.scenario, **run.settings)
