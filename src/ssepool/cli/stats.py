"""`ssepool stats`: the numbers of a hub."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from ssepool.cli.notes import LOCAL_PORT, Admin, AdminUrl, Port, TokenFile, administration, printable
from ssepool.core.report import NodeReport

if TYPE_CHECKING:
    from rich.columns import Columns

EXAMPLES = "Example: [bold]ssepool stats --watch 2[/bold]"
"""The example at the end of the help."""

T = TypeVar("T")


def command(
    admin: Admin = None,
    port: Port = LOCAL_PORT,
    url: AdminUrl = None,
    token_file: TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON of GET /pool, a line.")] = False,
    watch: Annotated[float | None, typer.Option("--watch", min=0.1, help="Again every so many seconds.")] = None,
) -> None:
    """Print the numbers of a hub: a table on a terminal, else plain lines."""
    with administration(admin, url, port, token_file) as client:
        if as_json or not sys.stdout.isatty():
            for numbers in _again(client.stats, watch):
                print(json.dumps(numbers) if as_json else _plain(numbers), flush=True)
            return
        from rich.console import Console
        from rich.live import Live

        if watch is None:
            Console().print(_tables(client.stats()))
            return
        with Live(auto_refresh=False) as live:
            for numbers in _again(client.stats, watch):
                live.update(_tables(numbers), refresh=True)


def _again(ask: Callable[[], T], seconds: float | None) -> Iterator[T]:
    yield ask()
    while seconds is not None:
        time.sleep(seconds)
        yield ask()


def _rows(numbers: dict[str, Any], group: str = "hub") -> Iterator[tuple[str, str, Any]]:
    """The numbers of a report as group, name and value; nested numbers make groups of their own, behind the others.

    These names are those of the answer, so a field that a report gets one day is shown without a change here.
    """
    for name, value in numbers.items():
        if name != "workers" and not isinstance(value, dict):
            yield group, name, value
    for name, value in numbers.items():
        if isinstance(value, dict):
            yield from _rows(value, name)
    for worker in _workers(numbers):
        yield from _rows(_in_short(worker), f"worker {worker.worker}")


def _workers(numbers: dict[str, Any]) -> list[NodeReport]:
    """The reports of the workers. Raises `ClientError` if they are not those of this version of ssepool."""
    from ssepool.client import ClientError

    try:
        return msgspec.convert(numbers.get("workers", []), list[NodeReport])
    except msgspec.ValidationError as error:
        raise ClientError(f"the hub's workers are of another version ({error}); --json shows what they say") from None


def _in_short(worker: NodeReport) -> dict[str, Any]:
    """The numbers that differ from worker to worker; the sums of all stand in the other groups."""
    pool = worker.pool
    return {"pid": worker.pid, "free": pool.free, "open": pool.open, "waiting": pool.waiting, "size": pool.size}


def _plain(numbers: dict[str, Any]) -> str:
    rows = [(f"{group}.{name}", value) for group, name, value in _rows(numbers)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(printable(f"{name:<{width}}  {value}", "") for name, value in rows)


def _tables(numbers: dict[str, Any]) -> Columns:
    """A table for each group, beside each other to fit on a screen; reasons that never occurred are left out."""
    from rich.columns import Columns
    from rich.table import Table
    from rich.text import Text

    tables: dict[str, Table] = {}
    for group, name, value in _rows(numbers):
        if group not in tables:
            tables[group] = Table(
                title=Text(printable(group, "")), box=None, show_header=False, title_style="bold cyan", min_width=24
            )
            tables[group].add_column()
            tables[group].add_column(justify="right")
        if group != "released" or value:
            tables[group].add_row(
                *(Text(printable(text, "")) for text in (name.replace("_", " "), readable(name, value)))
            )
    return Columns(tables.values(), padding=(1, 4))


def readable(name: str, value: Any) -> str:
    """A number for people: bytes with a unit, times in seconds, and separators between thousands."""
    if "bytes" in name:
        unit = min(3, max(0, int(value).bit_length() - 1) // 10)
        return f"{value / 1024**unit:.1f} {('B', 'KiB', 'MiB', 'GiB')[unit]}" if unit else f"{value} B"
    if isinstance(value, float):
        return f"{value:,.1f} s"
    return f"{value:,}" if isinstance(value, int) else str(value)
