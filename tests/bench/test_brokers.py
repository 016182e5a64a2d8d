"""`scripts/bench --brokers` from its beginning to its tables, with the broker that needs no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU of processes is measured on Linux only")


def bench(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run it, and return the runs that it has written."""
    command = [sys.executable, "-m", "benchmarks.brokers", "--out", str(folder), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, timeout=50, stdout=subprocess.DEVNULL)
    runs: list[dict[str, Any]] = json.loads((folder / "brokers.json").read_text())["runs"]
    return runs


def test_a_quick_run_gives_figures_and_a_part_can_be_measured_anew(tmp_path: Path) -> None:
    quick = ("--quick", "--broker", "sqlite", "--update")  # without "fan-out": `latency` runs the same load tool
    runs = bench(tmp_path, *quick, "--scenario", "latency", "--scenario", "recovery")
    assert [run.get("error") for run in runs] == [None, None]
    found = {run["scenario"]: run["found"] for run in runs}
    assert all(place["p50"] > 0 and place["lost"] == 0 for place in found["latency"].values())
    assert set(found["recovery"]) == {"server hangs", "node killed"}
    for (fault,) in found["recovery"].values():
        assert fault["events"] > 0 and fault["seconds"] > 0
        assert (fault["lost"], fault["doubled"], fault["reordered"]) == (0, 0, 0)
    (publish,) = [run for run in bench(tmp_path, *quick, "--scenario", "publish") if run not in runs]
    assert all(shape["per_second"] > 0 for shape in publish["found"].values())
    assert (tmp_path / "brokers.md").read_text().count("| sqlite | node killed |") == 1
