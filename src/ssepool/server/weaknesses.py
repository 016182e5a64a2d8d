"""Weaknesses: what is weak in a configuration, and the setting to change."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ssepool.config import AccessConfig, HubConfig, PoolConfig, ServerConfig
from ssepool.http.access.ring import KeyRing, sources_of
from ssepool.server.address import is_loopback
from ssepool.server.defaults import limited, limits_of
from ssepool.urls import password_of


class Weakness(NamedTuple):
    """One thing that an attacker could use."""

    setting: str
    """The setting to change."""
    why: str
    """What is weak, and what to do."""


def weaknesses(hub: HubConfig, server: ServerConfig, file: Path | None = None) -> Iterator[Weakness]:
    """What is weak in these settings, of which some were read from a file."""
    if server.uds is None and not is_loopback(server.host):
        yield from _unlimited(limited(hub))
        if all(map(is_loopback, server.trusted_proxies)):
            yield Weakness(
                "trusted_proxies",
                "of a proxy on another machine nothing is believed: all clients behind it have its address, and one "
                "share of the limits together; name it, if there is one",
            )
    elif hub.access.allowed_hosts:
        # Others reach it through something on this machine that passes them on, and there is no limit by default.
        yield from _unlimited(hub)
    if "*" in hub.access.allowed_hosts:
        yield Weakness(
            "allowed_hosts", "every name is answered to, so a page of any site may point its name here; name them"
        )
    for setting, origins in (("allow_origins", hub.allow_origins), ("publish_origins", hub.publish_origins)):
        if "*" in origins:
            yield Weakness(setting, "pages of every site may do what it opens; name their origins")
    if "*" in server.trusted_proxies:
        yield Weakness("trusted_proxies", "whoever connects is believed to be a proxy; name the addresses of yours")
    for path in KeyRing(sources_of(hub.access)).exposed:
        yield Weakness(
            "token_keys",
            f"others on this machine may read {path}, and whoever has its key may issue tokens; chmod 600 {path}",
        )
    yield from _asked(hub.access)
    if hub.allow_regexp:
        yield Weakness("allow_regexp", "clients may have the hub compile and run regular expressions; leave it off")
    if hub.pool.acquire_timeout > 600:
        yield Weakness(
            "acquire_timeout", "a request may hold a place in the queue for more than 10 minutes; shorten it"
        )
    yield from _broker(hub)
    if file is not None:
        yield from _file(hub, file)


def _asked(access: AccessConfig) -> Iterator[Weakness]:
    parts = urlsplit(access.authorize_url or "")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Weakness(
            "authorize_url", "the cookies of all users go to another machine as they are, for all to read; use https"
        )


def _unlimited(hub: HubConfig) -> Iterator[Weakness]:
    sensible = limits_of(limited(HubConfig(pool=PoolConfig(size=hub.pool.size, max_waiting=hub.pool.max_waiting))))
    missing = {name: sensible[name] for name, value in limits_of(hub).items() if not value}
    if missing:
        proposals = ", ".join(f"{value:g}" for value in missing.values())
        yield Weakness(", ".join(missing), f"one address may take all that there is of these; try {proposals}")


def _broker(hub: HubConfig) -> Iterator[Weakness]:
    scheme = hub.broker.partition(":")[0]
    if scheme in ("memory", "sqlite") or hub.cluster_key:
        return
    if not password_of(hub.broker):
        yield Weakness(
            "cluster_key",
            "the broker's URL has no password, so whoever reaches the broker is believed to be a node; give the broker "
            "one, or set cluster_key in the file or as SSEPOOL_CLUSTER_KEY",
        )


def _file(hub: HubConfig, file: Path) -> Iterator[Weakness]:
    secret = bool(hub.cluster_key or password_of(hub.broker))
    if secret and stat.S_IMODE(file.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH):
        yield Weakness(str(file), f"others on this machine may read it, and it has a secret in it; chmod 600 {file}")
