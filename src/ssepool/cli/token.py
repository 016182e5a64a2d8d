"""`ssepool token`: a token on standard output, and what it grants on standard error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ssepool import config
from ssepool.cli.notes import note
from ssepool.cli.serve import settings_file
from ssepool.core.grant import AdminPart, Grant, PublishPart

EXAMPLES = """\
Example: [bold]ssepool token --token-keys key.txt --issuer me --audience hub --subject u1 --subscribe users/u1[/bold]

A new secret: [bold](umask 077; openssl rand -hex 32 > key.txt)[/bold]
"""
"""The examples at the end of the help."""

Names = list[str] | None
"""An option that may be given several times."""
Keys = Annotated[Names, typer.Option("--token-keys", help="File with the secret or private key. Default: the setting.")]
"""The option `--token-keys`."""
Issuer = Annotated[str | None, typer.Option("--issuer", help="Who issues it. Default: of token_issuers.")]
"""The option `--issuer`."""
Audience = Annotated[str | None, typer.Option("--audience", help="The hub. Default: token_audience.")]
"""The option `--audience`."""
Subscribe = Annotated[Names, typer.Option("--subscribe", help="A topic to read; * = all.")]
"""The option `--subscribe`."""
SubscribePattern = Annotated[Names, typer.Option("--subscribe-pattern", help="A pattern of topics to read.")]
"""The option `--subscribe-pattern`."""
Publish = Annotated[Names, typer.Option("--publish", help="A topic to publish to; * = all.")]
"""The option `--publish`."""
PublishPattern = Annotated[Names, typer.Option("--publish-pattern", help="A pattern of topics to publish to.")]
"""The option `--publish-pattern`."""
PublishParts = Annotated[Names, typer.Option("--publish-part", help=f"May set {', '.join(get_args(PublishPart))}.")]
"""The option `--publish-part`."""
Admin = Annotated[Names, typer.Option("--admin", help=f"May administer {', '.join(get_args(AdminPart))}.")]
"""The option `--admin`."""


def command(
    subject: Annotated[str, typer.Option("--subject", help="Who holds it: the user.")],
    token_keys: Keys = None,
    issuer: Issuer = None,
    audience: Audience = None,
    subscribe: Subscribe = None,
    subscribe_pattern: SubscribePattern = None,
    publish: Publish = None,
    publish_pattern: PublishPattern = None,
    publish_part: PublishParts = None,
    admin: Admin = None,
    expires: Annotated[float, typer.Option("--expires", help="Seconds until it ends.")] = 3600.0,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings. Default: ssepool.toml, if it is there.")
    ] = None,
) -> None:
    """Print a token. What it grants is said on standard error.

    It is signed with the first secret or private key of the issuer. Keys are named by files, never given here: whoever
    may list processes reads what is.
    """
    from ssepool.parts import tokens_of

    flags: dict[str, Any] = {
        "token_keys": token_keys or None,
        "token_issuers": [issuer] if issuer and token_keys else None,
        "token_audience": audience,
    }
    settings, _ = config.load(file=settings_file(config_file), env=os.environ, flags=flags)
    tokens = tokens_of(settings)
    token = tokens.issue(
        subject=subject,
        subscribe=_rights(subscribe, subscribe_pattern),
        publish=_rights(publish, publish_pattern),
        publish_parts=publish_part or (),  # type: ignore[arg-type]
        admin=admin or (),  # type: ignore[arg-type]
        expires_in=expires,
        issuer=issuer,
    )
    print(token)
    for line in describe(tokens.read(token)):
        note(line)


def _rights(names: Names, patterns: Names) -> list[str | dict[str, str]]:
    return [*(names or ()), *({"match": text, "match_type": "urlpattern"} for text in patterns or ())]


def describe(grant: Grant) -> list[str]:
    """What a grant says, line by line."""
    import datetime

    lines = [f"{name}: {value}" for name, value in (("subject", grant.subject), ("issuer", grant.issuer)) if value]
    for name, rights in (("subscribe", grant.subscribe), ("publish", grant.publish)):
        found = [right.match if right.match_type == "exact" else f"pattern {right.match}" for right in rights]
        lines.append(f"may {name}: {', '.join(found) or 'nothing'}")
    for name, parts in (("publish with", grant.publish_parts), ("administer", grant.admin)):
        if parts:
            lines.append(f"may {name}: {', '.join(sorted(parts))}")
    if grant.expires_at is not None:
        ends = datetime.datetime.fromtimestamp(grant.expires_at, datetime.UTC)
        lines.append(f"ends: {ends:%Y-%m-%d %H:%M:%S} UTC")
    return lines
