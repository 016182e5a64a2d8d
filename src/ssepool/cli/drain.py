"""`ssepool drain`: have a hub send its clients away before it is stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssepool.cli.notes import LOCAL_PORT, Admin, AdminUrl, Port, TokenFile, administration, fail, note

if TYPE_CHECKING:
    from ssepool.client import Client

EXAMPLES = "Example: [bold]ssepool drain --seconds 60[/bold], then stop the hub"
"""The example at the end of the help."""

LOOK_SECONDS = 0.2
"""Time from one look at the hub's statistics to the next."""
GRACE_SECONDS = 25.0
"""Time beyond that of the drain in which the last clients read their goodbye; after that the hub cuts them off."""


def command(
    admin: Admin = None,
    port: Port = LOCAL_PORT,
    url: AdminUrl = None,
    token_file: TokenFile = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, max=3600, help="Spread over so many seconds.")] = 30.0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all clients are gone.")] = True,
) -> None:
    """Have a hub take no more clients and send those that it has away, evenly; they come back elsewhere.

    For what stops a service: a hub that is draining already is only waited for. It is not opened again; start it anew.
    """
    from ssepool.client import Refused

    with administration(admin, url, port, token_file) as client:
        try:
            client.drain(seconds)
        except Refused as error:
            if error.code != "pool_closed":
                raise
            note(str(error))
        if wait:
            _wait(client, seconds + GRACE_SECONDS)


def _wait(client: Client, max_seconds: float) -> None:
    deadline = time.monotonic() + max_seconds
    while held := _held(client.stats()["pool"]):
        if time.monotonic() > deadline:
            fail(f"connections that are still open after {max_seconds:g} s: {held}")
        time.sleep(LOOK_SECONDS)


def _held(pool: dict[str, Any]) -> int:
    return int(pool["size"] - pool["free"])
