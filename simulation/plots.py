"""The plots of docs/scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from simulation.sweep import DRAINS, EVENTS, JITTERS, OUTAGES, RETRIES

COLOURS = ("#0a7d5a", "#8a8f98", "#c2571a", "#2f5d9b")
"""The first two as in docs/performance."""

BALANCERS = {
    "least": "fewest connections",
    "two": "the better of two",
    "robin": "in turn",
    "random": "at random",
}


def write(found: dict[str, Any], folder: Path) -> None:
    """Draw all of them."""
    for name, draw in (("restart", _restart), ("balancers", _balancers), ("cut", _cut), ("replay", _replay)):
        _save(draw(found), folder / f"{name}.png")
    _save(_history(found), folder / "history.png")


def _restart(found: dict[str, Any]) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6))
    runs = found["restart"]
    for jitter, colour in zip(JITTERS, (*COLOURS[1:3], COLOURS[0], COLOURS[3]), strict=True):
        peaks = [runs[f"drain={drain} retry=3 jitter={jitter}"]["peak"] for drain in DRAINS]
        left.plot(range(len(DRAINS)), peaks, marker="o", color=colour, label=_share(jitter))
        longest = [runs[f"drain=0 retry={retry} jitter={jitter}"]["max"] for retry in RETRIES]
        right.plot(range(len(RETRIES)), longest, marker="o", color=colour, label=_share(jitter))
    left.set_xticks(range(len(DRAINS)), [str(drain) for drain in DRAINS])
    left.set_yscale("log")
    right.set_xticks(range(len(RETRIES)), [str(retry) for retry in RETRIES])
    _label(left, "drain, s (retry 3 s)", "attempts in the busiest second")
    _label(right, "retry, s (no drain)", "longest time away, s")
    right.set_ylim(bottom=0)
    return figure


def _balancers(found: dict[str, Any]) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6))
    for (balancer, title), colour in zip(BALANCERS.items(), COLOURS, strict=True):
        style = "--" if balancer == "random" else "-"
        samples = found["room"][f"balancer={balancer}"]["samples"]
        share = 50_000 / 50
        left.plot(
            [when / samples[-1][0] for when, *_ in samples],
            [most / share for _, _, most, _ in samples],
            style,
            color=colour,
            label=title,
        )
        samples = found["balancers"][f"balancer={balancer} limit=7200.0"]["samples"]
        right.plot(
            [when / 60 for when, *_ in samples], [max(away, 1) for _, away, _, _ in samples], style, color=colour
        )
    left.axhline(1.1, color="#cccccc", linewidth=1, zorder=0)
    left.set_ylim(0.9, 2.9)
    right.set_yscale("log")
    _label(left, "share of the rolling restart", "fullest node, in shares of the clients")
    _label(right, "minutes, with 10 % head room", "clients away, of 100,000", legend=False)
    return figure


def _cut(found: dict[str, Any]) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6))
    lines = (
        ("as it is", "browsers' own 3 s and 5 s"),
        ("told=True retry=3 jitter=0", "3 s, no jitter"),
        ("told=True retry=3 jitter=0.5", "3 s + up to 50 %"),
        ("told=True retry=3 jitter=1", "3 s + up to 100 %"),
    )
    for (name, title), colour in zip(lines, COLOURS[1:] + COLOURS[:1], strict=False):
        run = found["cut"][name]
        left.plot([t for t, *_ in run["samples"]], [away / 1000 for _, away, *_ in run["samples"]], color=colour)
        left.lines[-1].set_label(title)
    for (name, title), colour in zip((lines[0], lines[3]), COLOURS[1::-1], strict=True):
        run = found["killed"][name]
        points = run["per_second"]
        right.step([t for t, _ in points], [rate for _, rate in points], where="post", color=colour, label=title)
    _label(left, "seconds since all streams were cut", "thousand clients away")
    _label(right, "seconds since one node was killed", "attempts a second")
    return figure


def _replay(found: dict[str, Any]) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6))
    runs = found["replay"]
    for events, colour in zip((30, 100, 300, 1000), COLOURS, strict=True):
        samples = runs[f"events={events}"]["samples"]
        left.plot(
            [when for when, *_ in samples],
            [away / 1000 for _, away, *_ in samples],
            color=colour,
            label=_events(events),
        )
    rates = [events for events in EVENTS if events]
    ways = ((" slower", "every event, 1.0 us", COLOURS[1]), ("", "every event, 0.6 us", COLOURS[2]))
    for suffix, title, colour in (*ways, (" indexed", "indexed", COLOURS[0])):
        back = [runs[f"events={events}{suffix}"]["back"] / 1000 for events in rates]
        right.plot(range(len(rates)), back, marker="o", color=colour, label=title)
    right.set_xticks(range(len(rates)), [str(rate) for rate in rates])
    right.set_ylim(bottom=0)
    _label(left, "seconds since all streams were cut", "thousand clients away, of 100")
    _label(right, "events a second through the broker", "thousand clients back after 180 s")
    return figure


def _history(found: dict[str, Any]) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6))
    rates = [10, 100, 1_000, 10_000, 100_000]
    absences = (
        ("drain or kill", found["killed"]["told=True retry=3 jitter=1"]["max"]),
        ("broker away 30 s", 30 + found["killed"]["told=True retry=3 jitter=1"]["max"]),
        ("host vanished", found["vanished"]["told=True retry=3 jitter=1"]["max"]),
    )
    for (title, absence), colour in zip(absences, COLOURS, strict=False):
        left.plot(rates, [rate * absence for rate in rates], marker="o", color=colour)
        left.lines[-1].set_label(f"{title}: {absence:.0f} s")
    left.axhline(10_000, color="#cccccc", linewidth=1, zorder=0)
    left.set_xscale("log")
    left.set_yscale("log")
    for rate, colour in zip(OUTAGES, COLOURS, strict=True):
        points = [(t - 35, age) for t, age in found["broker"][f"rate={rate}"]["points"] if t >= 35]
        right.plot(*zip(*points, strict=True), color=colour, label=_events(rate))
    right.set_yscale("log")
    _label(left, "events a second through the broker", "events to keep (line: default)")
    _label(right, "seconds since the broker was back", "age of news at the last client, s")
    return figure


def _events(rate: int) -> str:
    return f"{rate:,} event{'s' if rate > 1 else ''}/s"


def _share(jitter: float) -> str:
    return "no jitter" if not jitter else f"jitter to {jitter * 100:.0f} %"


def _label(axis: Any, across: str, up: str, *, legend: bool = True) -> None:
    axis.set_xlabel(across, fontsize=9)
    axis.set_ylabel(up, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        axis.legend(frameon=False, fontsize=8)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
