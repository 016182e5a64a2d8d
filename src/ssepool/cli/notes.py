"""What the commands tell the user beside their results, and the hub that they ask."""

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
LOCAL = "http://127.0.0.1:8000"


def note(text: str) -> None:
    """Tell the user something that is not the command's result."""
    print(f"ssepool: {text}", file=sys.stderr, flush=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """Tell why the command ends, and end it."""
    note(text)
    raise typer.Exit(code)


def how_to_start(error: Unreachable) -> str:
    """What to tell who asked a hub that is not there."""
    return f"{error}; `ssepool serve` starts one here, --url names another"


@contextmanager
def hub(url: str) -> Iterator[Client]:
    """A client for as long as the command runs; without an answer the command ends."""
    from ssepool.client import Client, Unreachable

    with Client(url) as client:
        try:
            yield client
        except Unreachable as error:
            fail(how_to_start(error))


@contextmanager
def errors_told() -> Iterator[None]:
    """End the program with one line for an error of ours: code 2 for what the user wrote, 1 for what went wrong."""
    try:
        yield
    except (ConfigError, InvalidEvent, InvalidTopic) as error:
        fail(str(error), 2)
    except SSEPoolError as error:
        fail(str(error))
