"""Two plots: what a delivery and a connection cost, and how that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from benchmarks.figures import cpu, cpu_per_subscription, memory
from benchmarks.scenarios import BARE

BARS = (
    ("CPU per delivery at 5 events/s, us", "a 5", cpu),
    ("CPU per subscription, us", "cf", cpu_per_subscription),
    ("process memory per connection, KiB", "e", memory),
)
OURS_COLOUR, OTHER_COLOUR = "#0a7d5a", "#8a8f98"


def write(runs: list[dict[str, Any]], folder: Path) -> None:
    """Write `costs.png` and, where growth was measured, `growth.png`."""
    figure, axes = pyplot.subplots(1, len(BARS), figsize=(12, 3))
    for axis, (title, scenario, figure_of) in zip(axes, BARS, strict=True):
        found = {run["peer"]: figure_of(run) for run in runs if run["scenario"] == scenario}
        found = {name: value for name, value in found.items() if value is not None}
        names = list(found)[::-1]
        colours = [OURS_COLOUR if name.startswith("ours") else OTHER_COLOUR for name in names]
        bars = axis.barh(names, [found[name] for name in names], color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.margins(x=0.2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    _save(figure, folder / "costs.png")
    if any(run["scenario"].startswith("i ") for run in runs):
        _growth(runs, folder)


def _growth(runs: list[dict[str, Any]], folder: Path) -> None:
    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    for peer in dict.fromkeys(run["peer"] for run in runs if run["scenario"].startswith("i ")):
        points = [
            (int(run["scenario"].split()[1]), cost)
            for run in runs
            if run["peer"] == peer and run["scenario"].startswith("i ") and (cost := cpu(run)) is not None
        ]
        colour = OURS_COLOUR if peer.startswith("ours") else OTHER_COLOUR
        line = ":" if peer == BARE else "-"
        axis.plot(*zip(*points, strict=True), marker="o", linestyle=line, color=colour, label=peer)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("connections", fontsize=9)
    axis.set_ylabel("CPU per delivery, us", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    _save(figure, folder / "growth.png")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
