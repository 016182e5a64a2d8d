"""`ssepool bench`: put load on any server of Server-Sent Events, and report. Its options are the fields of `Plan`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ssepool.bench.plan import Plan
from ssepool.cli.notes import TokenFile, note, token_of

if TYPE_CHECKING:
    from rich.table import Table

    from ssepool.bench import Progress, Report

EXAMPLES = """\
Example: [bold]ssepool bench --subscribers 1000 --rate 50 --pid $(pgrep -of 'ssepool serve')[/bold]

Example: [bold]ssepool bench --rate 0 --batch 100 --window 1000[/bold] as fast as it goes without losses

Any other server: [bold]--subscribe http://127.0.0.1/sub/{i} --publish http://127.0.0.1/pub/{i} --body '{data}'[/bold]
"""
"""The examples at the end of the help."""

PANELS = {"subscribe": "Subscribers", "publish": "Events", "warmup": "Course", "pids": "Server"}
"""The panels of the help, each under the first field of the plan that it shows."""
ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t"}
"""Escapes for the characters that are hard to type in a shell, in the texts around events."""


def _escaped(text: str) -> str:
    for short, char in ESCAPES.items():
        text = text.replace(char, short)
    return text


def _unescaped(text: str) -> str:
    for short, char in ESCAPES.items():
        text = text.replace(short, char)
    return text


def with_plan(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of `Plan`, beside its own parameters."""
    signature = inspect.signature(function, eval_str=True)
    own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    hints = typing.get_type_hints(Plan)
    options, panel = [], ""
    for item in dataclasses.fields(Plan):
        panel = PANELS.get(item.name, panel)
        options.append(_option(item, hints[item.name], panel))
    function.__signature__ = signature.replace(parameters=[*options, *own])  # type: ignore[attr-defined]
    return function


def _option(item: dataclasses.Field[Any], kind: Any, panel: str) -> inspect.Parameter:
    default, name = item.default, item.name
    if typing.get_origin(kind) is tuple:
        kind, default, name = list[typing.get_args(kind)[0]], [], name.removesuffix("s")  # type: ignore[misc]
    shown: Any = True
    if isinstance(default, str):
        default = _escaped(default)
        shown = bool(default)
    names = ["--" + name.replace("_", "-")]
    option = typer.Option(
        default,
        *(["-n"] if item.name == "subscribers" else []),
        *names,
        help=item.metadata["help"].replace("[", "\\["),
        rich_help_panel=panel,
        show_default=shown,
    )
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


@with_plan
def command(
    *,
    token_file: TokenFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON.", rich_help_panel="Report")
    ] = False,
    **plan: Any,
) -> None:
    """Open many streams, publish, and report what came of it: of any server, not only of this one.

    Each event carries a number and the time it was due. Counted are lost, doubled and reordered events of each
    subscriber; measured are the time until events are read, the rates, and what it cost the server's processes (--pid).

    A terminal shows how far it is. It ends by itself, and closes all connections.
    """
    from ssepool.bench import run

    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plan.items()}
    for name in ("body", "batch_start", "batch_join", "batch_end"):
        values[name] = _unescaped(values[name])
    if token := token_of(token_file):
        for name in ("subscribe_headers", "headers"):
            values[name] = (*values[name], f"Authorization: Bearer {token}")
    checked = Plan(**values)
    with _progress() as show:
        report = run(checked, show)
    for text in report.notes:
        note(text)
    if as_json:
        print(json.dumps(report.as_dict()))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(_table(report))
    else:
        rows = [(f"{group}: {name}", value) for group, name, value in report.rows()]
        width = max(len(name) for name, _ in rows)
        print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def _table(report: Report) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="bold cyan")
    table.add_column()
    table.add_column()
    last = ""
    for group, name, value in report.rows():
        table.add_row("" if group == last else group, name, value)
        last = group
    return table


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A function that shows progress on standard error; `None` if that is not a terminal.

    Another process draws: the time that drawing takes here would be measured as the server's.
    """
    if not sys.stderr.isatty():
        yield None
        return
    drawer = subprocess.Popen([sys.executable, "-c", f"from {__name__} import draw; draw()"], stdin=subprocess.PIPE)
    assert drawer.stdin
    pipe: IO[bytes] | None = drawer.stdin

    def show(progress: Progress) -> None:
        nonlocal pipe
        if pipe:
            try:
                pipe.write(json.dumps(dataclasses.asdict(progress)).encode() + b"\n")
                pipe.flush()
            except BrokenPipeError:
                pipe = None  # the drawing process has ended, which is no reason to stop

    try:
        yield show
    finally:
        drawer.communicate()


def draw() -> None:
    """Draw the progress that comes on standard input, one JSON object on each line, until the input ends."""
    import signal

    from rich.console import Console
    from rich.live import Live

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the measuring process gets it too, and ends this one
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        before: dict[str, Any] = {}
        for line in sys.stdin.buffer:
            now = json.loads(line)
            live.update(_drawing(now, before or now), refresh=True)
            before = now


def _drawing(now: dict[str, Any], before: dict[str, Any]) -> Table:
    from rich.table import Table

    seconds = max(now["seconds"] - before["seconds"], 1e-6)
    latency = now["latency"]
    rows = {
        now["phase"]: f"{now['seconds']:.1f} s",
        "open": f"{now['open']:,} of {now['asked']:,}" + (f", {now['failed']:,} failed" if now["failed"] else ""),
        "published": f"{now['published']:,}",
        "delivered": f"{now['received']:,}, {(now['received'] - before['received']) / seconds:,.0f}/s",
        "to come": f"{now['behind']:,}",
        "latency": f"p50 {latency['p50']:,.1f}  p99 {latency['p99']:,.1f}  max {latency['max']:,.1f} ms"
        if latency
        else "",
    }
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="bold cyan")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table
