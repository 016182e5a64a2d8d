"""`ssepool publish`: publish one event, or one for each line of standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ssepool.cli.notes import LOCAL, TokenFile, Url, fail, hub, note, printable, token_of
from ssepool.config import MiB
from ssepool.errors import InvalidEvent, SSEPoolError

if TYPE_CHECKING:
    from ssepool.client import Client, Event

EXAMPLES = """\
Example: [bold]ssepool publish chat 'hello everybody'[/bold]

Example: [bold]tail -f access.log | ssepool publish --lines --quiet logs -[/bold]
"""
"""The examples at the end of the help."""

READ_BYTES = 256 * 1024
"""Bytes that one read of standard input takes at most."""
MAX_INPUT_BYTES = 16 * MiB
"""Bytes of one event from standard input at most; the hub's own bound is lower by default."""


def command(
    topic: Annotated[str, typer.Argument(help="The topic.", metavar="TOPIC")],
    data: Annotated[
        str | None,
        typer.Argument(
            help="The event's data; - or none reads it from standard input. With --remove none is the key.",
            metavar="DATA",
        ),
    ] = None,
    url: Url = LOCAL,
    token_file: TokenFile = None,
    type: Annotated[str | None, typer.Option("--type", help="The event's type.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The event's id, instead of one that the hub makes.")] = None,
    retry: Annotated[
        int | None, typer.Option("--retry", help="Milliseconds until clients reconnect after a break.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Only for those who may see private events.")] = False,
    key: Annotated[
        str | None, typer.Option("--key", help="It takes the place of the event with this key in the topic.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Nothing is there under the key any more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The data is JSON: check it and send it as such.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of standard input is an event.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print the ids.")] = False,
) -> None:
    """Publish an event, or each line of standard input as an event, and print the ids.

    Of data from standard input the last line end is left out. Bytes that are not UTF-8 become U+FFFD.
    """
    _check_together(data, id, key, remove=remove, lines=lines)
    is_key = remove and data is None
    reads = data in (None, "-") and not is_key

    from ssepool.client import Event

    def event(text: str, name: str = "the data") -> Event:
        data = _from_json(text, name) if as_json and not is_key else text
        return Event(data, (topic,), type, id, retry, private, key, remove)

    if token_file == "-" and reads:
        raise typer.BadParameter("standard input has the data already", param_hint="--token-file")
    with hub(url, token_of(token_file)) as client:
        if lines:
            _publish_lines(client, sys.stdin.buffer, event, skip_blank=as_json, quiet=quiet)
        else:
            text = _read_all(sys.stdin.buffer) if reads else key if is_key else data
            _print_ids(client.publish_many([event(text or "")]), quiet)


def _check_together(data: str | None, id: str | None, key: str | None, *, remove: bool, lines: bool) -> None:
    """Raise `BadParameter` for what does not go together."""
    if remove and key is None:
        raise typer.BadParameter("it needs --key, which says what is gone", param_hint="--remove")
    if lines and remove:
        raise typer.BadParameter("one key is removed, not one a line", param_hint="--remove")
    if lines and data not in (None, "-"):
        raise typer.BadParameter("it reads standard input, so the data must be - or left out", param_hint="--lines")
    if lines and id is not None:
        raise typer.BadParameter("several events cannot have one id", param_hint="--id")


def _publish_lines(
    client: Client, stream: IO[bytes], event: Callable[[str, str], Event], *, skip_blank: bool, quiet: bool
) -> None:
    from ssepool.client import batches

    count = 0
    try:
        with _progress(hidden=not quiet and sys.stdout.isatty()) as advance:
            for lines in _lines(stream):
                events = (event(text, f"line {number}") for number, text in lines if text.strip() or not skip_blank)
                for batch in batches(events):
                    ids = client.publish_many(batch)
                    count += len(ids)
                    _print_ids(ids, quiet)
                    advance(len(ids))
    except SSEPoolError:
        note(f"events published before the error: {count}")
        raise


def _lines(stream: IO[bytes]) -> Iterator[list[tuple[int, str]]]:
    """The numbered lines of a stream, as lists of those that have come: a slow caller gets longer lists."""
    number, rest = 1, b""
    while chunk := stream.read1(READ_BYTES):  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_INPUT_BYTES:
            fail(f"line {number + len(lines)} exceeds {MAX_INPUT_BYTES} bytes")
        if lines:
            yield [(at, _text(line)) for at, line in enumerate(lines, number)]
        number += len(lines)
    if rest:
        yield [(number, _text(rest))]


def _text(line: bytes) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")


def _read_all(stream: IO[bytes]) -> str:
    data = stream.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        fail(f"standard input exceeds {MAX_INPUT_BYTES} bytes; --lines makes an event of each line")
    return _text(data)


def _from_json(text: str, name: str) -> Any:
    import msgspec

    try:
        decoded = msgspec.json.decode(text)
        # What is no string goes out as it was written: a number of ours would lose digits.
        return decoded if isinstance(decoded, str) else msgspec.Raw(text.strip().encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidEvent(f"{name} is not JSON: {error}") from None


def _print_ids(ids: list[str], quiet: bool) -> None:
    if not quiet:
        print("\n".join(printable(id, "") for id in ids), flush=True)


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A function that adds to a count of events on standard error, which shows nothing if that is not a terminal."""
    if hidden or not sys.stderr.isatty():
        yield lambda events: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} events"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("publishing", total=None)
        yield lambda events: progress.advance(task, events)
