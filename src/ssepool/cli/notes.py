"""The parts that all commands share: notes to the user beside the results, and the hub to talk to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ssepool.errors import ConfigError, InvalidEvent, InvalidTopic, SSEPoolError

if TYPE_CHECKING:
    from ssepool.client import Client, Unreachable

Url = Annotated[str, typer.Option("--url", envvar="SSEPOOL_URL", help="The hub.", metavar="URL")]
"""The option `--url` of a command."""
LOCAL = "http://127.0.0.1:8000"
"""Where `ssepool serve` listens by default."""


def printable(text: str, allowed: str = "\n\t") -> str:
    """The text without control characters and the like, but for those allowed: what others have written could take over
    the terminal with them, or show it in another order."""
    return "".join(char if char.isprintable() or char in allowed else repr(char)[1:-1] for char in text)


def note(text: str) -> None:
    """Write a line to standard error: something that is not the command's result."""
    print(f"ssepool: {printable(text, '')}", file=sys.stderr, flush=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """Say why the command ends, and end it with this exit code. Raises `typer.Exit`."""
    note(text)
    raise typer.Exit(code)


def how_to_start(error: Unreachable) -> str:
    """The message for a hub that does not answer, with the two ways to get one that does."""
    return f"{error}; `ssepool serve` starts one here, --url names another"


@contextmanager
def hub(url: str) -> Iterator[Client]:
    """A client of the hub for as long as the command runs. The command ends if no hub answers."""
    from ssepool.client import Client, Unreachable

    with Client(url) as client:
        try:
            yield client
        except Unreachable as error:
            fail(how_to_start(error))


@contextmanager
def errors_told() -> Iterator[None]:
    """End the program with one line for an error of ours.

    The exit code is 2 if the user has to write something else, and 1 if something went wrong.
    """
    try:
        yield
    except (ConfigError, InvalidEvent, InvalidTopic) as error:
        fail(str(error), 2)
    except SSEPoolError as error:
        fail(str(error))
