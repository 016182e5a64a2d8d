"""From a publish to its delivery, on the same node and on another; and what a delivery costs beside `memory://`."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.brokers.kinds import MEMORY, Backend
from benchmarks.brokers.nodes import Node, nodes
from ssepool.bench import Plan, run
from ssepool.bench.process import Processes

SUBSCRIBERS, RATE = 100, 100.0
CROWD, CROWD_RATE = 1000, 50.0


def latency(backend: Backend, *, seconds: float) -> dict[str, Any]:
    """Publish over HTTP on one node to subscribers there, and then to subscribers on another."""
    url = backend.url("latency")
    with nodes(backend.folder, url, url) as (here, there):
        places = {"same node": here, "other node": there}
        return {name: _latency(here, node, seconds) for name, node in places.items()}


def latency_of_memory(backend: Backend, *, seconds: float) -> dict[str, Any]:
    """The same with a hub alone."""
    with nodes(backend.folder, f"{MEMORY.name}://") as (node,):
        return {"same node": _latency(node, node, seconds)}


def fan_out(backend: Backend, *, seconds: float, crowd: int = CROWD, rounds: int = 3) -> dict[str, Any]:
    """CPU of a delivery: of a hub alone, of the node that is published on, of another; in turn: machines drift."""
    url = backend.url("fan")
    with nodes(backend.folder, f"{MEMORY.name}://", url, url) as (alone, here, there):
        server = Processes(backend.pids())
        pairs = {"memory": (alone, alone), "same node": (here, here), "other node": (here, there)}
        costs: dict[str, list[float]] = {name: [] for name in pairs}
        used = server.cpu() or 0.0
        for _ in range(rounds):
            for name, (publishes, subscribes) in pairs.items():
                costs[name].append(_cost(publishes, subscribes, seconds, crowd))
        used = (server.cpu() or 0.0) - used
    published = 2 * rounds * CROWD_RATE * (seconds + min(1.0, seconds))
    ratios = {
        name: [cost / alone for cost, alone in zip(costs[name], costs["memory"], strict=True)]
        for name in ("same node", "other node")
    }
    return {
        "cost": {name: median(rounds) for name, rounds in costs.items()},
        "ratio": {name: median(rounds) for name, rounds in ratios.items()},
        "ratios": ratios,
        "server_cpu_per_event": used / published * 1e6,
    }


def _latency(publishes: Node, subscribes: Node, seconds: float) -> dict[str, Any]:
    report = _run(publishes, subscribes, SUBSCRIBERS, RATE, seconds)
    delivering, publishing = report["delivering"], report["publishing"]
    return {
        **{name: delivering["latency"][name] for name in ("p50", "p99", "max")},
        "answer_p50": publishing["answer"]["p50"],
        "answer_p99": publishing["answer"]["p99"],
        **{name: delivering[name] for name in ("lost", "missed", "doubled", "reordered")},
    }


def _cost(publishes: Node, subscribes: Node, seconds: float, crowd: int) -> float:
    cost: float | None = _run(publishes, subscribes, crowd, CROWD_RATE, seconds)["server"]["cpu_per_delivery"]
    if cost is None:
        raise RuntimeError("this system does not tell what processes use")
    return cost


def _run(publishes: Node, subscribes: Node, subscribers: int, rate: float, seconds: float) -> dict[str, Any]:
    report = run(
        Plan(
            publish=f"{publishes.url}/events",
            subscribe=f"{subscribes.url}/events?topic=bench-{{i}}",
            subscribers=subscribers,
            rate=rate,
            seconds=seconds,
            warmup=min(1.0, seconds),
            settle=0.2,
            pids=(subscribes.pid,),
        )
    ).as_dict()
    for note in report["notes"]:
        print(f"    note: {note}", flush=True)
    return report
