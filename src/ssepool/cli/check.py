"""`ssepool check`: what is weak in a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ssepool import config
from ssepool.cli.serve import settings_file

EXAMPLES = "Example: [bold]ssepool check --config /etc/ssepool.toml[/bold]"
"""The example at the end of the help."""


def command(
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings. Default: ssepool.toml, if it is there.")
    ] = None,
) -> None:
    """Read the settings as `serve` would, from the file and the environment, and say what is weak in them.

    A line for each weakness: the setting to change, and why. The exit code is 1 if there is any.
    """
    from ssepool.server.weaknesses import weaknesses

    file = settings_file(config_file)
    hub_config, server_config = config.load(file=file, env=os.environ)
    found = list(weaknesses(hub_config, server_config, file))
    for weakness in found:
        print(f"{weakness.setting}: {weakness.why}")
    if found:
        raise typer.Exit(1)
    print("nothing weak was found")
