"""`python -m benchmarks.brokers`: start each broker in turn, measure it with one node and two, write the tables."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.brokers import delivering, publishing, recovering, report
from benchmarks.brokers.kinds import KINDS, MEMORY, Backend, Kind, running
from benchmarks.machine import machine, stolen, sync_time
from ssepool.errors import SSEPoolError

FOLDER = Path(__file__).parents[2] / "docs" / "performance"
BROKERS_PAGE = Path(__file__).parents[2] / "docs" / "deploy" / "brokers.md"
RESULTS = Path(__file__).parents[1] / "results"

Scenario = Callable[[Backend], dict[str, Any]]


def scenarios(kind: Kind, *, quick: bool) -> dict[str, Scenario]:
    """What is measured of a broker, by name."""
    if kind is MEMORY:
        return {"latency": lambda backend: delivering.latency_of_memory(backend, seconds=0.3 if quick else 8)}
    if quick:
        return {
            "publish": lambda backend: publishing.measure(backend, seconds=0.05),
            "latency": lambda backend: delivering.latency(backend, seconds=0.3),
            "fan-out": lambda backend: delivering.fan_out(backend, seconds=0.2, crowd=20, rounds=1),
            "recovery": lambda backend: recovering.measure(backend, hangs=0.2, gone=0.1, calm=0.1, rounds=1),
        }
    return {
        "publish": lambda backend: publishing.measure(backend, seconds=3),
        "latency": lambda backend: delivering.latency(backend, seconds=8),
        "fan-out": lambda backend: delivering.fan_out(backend, seconds=4),
        "recovery": recovering.measure,
    }


def main() -> None:
    """Measure what the command line says."""
    arguments = _arguments()
    results = arguments.out / "brokers.json"
    found: dict[str, Any] = {"runs": []}
    if arguments.render or (arguments.update and results.exists()):
        found = json.loads(results.read_text())
    if not arguments.render:
        found |= {"machine": machine() | {"sync_time": sync_time()}, "quick": arguments.quick}
        _measure(found, arguments)
    report.write(found, arguments.out)
    if arguments.out == FOLDER:
        report.fill(found, BROKERS_PAGE)


def _measure(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    for kind in (MEMORY, *KINDS):
        if arguments.broker and kind.name not in arguments.broker:
            continue
        if why := kind.missing():
            print(f"left out: {kind.name}: {why}", flush=True)
            continue
        for name, scenario in scenarios(kind, quick=arguments.quick).items():
            if not arguments.scenario or name in arguments.scenario:
                run = _run(kind, name, scenario)
                report.put(found, run)
                report.save(found, arguments.out)
                print(f"{kind.name}: {name}: {report.line(run)}", flush=True)


def _run(kind: Kind, name: str, scenario: Scenario) -> dict[str, Any]:
    run = {"broker": kind.name, "version": kind.version(), "durability": kind.durability, "scenario": name}
    run["load"] = os.getloadavg()[0]
    before = stolen()
    try:
        with running(kind) as backend:
            run["found"] = scenario(backend)
    except* (SSEPoolError, OSError, RuntimeError, AssertionError, TimeoutError) as errors:
        run["error"] = str(errors.exceptions[0]) or type(errors.exceptions[0]).__name__
    steal, ticks = (after - start for start, after in zip(before, stolen(), strict=True))
    run["stolen"] = steal / max(ticks, 1)
    return run


def _arguments() -> argparse.Namespace:
    names = [kind.name for kind in (MEMORY, *KINDS)]
    parser = argparse.ArgumentParser(prog="scripts/bench --brokers", description=__doc__)
    parser.add_argument("--broker", action="append", choices=names, help="only this one")
    parser.add_argument("--scenario", action="append", choices=("publish", "latency", "fan-out", "recovery"))
    parser.add_argument("--quick", action="store_true", help="a try, whose figures mean nothing")
    parser.add_argument("--update", action="store_true", help="keep of the last run in --out what is not measured anew")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the tables of the last run anew")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for brokers.json and brokers.md; default: docs/performance, for a part: benchmarks/results",
    )
    arguments = parser.parse_args()
    if arguments.out is None:
        part = (arguments.broker or arguments.scenario or arguments.quick) and not arguments.update
        arguments.out = RESULTS if part else FOLDER
    return arguments


if __name__ == "__main__":
    main()
