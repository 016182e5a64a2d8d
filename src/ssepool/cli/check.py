"""`ssepool check`: what is weak in a configuration, and what it and a token allow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from ssepool import config
from ssepool.cli.notes import fail, printable, read_token
from ssepool.cli.serve import settings_file
from ssepool.cli.token import describe
from ssepool.topic_rules import PATTERN_PREFIX

if TYPE_CHECKING:
    from ssepool.core.grant import Grant
    from ssepool.core.rights import Rights

EXAMPLES = """\
Example: [bold]ssepool check --config /etc/ssepool.toml[/bold]

What a token allows: [bold]ssepool check --token token.txt --may 'publish orders/42'[/bold]
"""
"""The examples at the end of the help."""


def command(
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings. Default: ssepool.toml, if it is there.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="File with a token; - reads standard input.", metavar="FILE")
    ] = None,
    may: Annotated[
        list[str] | None,
        typer.Option(
            "--may",
            help="What it would do: 'publish TOPIC', 'subscribe TOPIC', 'subscribe pattern:TEXT', 'administer PART'. "
            "Without --token: what everybody may.",
            metavar="WISH",
        ),
    ] = None,
) -> None:
    """Read the settings as `serve` would, from the file and the environment, and say what is weak in them.

    A line for each weakness: the setting to change, and why. The exit code is 1 if there is any.

    With --token or --may: what the settings and the token allow, and why not. The exit code is 1 if anything is not.
    """
    from ssepool.server.weaknesses import weaknesses

    file = settings_file(config_file)
    hub_config, server_config = config.load(file=file, env=os.environ)
    if token is not None or may:
        _tell(hub_config, token, may or [])
        return
    found = list(weaknesses(hub_config, server_config, file))
    for weakness in found:
        print(f"{weakness.setting}: {weakness.why}")
    if found:
        raise typer.Exit(1)
    print("nothing weak was found")


def _tell(hub_config: config.HubConfig, token: str | None, wishes: list[str]) -> None:
    from ssepool.core.grant import STRANGER
    from ssepool.parts import public_of

    grant = STRANGER if token is None else _read(hub_config, token)
    public = public_of(hub_config.access)
    if token is not None:
        for line in describe(grant):
            print(printable(line, ""))
    refused = False
    for wish in wishes:
        why = why_not(wish, grant, public)
        refused |= why is not None
        print(printable(f"{wish}: {'yes' if why is None else f'no, because {why}'}", ""))
    if refused:
        raise typer.Exit(1)


def _read(hub_config: config.HubConfig, place: str) -> Grant:
    from ssepool.errors import TokenExpired
    from ssepool.http.access.tokens import Fault
    from ssepool.parts import tokens_of

    tokens = tokens_of(hub_config)
    if missing := tokens.ring.missing:
        fail(f"{missing}: only a running hub fetches keys; save them in a file to check a token here", 2)
    try:
        return tokens.read(read_token(place))
    except TokenExpired:
        fail("this token does not count: it has just ended")
    except Fault as error:
        fail(f"this token does not count: {error}")


def why_not(wish: str, grant: Grant, public: Rights) -> str | None:
    """Why somebody with this grant may not do this; None if they may. Raises `ConfigError` for another form of wish,
    and `InvalidTopic`."""
    from ssepool.core.grant import AdminPart
    from ssepool.core.topics import OWN_TOPICS, Pattern, check_topic
    from ssepool.errors import ConfigError

    action, _, what = wish.partition(" ")
    if action == "administer" and what in get_args(AdminPart):
        return None if grant.may_administer(what) else f"it has no right to {what}"  # type: ignore[arg-type]
    if action == "publish" and what:
        if check_topic(what).startswith(OWN_TOPICS):
            return f"topics that begin with {OWN_TOPICS} are the hub's own"
        return None if grant.publish.cover(what) else f"no right to publish covers {what!r}{_hint(what, grant.publish)}"
    if action == "subscribe" and what.startswith(PATTERN_PREFIX):
        pattern = Pattern(what.removeprefix(PATTERN_PREFIX))
        pattern.compile()
        covered = grant.subscribe.cover_pattern(pattern) or public.cover_pattern(pattern)
        return None if covered else "no right to subscribe covers all that this pattern matches"
    if action == "subscribe" and what:
        if check_topic(what).startswith(OWN_TOPICS):
            return None if grant.may_administer("metrics") else f"{OWN_TOPICS} takes the right to metrics"
        if grant.subscribe.cover(what) or public.cover(what):
            return None
        return f"no right to subscribe covers {what!r}, and it is not public{_hint(what, grant.subscribe)}"
    raise ConfigError(
        f"--may {wish!r} is not allowed; it takes 'publish TOPIC', 'subscribe TOPIC', 'subscribe pattern:TEXT' or "
        f"'administer PART', where PART is {', '.join(get_args(AdminPart))}"
    )


def _hint(topic: str, rights: Rights) -> str:
    """What is easily mistaken: a pattern that was granted as a name."""
    from ssepool.core.topics import Pattern
    from ssepool.errors import InvalidTopic

    for name in rights.names:
        try:
            if any(sign in name for sign in "*:{(") and Pattern(name).matches(topic):
                return f" ({name!r} is the name of one topic: as a pattern it takes match_type urlpattern)"
        except InvalidTopic:
            continue
    return ""
