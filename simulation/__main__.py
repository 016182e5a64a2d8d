"""`python -m simulation`: play the parts that are named, or all, and draw the plots of docs/scale."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from simulation import costs, real
from simulation.sweep import PARTS, played

FOLDER = Path(__file__).parent.parent / "docs" / "scale"
NAMES = (*PARTS, "broker")


def main() -> None:
    """Do what the command line says."""
    arguments = _arguments()
    if arguments.parts in (["costs"], ["real"]):
        (costs if arguments.parts == ["costs"] else real).main()
        return
    path = arguments.out / "results.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for part in [] if arguments.render else arguments.parts or NAMES:
        print(part, flush=True)
        began = time.monotonic()
        found[part] = {}
        for name, summary in played(part, arguments.jobs):
            found[part][name] = summary
            print(f"  {name:<36} {line(summary)}", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        save(found, path)
    if arguments.render or not arguments.parts:
        from simulation import plots

        plots.write(found, arguments.out)


def line(summary: dict[str, Any]) -> str:
    """A summary without its curves."""
    return " ".join(f"{name}={value}" for name, value in summary.items() if name not in CURVES)


CURVES = ("samples", "per_second", "points")


def save(found: dict[str, Any], path: Path) -> None:
    """A line for each run, so that a change in one can be read."""
    parts = []
    for part, runs in found.items():
        lines = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(run, separators=(',', ':'))}" for name, run in runs.items()
        )
        parts.append(f"{json.dumps(part)}: {{\n{lines}\n}}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(NAMES)}; or `costs` or `real`, which measure")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; each takes up to 700 MB")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for results and plots")
    parser.add_argument("--render", action="store_true", help="play nothing, draw the plots of the last run anew")
    arguments = parser.parse_args()
    if arguments.parts not in (["costs"], ["real"]) and (unknown := set(arguments.parts) - {*NAMES}):
        parser.error(f"there is no part {unknown.pop()!r}; there are {', '.join(NAMES)}")
    return arguments


if __name__ == "__main__":
    main()
