"""`ssepool kick`: send clients away, and keep them away for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from ssepool.cli.notes import LOCAL_PORT, Admin, AdminUrl, Port, TokenFile, administration, fail
from ssepool.core.bans import KICK_SECONDS

EXAMPLES = "Example: [bold]ssepool kick --user u1 --seconds 600[/bold]"
"""The example at the end of the help."""


def command(
    connection: Annotated[str | None, typer.Argument(help="The id of a connection.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option("--user", help="All connections of this user.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="All connections with this topic or pattern.")] = None,
    ip: Annotated[str | None, typer.Option("--ip", help="All connections from this address.")] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, max=3600, help="Keep them away for so long.")
    ] = KICK_SECONDS,
    admin: Admin = None,
    port: Port = LOCAL_PORT,
    url: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Send one client away, or all of a user, a topic or an address, on whichever node they are; print how many.

    With several options those that all of them fit.
    """
    wanted = {name: value for name, value in {"user": user, "topic": topic, "ip": ip}.items() if value is not None}
    if (connection is None) == (not wanted):
        fail("whom? kick takes the id of a connection, or --user, --topic and --ip", 2)
    with administration(admin, url, port, token_file) as client:
        if connection is not None:
            client.kick(connection, seconds)
            print(1)
            return
        kicked, missing = client.kick_all(**wanted, seconds=seconds)
        print(kicked)
        if missing:
            fail(f"nodes that did not answer, and may have more of them: {', '.join(missing)}")
