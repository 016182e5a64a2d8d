"""`ssepool serve`: its options are the settings."""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssepool import config
from ssepool.cli.notes import errors_told, note
from ssepool.urls import password_of

if TYPE_CHECKING:
    from ssepool.server.supervisor import Worker

EXAMPLES = """\
Example: [bold]ssepool serve --pool-size 100 --max-waiting 20[/bold]

A flag wins over the environment, which wins over the file: [bold]\\[pool] size = 100[/bold] in ssepool.toml.

The key by which nodes know each other has no flag: [bold]SSEPOOL_CLUSTER_KEY[/bold], or cluster_key in the file.
"""
"""What the help shows below the options."""


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting that is no secret, beside its own parameters; it gets all by
    `Setting.key`."""
    signature = inspect.signature(function, eval_str=True)
    own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *(_option(item) for item in config.settings() if not item.secret)]
    )
    return function


def _option(item: config.Setting) -> inspect.Parameter:
    kind: Any = item.type
    default = item.default
    if typing.get_origin(kind) is tuple:
        kind, default = list[str], list(default)
    name = f"{item.flag}/--no-{item.flag.removeprefix('--')}" if kind is bool else item.flag
    # typer is not told of the variable: what it read there would look like a flag, which wins over the file.
    text = f"{item.help} [dim]\\[env: {item.env}][/dim]"
    optional = isinstance(kind, types.UnionType)
    option = typer.Option(
        default, name, help=text, rich_help_panel=item.section.title(), show_default="none" if optional else True
    )
    return inspect.Parameter(item.key, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


@with_settings
def command(
    ctx: typer.Context,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings. Default: ssepool.toml, if it is there.")
    ] = None,
    **settings: Any,
) -> None:
    """Run the hub: the pool, its HTTP interface and the demo."""
    file = settings_file(config_file)
    flags = {key: value for key, value in settings.items() if _is_given(ctx, key)}
    if password_of(flags.get("broker", "")):
        note(
            "a password in --broker is in the list of processes, for all users of this machine; SSEPOOL_BROKER keeps it"
        )
    hub_config, server_config = config.load(file=file, env=os.environ, flags=flags)

    def announce(url: str, *admin: str) -> None:
        from ssepool.server.systemd import notify

        _announce(url, admin, hub_config.pool.size, server_config)
        notify(f"READY=1\nSTATUS=serving on {url}")

    if server_config.workers > 1:
        from ssepool.server import workers

        if code := workers.supervise(hub_config, server_config, work=_work, on_started=announce):
            raise typer.Exit(code)
        return

    from ssepool.hub import Hub
    from ssepool.server.defaults import with_limits
    from ssepool.server.server import Server, surface

    hub = Hub(with_limits(hub_config, server_config))
    Server(hub, surface(hub, server_config), server_config, on_started=announce, administered=True).run()


def settings_file(given: Path | None) -> Path | None:
    """The file of settings: the one that was given, else `ssepool.toml` if it is there."""
    return given or next(filter(Path.is_file, [Path("ssepool.toml")]), None)


def _work(worker: Worker, hub_config: config.HubConfig, server_config: config.ServerConfig) -> None:
    """A worker's process, whose errors are told as those of the command are."""
    from ssepool.server import workers

    try:
        with errors_told():
            workers.work(worker, hub_config, server_config)
    except typer.Exit as end:
        sys.exit(end.exit_code)


def _is_given(ctx: typer.Context, key: str) -> bool:
    source = ctx.get_parameter_source(key)
    return source is not None and source.name == "COMMANDLINE"


def _announce(url: str, admin: Sequence[str], slots: int, server: config.ServerConfig) -> None:
    """Say where the hub is. The first line is for programs too: they read the port from it."""
    workers = server.workers
    size = f"{slots} slots{f' of {workers} workers' if workers > 1 else ''}"
    lines = {"stream": f"{url}/events?topic=TOPIC", "pool": size, "admin": ", ".join(admin) or "none"}
    if url.startswith("unix:"):  # nothing to click on
        del lines["stream"]
    elif server.dev:
        lines = {"demo": f"{url}/demo", **lines, "pool": f"{size}, {url}/dashboard"}
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        console.print(f"ssepool is serving on [bold cyan]{url}[/]", soft_wrap=True)
        for name, text in lines.items():
            console.print(f"  [dim]{name:<7}[/]{text}", soft_wrap=True)
    else:
        print(f"ssepool is serving on {url}")
        for name, text in lines.items():
            print(f"  {name:<7}{text}")
        sys.stdout.flush()
