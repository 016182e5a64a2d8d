"""The parts that all commands share: notes to the user beside the results, and the hub to talk to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ssepool.config import KiB
from ssepool.errors import ConfigError, InvalidEvent, InvalidTopic, SSEPoolError

if TYPE_CHECKING:
    from ssepool.client import Client, Unreachable

Url = Annotated[str, typer.Option("--url", envvar="SSEPOOL_URL", help="The hub.", metavar="URL")]
"""The option `--url` of a command."""
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file", help="File with a token; - reads standard input. Default: SSEPOOL_TOKEN.", metavar="FILE"
    ),
]
"""The option `--token-file` of a command. A token itself is never an argument: whoever may list processes reads it."""
TOKEN_VARIABLE = "SSEPOOL_TOKEN"
"""The variable that has a token, where no file is named."""
MAX_TOKEN_FILE_BYTES = 64 * KiB
"""Bytes of a file with a token at most."""
LOCAL = "http://127.0.0.1:8000"
"""Where `ssepool serve` listens by default."""
AdminUrl = Annotated[
    str | None, typer.Option("--url", envvar="SSEPOOL_URL", metavar="URL", help="The hub, over HTTP with a token.")
]
"""The option `--url` of a command that administers."""
Admin = Annotated[
    str | None,
    typer.Option(
        "--admin", metavar="unix:PATH|URL", help="Where the hub's administration is. Default: the socket of --port."
    ),
]
"""The option `--admin` of a command that administers."""
Port = Annotated[
    int, typer.Option("--port", envvar="SSEPOOL_PORT", min=1, max=65535, help="The port of the hub on this machine.")
]
"""The option `--port` of a command that administers."""
LOCAL_PORT = 8000
"""Where `ssepool serve` listens by default."""


def printable(text: str, allowed: str = "\n\t") -> str:
    """The text without control characters and the like, but for those allowed: what others have written could take over
    the terminal with them, or show it in another order."""
    return "".join(char if char.isprintable() or char in allowed else repr(char)[1:-1] for char in text)


def note(text: str, allowed: str = "") -> None:
    """Write a line to standard error: something that is not the command's result."""
    print(f"ssepool: {printable(text, allowed)}", file=sys.stderr, flush=True)


def fail(text: str, code: int = 1, allowed: str = "") -> NoReturn:
    """Say why the command ends, and end it with this exit code. Raises `typer.Exit`."""
    note(text, allowed)
    raise typer.Exit(code)


def how_to_start(error: Unreachable) -> str:
    """The message for a hub that does not answer, with the two ways to get one that does."""
    return f"{error}; `ssepool serve` starts one here, --url names another"


def read_token(place: str) -> str:
    """The token in a file; `-` is standard input. Raises `ConfigError`."""
    try:
        if place == "-":
            text = sys.stdin.buffer.read(MAX_TOKEN_FILE_BYTES)
        else:
            with open(place, "rb") as file:
                text = file.read(MAX_TOKEN_FILE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ConfigError(f"the token in {place} cannot be read: {error}") from None
    return _checked_token(text.decode("latin-1"), place)


def token_of(file: str | None) -> str | None:
    """The token in a file, else that of `SSEPOOL_TOKEN`; None if there is neither. Raises `ConfigError`."""
    if file is not None:
        return read_token(file)
    text = os.environ.get(TOKEN_VARIABLE)
    return _checked_token(text, TOKEN_VARIABLE) if text else None


def _checked_token(text: str, where: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{where} has no token in it: it takes one, alone on its line")
    return token


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
def administration(admin: str | None, url: str | None, port: int, token_file: str | None) -> Iterator[Client]:
    """A client of the hub's administration: at `admin`, else at `url`, else on the Unix socket of the hub of this
    port."""
    from ssepool.client import Client, Unreachable

    token = token_of(token_file)
    headers = {"Authorization": f"Bearer {token}"} if token else None
    with Client(admin or url or _socket_of(port), headers=headers) as client:
        try:
            yield client
        except Unreachable as error:
            fail(f"{error}; `ssepool serve` starts one here, --admin names another")


def _socket_of(port: int) -> str:
    from ssepool.server.place import find_path, searched

    path = find_path(port)
    if path is None:
        fail(
            f"no hub of port {port} has its socket at {searched(port)}; `ssepool serve` starts one here, --port and "
            "--admin name another"
        )
    return f"unix:{path}"


@contextmanager
def errors_told() -> Iterator[None]:
    """End the program with one line for an error of ours.

    The exit code is 2 if the user has to write something else, and 1 if something went wrong.
    """
    try:
        yield
    except ConfigError as error:
        fail(str(error), 2, "\n")  # what it shows of others it shows as Python writes it
    except (InvalidEvent, InvalidTopic) as error:
        fail(str(error), 2)
    except SSEPoolError as error:
        fail(str(error))
