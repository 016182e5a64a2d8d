"""The tables of the brokers, and their targets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.brokers.kinds import KINDS, MEMORY
from benchmarks.brokers.publishing import SHAPES

Found = dict[str, Any]
ORDER = [kind.name for kind in (MEMORY, *KINDS)]
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
"""What stands around the table in a page."""
MAX_FAN_OUT_RATIO = 1.1
"""A target for every broker: CPU per delivery, to that of memory://."""
MIN_DURABLE_PER_SECOND = 20_000
"""The target of sqlite: events a second on disk, in batches."""
MAX_ACROSS_MILLISECONDS = 5.0
"""The target of redis: the median time to a subscriber on another node."""
DISTURBED_SHARE = 0.03
"""The share of the machine's time that its host gave to others from which a run is named as disturbed."""


def put(found: Found, run: Found) -> None:
    """A run in the place of an earlier one of the same broker and scenario."""
    key = (run["broker"], run["scenario"])
    found["runs"] = [earlier for earlier in found["runs"] if (earlier["broker"], earlier["scenario"]) != key]
    found["runs"] = sorted([*found["runs"], run], key=lambda run: ORDER.index(run["broker"]))


def save(found: Found, folder: Path) -> None:
    """Write `brokers.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = ",\n".join(json.dumps(_rounded(run)) for run in found["runs"])
    rest = json.dumps(_rounded({name: part for name, part in found.items() if name != "runs"}))
    (folder / "brokers.json").write_text(f'{rest[:-1]}, "runs": [\n{runs}\n]}}\n')


def write(found: Found, folder: Path) -> None:
    """Write `brokers.json`, and the table into `brokers.md`, which may have text around it."""
    save(found, folder)
    page = folder / "brokers.md"
    if not page.exists():
        page.write_text(f"# Brokers\n\n{BEGIN}\n{END}\n")
    _fill(page, "\n".join(_tables(found)))
    print(f"written to {page}")


def fill(found: Found, page: Path) -> None:
    """Write the short table into a page."""
    _fill(page, "\n".join(_short(found)))


def line(run: Found) -> str:
    """A run in a line."""
    return str(run.get("error") or json.dumps(_rounded(run["found"])))


def _fill(page: Path, text: str) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} has no {BEGIN} ... {END} to write a table into")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _rounded(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _rounded(inner) for name, inner in part.items()}
    if isinstance(part, list):
        return [_rounded(inner) for inner in part]
    return float(f"{part:.4g}") if isinstance(part, float) else part


def _of(found: Found, scenario: str) -> Iterator[tuple[str, Found]]:
    """The brokers for which there are figures, and these."""
    for run in found["runs"]:
        if run["scenario"] == scenario and "found" in run:
            yield run["broker"], run["found"]


def _tables(found: Found) -> Iterator[str]:
    machine = found["machine"]
    yield (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['system']}, Python {machine['python']}, loopback, "
        f"{machine['date']}. The disk keeps 4 KiB for good (`fsync`) in {machine['sync_time']:.2f} ms."
    )
    yield from _runs(found)
    yield "\n## Targets\n"
    yield "| | measured | target | |"
    yield "| --- | ---: | ---: | --- |"
    yield from _targets(found)
    yield "\n## Publishing\n"
    yield from _publishing(found)
    yield "\n## From publishing to delivery\n"
    yield from _latency(found)
    yield "\n## Fan-out\n"
    yield from _fan_out(found)
    yield "\n## Faults\n"
    yield from _faults(found)


def _runs(found: Found) -> Iterator[str]:
    yield "\n| broker | version | what is safe once it is published |"
    yield "| --- | --- | --- |"
    for broker, run in {run["broker"]: run for run in found["runs"]}.items():
        yield f"| {broker} | {_version(run['version'])} | {run['durability']} |"
    for run in found["runs"]:
        if "error" in run:
            yield f"\n**Failed**: {run['broker']}, {run['scenario']}: {run['error']}"
    disturbed = [run for run in found["runs"] if (run.get("stolen") or 0) > DISTURBED_SHARE]
    if disturbed:
        told = ", ".join(f"{run['broker']} {run['scenario']} ({run['stolen']:.0%})" for run in disturbed)
        yield f"\nThe host gave more than {DISTURBED_SHARE:.0%} of this machine's time to others during: {told}."


def _publishing(found: Found) -> Iterator[str]:
    yield f"| events/s (p50 / p99 of a publish, ms) | {' | '.join(shape.title for shape in SHAPES)} |"
    yield f"| --- |{' ---: |' * len(SHAPES)}"
    for broker, shapes in _of(found, "publish"):
        cells = (f"{it['per_second']:,.0f} ({it['p50']:.2f} / {it['p99']:.2f})" for it in shapes.values())
        yield f"| {broker} | {' | '.join(cells)} |"
    yield f"\n| CPU per event, us: publisher + server | {' | '.join(shape.title for shape in SHAPES)} |"
    yield f"| --- |{' ---: |' * len(SHAPES)}"
    for broker, shapes in _of(found, "publish"):
        cells = (f"{it['cpu_publisher']:.1f} + {it['cpu_server']:.1f}" for it in shapes.values())
        yield f"| {broker} | {' | '.join(cells)} |"


def _latency(found: Found) -> Iterator[str]:
    yield "| ms | same node p50 | p99 | other node p50 | p99 | answer to the publish p50 | p99 |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for broker, places in _of(found, "latency"):
        same, other = places["same node"], places.get("other node", {})
        there = [f"{other[name]:.2f}" if other else "" for name in ("p50", "p99")]
        here = [f"{same[name]:.2f}" for name in ("p50", "p99")]
        answer = [f"{same[f'answer_{name}']:.2f}" for name in ("p50", "p99")]
        yield f"| {broker} | {' | '.join([*here, *there, *answer])} |"


def _fan_out(found: Found) -> Iterator[str]:
    yield (
        "| CPU per delivery, us | memory:// | node that is published on | ratio (of each round) | other node "
        "| ratio (of each round) | server, us per event |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for broker, it in _of(found, "fan-out"):
        cells = [f"{it['cost']['memory']:.2f}"]
        for node, rounds in it["ratios"].items():
            several = ", ".join(f"{ratio:.2f}" for ratio in rounds)
            cells += [f"{it['cost'][node]:.2f}", f"{it['ratio'][node]:.2f} ({several})"]
        yield f"| {broker} | {' | '.join(cells)} | {it['server_cpu_per_event']:,.0f} |"


def _faults(found: Found) -> Iterator[str]:
    yield (
        "| broker | fault | back after, s | longest | longest silence, s | failed attempts | longest attempt, s "
        "| events | lost | doubled | out of order |"
    )
    yield f"| --- | --- |{' ---: |' * 9}"
    for broker, faults in _of(found, "recovery"):
        for fault, rounds in faults.items():
            name = "file locked" if broker == "sqlite" and fault == "server hangs" else fault
            times = [it["seconds"] for it in rounds]
            worst = [f"{max(times):.2f}", f"{max(max(it['silence']) for it in rounds):.2f}"]
            tried = [f"{sum(it['failed'] for it in rounds)}", f"{max(it['longest'] for it in rounds):.2f}"]
            sums = [f"{sum(it[what] for it in rounds):,}" for what in ("events", "lost", "doubled", "reordered")]
            yield f"| {broker} | {name} | {median(times):.2f} | {' | '.join([*worst, *tried, *sums])} |"


def _targets(found: Found) -> Iterator[str]:
    def row(what: str, measured: str, target: str, met: bool) -> str:
        return f"| {what} | {measured} | {target} | {'met' if met else '**missed**'} |"

    for broker, shapes in _of(found, "publish"):
        if broker == "sqlite":
            rate = shapes["batches of 1,000"]["per_second"]
            yield row(
                "sqlite: events/s on disk, in batches of 1,000",
                f"{rate:,.0f}",
                f">= {MIN_DURABLE_PER_SECOND:,}",
                rate >= MIN_DURABLE_PER_SECOND,
            )
    for broker, places in _of(found, "latency"):
        if broker == "redis":
            p50 = places["other node"]["p50"]
            yield row(
                "redis: p50 to another node, ms",
                f"{p50:.2f}",
                f"<= {MAX_ACROSS_MILLISECONDS:g}",
                p50 <= MAX_ACROSS_MILLISECONDS,
            )
    for broker, it in _of(found, "fan-out"):
        for node, ratio in it["ratio"].items():
            what = f"{broker}: CPU per delivery to that of memory://, published on the {node}"
            yield row(what, f"{ratio:.2f}", f"<= {MAX_FAN_OUT_RATIO:g}", ratio <= MAX_FAN_OUT_RATIO)
    rounds = [it for _, faults in _of(found, "recovery") for rounds in faults.values() for it in rounds]
    if rounds:
        harmed = sum(it["lost"] + it["doubled"] + it["reordered"] for it in rounds)
        events = sum(it["events"] for it in rounds)
        yield row(f"all faults: events lost, doubled, out of order, of {events:,}", str(harmed), "0", harmed == 0)


def _short(found: Found) -> Iterator[str]:
    shapes = ("one task", "100 tasks", "batches of 1,000")
    yield (
        f"| events/s | {' | '.join(shapes)} | to another node, ms: p50 / p99 | back after `kill -9`, s "
        "| lost in all faults |"
    )
    yield f"| --- |{' ---: |' * 6}"
    publish, latency, recovery = (dict(_of(found, name)) for name in ("publish", "latency", "recovery"))
    for broker in ORDER:
        if broker not in publish:
            continue
        rates = (f"{publish[broker][shape]['per_second']:,.0f}" for shape in shapes)
        other = latency.get(broker, {}).get("other node")
        across = f"{other['p50']:.1f} / {other['p99']:.1f}" if other else ""
        faults = recovery.get(broker, {})
        killed = [it["seconds"] for it in faults.get("server killed", [])]
        back = f"{median(killed):.2f}" if killed else ""
        lost = sum(it["lost"] for rounds in faults.values() for it in rounds) if faults else ""
        yield f"| {broker} | {' | '.join(rates)} | {across} | {back} | {lost} |"


def _version(text: str) -> str:
    """The number in what a program calls itself."""
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else ""
