"""`python -m benchmarks`: start each system in turn, load it, write a table and plots."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks import scenarios, table
from benchmarks.machine import machine
from benchmarks.peers import PEERS, Peer, by_url, max_files, started
from benchmarks.scenarios import Scenario
from ssepool.bench import Plan, run
from ssepool.errors import SSEPoolError

FOLDER = Path(__file__).parent.parent / "docs" / "performance"


def main() -> None:
    """Measure what the command line says."""
    arguments = _arguments()
    if arguments.render:
        table.write(json.loads((arguments.out / "results.json").read_text()), arguments.out)
        return
    peers = [*PEERS]
    if arguments.hub:
        name, subscribe, publish = arguments.hub
        peers.append(by_url(name, subscribe, publish, arguments.hub_body, tuple(arguments.hub_pid)))
    chosen = [peer for peer in peers if not arguments.peer or peer.name in arguments.peer]
    present, left_out = [], {}
    for peer in chosen:
        if why := peer.missing():
            left_out[peer.name] = why
            print(f"left out: {peer.name}: {why}", flush=True)
        else:
            present.append(peer)
    every = scenarios.quick(max_files()) if arguments.quick else scenarios.full(max_files())
    found = {"machine": machine(), "left_out": left_out, "quick": arguments.quick, "runs": []}
    if arguments.update:
        earlier = json.loads((arguments.out / "results.json").read_text())["runs"]
        found["runs"] = [run for run in earlier if run["scenario"].split()[0] not in arguments.scenario]
    for scenario in every:
        if arguments.scenario and scenario.name.split()[0] not in arguments.scenario:
            continue
        print(f"({scenario.name}) {scenario.title}", flush=True)
        for peer in present:
            if peer.name in scenario.peers or (peer.command is None and scenario.others):
                found["runs"].append(_measure(peer, scenario))
                table.save(found, arguments.out)
    table.write(found, arguments.out)


def _measure(peer: Peer, scenario: Scenario) -> dict[str, Any]:
    load = os.getloadavg()[0]
    result: dict[str, Any] = {"peer": peer.name, "scenario": scenario.name, "title": scenario.title, "load": load}
    try:
        with started(peer, scenario.load["subscribers"]) as running:
            places = {"subscribe": running.subscribe, "publish": running.publish, "pids": running.pids}
            report = run(Plan(**{**scenario.load, **peer.load, **places})).as_dict()
        result["stall"] = running.longest_stall
    except (SSEPoolError, OSError, RuntimeError) as error:
        result["error"] = str(error)
        print(f"  {peer.name:<18} {error}", flush=True)
        return result
    result |= {name: report[name] for name in ("connecting", "publishing", "delivering", "server", "client")}
    result |= {name: report[name] for name in ("stalled", "cut_off", "notes")}
    if result["delivering"]:
        del result["delivering"]["buckets"]
    print(f"  {peer.name:<18} {table.line(result)}", flush=True)
    for note in result["notes"]:
        print(f"  {'':<18} note: {note}", flush=True)
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some scenarios, smaller, in about two minutes")
    parser.add_argument("--scenario", action="append", help="only this one, by its letter(s): a, b, cf, d, e, g, h, i")
    parser.add_argument("--peer", action="append", help=f"only this one: {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument(
        "--hub", nargs=3, metavar=("NAME", "SUBSCRIBE", "PUBLISH"), help="a hub that is running, by URL"
    )
    parser.add_argument("--hub-body", help="what is posted to it, with {data}; default: as to ours")
    parser.add_argument("--hub-pid", type=int, action="append", default=[], help="its process, for CPU and memory")
    parser.add_argument(
        "--out", type=Path, help="folder for the table; default: docs/performance, for a part: benchmarks/results"
    )
    parser.add_argument("--update", action="store_true", help="put --scenario in the place of those in --out")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the table of the last run anew")
    arguments = parser.parse_args()
    whole = not (arguments.quick or arguments.scenario or arguments.peer or arguments.hub)
    if arguments.out is None:
        arguments.out = FOLDER if whole or arguments.render else Path(__file__).parent / "results"
    return arguments


if __name__ == "__main__":
    main()
