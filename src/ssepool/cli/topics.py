"""`ssepool topics`: what a hub keeps of each topic, who listens, and how often is published to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ssepool.cli.notes import LOCAL_PORT, Admin, AdminUrl, Port, TokenFile, administration, note, printable
from ssepool.cli.stats import readable

if TYPE_CHECKING:
    from rich.table import Table

EXAMPLES = "Example: [bold]ssepool topics --sort rate --prefix answers/[/bold]"
"""The example at the end of the help."""

COLUMNS = ("events", "bytes", "subscribers", "by_pattern", "rate")
"""What is shown of each topic, in front of its name."""


class _Row(msgspec.Struct):
    """A topic, as far as it is shown."""

    topic: str
    events: int
    bytes: int
    subscribers: int
    by_pattern: int
    rate: float


class _Page(msgspec.Struct):
    """The answer of GET /topics, as far as it is shown."""

    topics: list[_Row]
    next: str | None
    missing: list[str]


def command(
    admin: Admin = None,
    port: Port = LOCAL_PORT,
    url: AdminUrl = None,
    token_file: TokenFile = None,
    sort: Annotated[
        str, typer.Option("--sort", help="Those with the most events, bytes or subscribers, or rate; or by name.")
    ] = "bytes",
    prefix: Annotated[str, typer.Option("--prefix", help="Only those whose names begin so.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many of them.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="With --sort name: those behind this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON of GET /topics, a line.")] = False,
) -> None:
    """Print the biggest topics of a hub, of all of its nodes: a table on a terminal, else plain lines."""
    wanted: dict[str, str | int] = {
        "sort": sort,
        "prefix": prefix,
        "limit": limit,
        **({} if after is None else {"after": after}),
    }
    with administration(admin, url, port, token_file) as client:
        answer = client.topics(**wanted)
    if as_json:
        print(json.dumps(answer))
        return
    page = _read(answer)
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_table(page))
    else:
        print("\n".join(_plain(page)))
    if page.next is not None:
        note(f"there are more: --after {page.next!r}")
    if page.missing:
        note(f"nodes that did not answer, whose subscribers are not counted: {', '.join(page.missing)}")


def _read(answer: dict[str, Any]) -> _Page:
    from ssepool.client import ClientError

    try:
        return msgspec.convert(answer, _Page)
    except msgspec.ValidationError as error:
        raise ClientError(f"the hub's topics are of another version ({error}); --json shows what they say") from None


def _plain(page: _Page) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [(*COLUMNS, "topic")]
    rows += [(*(str(getattr(row, name)) for name in COLUMNS), printable(row.topic, "")) for row in page.topics]
    for *values, topic in rows:
        yield f"{'  '.join(f'{value:>11}' for value in values)}  {topic}"


def _table(page: _Page) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold cyan")
    table.add_column("topic", overflow="fold")
    for name in COLUMNS:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for row in page.topics:
        values = [readable(name, getattr(row, name)) for name in COLUMNS[:-1]]
        table.add_row(Text(printable(row.topic, "")), *values, f"{row.rate:,.1f}/s")
    return table
