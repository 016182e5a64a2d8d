"""The table, the targets and the plots of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Run, Value, cpu, cpu_per_subscription, longest_stall, memory, p99, rate, to_last, value
from benchmarks.scenarios import BARE, BETTER, NCHAN, OURS, PLAIN, STARLETTE, WATCHED

Figure = Callable[[Run], Value]
"""Takes one figure from a run."""
At = Callable[[Figure, str, str], Value]
"""A figure of the run of a scenario, by its name, with a peer."""


def write(found: dict[str, Any], folder: Path) -> None:
    """Write `results.json`, `results.md` and the plots into a folder."""
    found["runs"].sort(key=lambda run: run["scenario"].split()[0])
    save(found, folder)
    text = "\n".join(_markdown(found)) + "\n"
    (folder / "results.md").write_text(text)
    try:
        from benchmarks import plots
    except ImportError as error:
        print(f"no plots: {error}")
    else:
        plots.write(found["runs"], folder)
    print(f"\n{text}\nwritten to {folder}")


def save(found: dict[str, Any], folder: Path) -> None:
    """Write `results.json` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = ",\n".join(json.dumps(_rounded(run)) for run in found["runs"])
    rest = json.dumps({name: part for name, part in found.items() if name != "runs"})
    (folder / "results.json").write_text(f'{rest[:-1]}, "runs": [\n{runs}\n]}}\n')


def _rounded(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _rounded(inner) for name, inner in part.items()}
    return float(f"{part:.5g}") if isinstance(part, float) else part


def line(run: Run) -> str:
    """A run in a line."""
    return ", ".join(f"{name} {text}" for name, text in _cells(run).items() if text)


def _cells(run: Run) -> dict[str, str]:
    if "error" in run:
        return {"failed": run["error"]}
    lost = [f"{value(run, 'delivering', name) or 0:,}" for name in ("lost", "missed", "doubled", "reordered")]
    used = value(run, "client", "delivering", "used")
    waited = value(run, "client", "delivering", "waited")
    return {
        "CPU/delivery us": _number(cpu(run), 2),
        "deliveries/s": _number(rate(run), 0),
        "events/s": _number(value(run, "publishing", "per_second"), 0),
        "p50 ms": _number(value(run, "delivering", "latency", "p50"), 1),
        "p99 ms": _number(p99(run), 1),
        "to last ms": _number(to_last(run), 1),
        "answer max ms": _number(value(run, "publishing", "answer", "max"), 1),
        "longest stall ms": _number(longest_stall(run), 1),
        "CPU/subscription us": _number(cpu_per_subscription(run), 0),
        "connects/s": _number(value(run, "connecting", "per_second"), 0),
        "memory KiB": _number(memory(run), 2),
        "lost/missed/doubled/reordered": "/".join(lost) if run["delivering"] else "",
        "caught up p99 ms": _number(value(run, "delivering", "catch_up", "p99"), 0),
        "grew while publishing MiB": _number(_growth(run), 1) if run["stalled"] else "",
        "let go": f"{run['cut_off']} of {run['stalled']}" if run["stalled"] else "",
        "load before": f"{run['load']:.1f}",
        "client's core": f"{used:.0%}+{waited:.0%}" + (" (*)" if run["client"]["delivering"]["was_bottleneck"] else ""),
    }


def _growth(run: Run) -> Value:
    before, after = value(run, "server", "memory_connected"), value(run, "server", "memory_after")
    return None if before is None or after is None else (after - before) / 1024**2


def _number(found: Value, digits: int) -> str:
    return "" if found is None else f"{found:,.{digits}f}"


