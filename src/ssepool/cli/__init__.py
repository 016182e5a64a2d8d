"""The command `ssepool`, with a module for each subcommand.

A function imports what is heavy (the server, the client, rich) when it needs it, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ssepool.cli import bench, check, drain, kick, publish, serve, stats, subscribe, token, topics
from ssepool.cli.notes import errors_told


class Commands(TyperGroup):
    """The group of all subcommands. It shows an error as one line and an exit code: see `errors_told`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with errors_told():
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of a pipe has left. The buffered output has nowhere to go, and must not fail again at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Server-Sent Events from one managed pool of connections.",
    epilog="Example: [bold]ssepool serve[/bold], then open http://127.0.0.1:8000/demo",
)
"""The command with its subcommands."""
app.command("serve", epilog=serve.EXAMPLES)(serve.command)
app.command("publish", epilog=publish.EXAMPLES)(publish.command)
app.command("subscribe", epilog=subscribe.EXAMPLES)(subscribe.command)
app.command("stats", epilog=stats.EXAMPLES)(stats.command)
app.command("topics", epilog=topics.EXAMPLES)(topics.command)
app.command("drain", epilog=drain.EXAMPLES)(drain.command)
app.command("kick", epilog=kick.EXAMPLES)(kick.command)
app.command("check", epilog=check.EXAMPLES)(check.command)
app.command("token", epilog=token.EXAMPLES)(token.command)
app.command("bench", epilog=bench.EXAMPLES)(bench.command)


def main() -> None:
    """Run the command with the arguments of this process: the entry point of the package."""
    app(prog_name="ssepool")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"ssepool {version('ssepool')}")
        except PackageNotFoundError:
            print("ssepool, not installed but run from its source")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass
