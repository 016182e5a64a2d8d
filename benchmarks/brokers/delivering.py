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
    """What a delivery costs a node with this broker, and one with `memory://`, in turn: machines drift."""
    with nodes(backend.folder, f"{MEMORY.name}://", backend.url("fan")) as (alone, node):
        server = Processes(backend.pids())
        costs, others, used = [], [], []
        for _ in range(rounds):
            others.append(_cost(alone, seconds, crowd))
            before = server.cpu() or 0.0
            costs.append(_cost(node, seconds, crowd))
            used.append((server.cpu() or 0.0) - before)
    ratios = [cost / other for cost, other in zip(costs, others, strict=True)]
    return {
        "cpu_per_delivery": median(costs),
        "memory_cpu_per_delivery": median(others),
        "ratio": median(ratios),
        "ratios": ratios,
        "server_cpu_per_event": median(used) / (CROWD_RATE * (seconds + 1)) * 1e6,
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


def _cost(node: Node, seconds: float, crowd: int) -> float:
    cost: float | None = _run(node, node, crowd, CROWD_RATE, seconds)["server"]["cpu_per_delivery"]
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
