"""`ssepool subscribe`: print events as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from ssepool.cli.notes import LOCAL, TokenFile, Url, fail, how_to_start, note, printable, token_of

if TYPE_CHECKING:
    from ssepool.client import AsyncClient, Message, Unreachable

EXAMPLES = """\
Example: [bold]ssepool subscribe chat orders/42[/bold]

Example: [bold]ssepool subscribe --pattern 'orders/:id' --last-event-id earliest --json --count 10[/bold]
"""
"""The examples at the end of the help."""

PATIENCE_SECONDS = 2.0
"""Time without an answer after which a note says that the hub has no free slot yet."""


def command(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics.", metavar="TOPIC")] = None,
    patterns: Annotated[
        list[str] | None, typer.Option("--pattern", help="A URL Pattern over topics; may be given several times.")
    ] = None,
    url: Url = LOCAL,
    token_file: TokenFile = None,
    last_event_id: Annotated[
        str, typer.Option("--last-event-id", help="Begin behind this event; earliest = with all that are kept.")
    ] = "",
    last: Annotated[
        int | None, typer.Option("--last", min=1, max=1000, help="Begin with the newest so many events of each topic.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object with type, data and id a line.")] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many events.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="End after so many seconds.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print the hub's own events (ssepool.*) too.")] = False,
) -> None:
    """Print events as they come, reconnecting as a browser does.

    A terminal shows id, type and data; a pipe or a file gets the data alone.

    The exit code is 1 if fewer events came than --count.
    """
    if not topics and not patterns:
        raise typer.BadParameter("name at least one, or give a --pattern", param_hint="TOPIC")

    if last is not None and last_event_id:
        raise typer.BadParameter(f"--last-event-id {last_event_id!r} says already where to begin", param_hint="--last")
    begin = f"last={last}" if last else last_event_id
    import asyncio

    from ssepool.client import AsyncClient

    token = token_of(token_file)
    show = _show_json if as_json else _show_in_colour() if sys.stdout.isatty() else _show_plain

    async def run() -> int:
        async with AsyncClient(url, token=token) as client:
            follower = Follower(client, show, everything=everything, max_events=count)
            try:
                async with asyncio.timeout(timeout) as limit:
                    await follower.follow(topics or [], patterns or [], begin)
            except TimeoutError:
                if not limit.expired():
                    raise
            return follower.seen

    seen = asyncio.run(run())
    if count and seen < count:
        fail(f"{seen} of {count} events came")


class Follower:
    """Prints the events of a subscription, and notes about its connection."""

    def __init__(
        self, client: AsyncClient, show: Callable[[Message], None], *, everything: bool, max_events: int | None
    ) -> None:
        """`show` prints an event, `everything` is whether the hub's own are printed too.

        `max_events` is the number of events after which it ends; `None` is any number.
        """
        self.seen = 0
        """How many events have been printed."""
        self._client = client
        self._show = show
        self._everything = everything
        self._max_events = max_events
        self._was_open = False

    async def follow(self, topics: list[str], patterns: list[str], last_event_id: str) -> None:
        """Print events until there were `max_events`, or the hub ends the subscription for good. Raises
        `ClientError`."""
        messages = self._client.subscribe(
            topics, patterns=patterns, last_event_id=last_event_id, on_open=self._on_open, on_lost=self._on_lost
        )
        self._expect_head(0)
        try:
            async with aclosing(messages):
                async for message in messages:
                    own = message.type.startswith("ssepool.")
                    if own:
                        _explain(message)
                    if not own or self._everything:
                        self._show(message)
                        self.seen += 1
                    if self.seen == self._max_events:
                        return
        finally:
            self._waiting.cancel()
        note("the hub ended the subscription for good")

    def _on_open(self) -> None:
        self._was_open = True
        self._waiting.cancel()

    def _on_lost(self, error: Unreachable | None, seconds: float) -> None:
        if error and not self._was_open:
            fail(how_to_start(error))
        note(f"{error or 'the hub ended the stream'}; reconnecting in {seconds:.1f} s")
        self._expect_head(seconds)

    def _expect_head(self, seconds: float) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(seconds + PATIENCE_SECONDS, note, "waiting for a free slot")


def _explain(message: Message) -> None:
    """Write a note that says in words what one of the hub's own events means for the subscription."""
    try:
        data = json.loads(message.data)
    except ValueError:
        return
    if not isinstance(data, dict):
        return
    if message.type == "ssepool.queued":
        note(f"waiting for a free slot: {data.get('position')} of {data.get('waiting')}")
    elif message.type == "ssepool.gap":
        note(f"events are missing after {data.get('requested')}: {data.get('reason')}")
    elif message.type == "ssepool.close":
        note(f"the hub closes the stream: {data.get('reason')}")


def _show_plain(message: Message) -> None:
    print(message.data, flush=True)


def _show_json(message: Message) -> None:
    fields = {"type": message.type, "data": message.data, "id": message.id}
    text = json.dumps(fields, ensure_ascii=False)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    print(text, flush=True)


def _show_in_colour() -> Callable[[Message], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)

    def show(message: Message) -> None:
        kind = "" if message.type == "message" else printable(message.type, "") + "  "
        parts = ((printable(message.id, "") + "  ", "dim"), (kind, "cyan"), printable(message.data))
        console.print(Text.assemble(*parts), soft_wrap=True)

    return show