def _markdown(found: dict[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    yield (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['system']}, Python {machine['python']}, loopback, "
        f"{machine['date']}; load when it began: {machine['load']:.2f}."
    )
    for name, why in found["left_out"].items():
        yield f"Left out: {name}, because {why}."
    targets = list(_targets(found["runs"]))
    if targets:
        yield "\n## Targets\n"
        yield "| | ours | other | ratio | target | |"
        yield "| --- | ---: | ---: | ---: | --- | --- |"
        yield from targets
    titles = dict.fromkeys((run["scenario"], run["title"]) for run in found["runs"])
    for scenario, title in titles:
        runs = [run for run in found["runs"] if run["scenario"] == scenario]
        cells = [_cells(run) for run in runs]
        names = [name for name in dict.fromkeys(n for row in cells for n in row) if any(row.get(name) for row in cells)]
        yield f"\n### ({scenario}) {title}\n"
        yield f"| | {' | '.join(names)} |"
        yield f"| --- |{' ---: |' * len(names)}"
        for run, row in zip(runs, cells, strict=True):
            yield f"| {run['peer']} | {' | '.join(row.get(name, '') for name in names)} |"


def _targets(runs: list[Run]) -> Iterator[str]:
    by_name = {(run["scenario"], run["peer"]): run for run in runs}

    def at(figure: Figure, scenario: str, peer: str) -> Value:
        return figure(by_name.get((scenario, peer), {}))

    yield from _own_targets(at)
    yield from _plain_targets(at)
    for other in (BETTER, BARE):
        yield from _row(
            f"for comparison, (a) CPU per delivery, us; {other}", at(cpu, "a 50", OURS), at(cpu, "a 50", other)
        )


def _own_targets(at: At) -> Iterator[str]:
    yield from _row("(a) CPU per delivery, us; nchan", at(cpu, "a 50", OURS), at(cpu, "a 50", NCHAN), 0.75)
    for scenario, events in (("a 50", 50), ("a 5", 5)):
        ours, other = at(cpu, scenario, OURS), at(cpu, scenario, STARLETTE)
        yield from _row(f"(a) CPU per delivery, us, at {events} events/s; sse-starlette", ours, other, 0.15)
    batch, single = at(rate, "b batch", OURS), at(rate, "b single", NCHAN)
    yield from _row("(b) batches flat out, deliveries/s; nchan", batch, single, 15, least=True, digits=0)
    yield from _row("(b) batches flat out, p99, ms; nchan", at(p99, "b batch", OURS), at(p99, "b single", NCHAN), 1)
    ours, nchan = at(p99, "b paced", OURS), at(p99, "b single", NCHAN)
    yield from _row("(b) batches at 1.5 million deliveries/s, p99, ms; nchan flat out", ours, nchan, 1)
    yield from _bound("(b) batches flat out, CPU per delivery", at(cpu, "b batch", OURS), 0.6, "us")
    ours, nchan = at(rate, "b single", OURS), at(rate, "b single", NCHAN)
    yield from _row("(b) one event a request, deliveries/s; nchan", ours, nchan, 1, least=True, digits=0)
    stall = at(longest_stall, "b single", WATCHED)
    yield from _bound("(b) one event a request, the event loop's longest stall", stall, 10, "ms")
    yield from _row("(c) time to last, ms; nchan", at(to_last, "cf", OURS), at(to_last, "cf", NCHAN), 0.8, digits=1)
    few, many = at(cpu, "d 100", OURS), at(cpu, "d 10000", OURS)
    yield from _row("(d) CPU per event, us; 10,000 topics to 100", many, few, 1.2)
    yield from _bound("(e) process memory per idle connection", at(memory, "e", OURS), 1, "KiB")
    ours, nchan = at(cpu_per_subscription, "cf", OURS), at(cpu_per_subscription, "cf", NCHAN)
    yield from _row("(f) CPU per subscription, us; nchan", ours, nchan, 0.9, digits=0)
    few, many = at(cpu, "i 1000", OURS), at(cpu, "i 10000", OURS)
    yield from _row("(i) CPU per delivery, us; 10,000 to 1,000", many, few, 1.4)


def _plain_targets(at: At) -> Iterator[str]:
    for scenario, events in (("a 50", 50), ("a 5", 5)):
        ours, other = at(cpu, scenario, PLAIN), at(cpu, scenario, STARLETTE)
        yield from _row(f"plain ASGI: CPU per delivery, us, at {events} events/s; sse-starlette", ours, other, 0.4)
    yield from _row("plain ASGI: memory, KiB; sse-starlette", at(memory, "e", PLAIN), at(memory, "e", STARLETTE), 0.4)


def _row(
    what: str, ours: Value, other: Value, limit: float = 0, *, least: bool = False, digits: int = 2
) -> Iterator[str]:
    if ours is None or not other:
        return
    ratio = ours / other
    met = ratio >= limit if least else ratio <= limit
    sign = ">=" if least else "<="
    if not limit:
        yield f"| {what} | {_number(ours, digits)} | {_number(other, digits)} | {ratio:.2f} | | |"
        return
    cells = (_number(ours, digits), _number(other, digits), f"{ratio:.2f}", f"{sign} {limit:g}")
    yield f"| {what} | {' | '.join(cells)} | {'met' if met else '**missed**'} |"


def _bound(what: str, ours: Value, limit: float, unit: str) -> Iterator[str]:
    if ours is not None:
        met = "met" if ours <= limit else "**missed**"
        yield f"| {what} | {_number(ours, 2)} | | | <= {limit:g} {unit} | {met} |"
