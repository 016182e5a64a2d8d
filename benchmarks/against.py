"""`scripts/bench --against REVISION`: this checkout and an earlier revision, in turns, as ratios.

A machine that others use too is faster in one minute and slower in the next. So both are measured in each round, the
changing order, and what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import scenarios
from benchmarks.figures import Run, Value, cpu, cpu_per_subscription, memory, p99, rate, to_last
from benchmarks.peers import PEERS, max_files, started
from benchmarks.scenarios import OURS, PLAIN, Scenario
from ssepool.bench import Plan, run

ROOT = Path(__file__).parent.parent
CHOSEN = ("a 50", "a 5", "cf", "d 10000", "e")
FIGURES = {
    "CPU per delivery": cpu,
    "CPU per subscription": cpu_per_subscription,
    "memory per connection": memory,
    "deliveries a second": rate,
    "p99": p99,
    "until the last has it": to_last,
}


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/bench --against", description=__doc__)
    parser.add_argument("revision", help="what to compare with: a commit, a tag, a branch")
    parser.add_argument("--rounds", type=int, default=5, help="how often each scenario is run with both (default: 5)")
    parser.add_argument("--scenario", action="append", help=f"only this one; default: {', '.join(CHOSEN)}")
    parser.add_argument("--plain", action="store_true", help="through plain ASGI instead of detached sockets")
    arguments = parser.parse_args()
    chosen = arguments.scenario or CHOSEN
    name = PLAIN if arguments.plain else OURS
    with checkout(arguments.revision) as earlier:
        for scenario in scenarios.full(max_files()):
            if scenario.name in chosen and name in scenario.peers:
                compare(scenario, name, earlier, arguments.rounds)


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """The sources of a revision, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "earlier"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, revision], cwd=ROOT, check=True)
        try:
            yield folder / "src"
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def compare(scenario: Scenario, name: str, earlier: Path, rounds: int) -> None:
    """Run a scenario with both in turns, and print each figure: now, earlier, and the median of the ratios."""
    print(f"({scenario.name}) {scenario.title}", flush=True)
    runs: list[tuple[Run, Run]] = []
    for number in range(rounds):
        order = (ROOT / "src", earlier) if number % 2 else (earlier, ROOT / "src")
        found = {sources: measure(scenario, name, sources) for sources in order}
        runs.append((found[ROOT / "src"], found[earlier]))
    for title, figure in FIGURES.items():
        pairs = [(figure(now), figure(then)) for now, then in runs]
        known = [(now, then) for now, then in pairs if now is not None and then]
        if known:
            ratios = sorted(now / then for now, then in known)
            shown = f"{median(now for now, _ in known):12,.2f} {median(then for _, then in known):12,.2f}"
            print(f"  {title:<24}{shown}   x {median(ratios):.3f}   ({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)


def measure(scenario: Scenario, name: str, sources: Path) -> dict[str, Value]:
    """One run with these sources."""
    [peer] = [peer for peer in PEERS if peer.name == name]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(sources)
    try:
        with started(peer, scenario.load["subscribers"]) as running:
            places = {"subscribe": running.subscribe, "publish": running.publish, "pids": running.pids}
            return run(Plan(**{**scenario.load, **peer.load, **places})).as_dict()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


if __name__ == "__main__":
    main()
