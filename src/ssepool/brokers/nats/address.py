"""Address: what the URL of a NATS broker says."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ssepool.errors import ConfigError

_HOST = re.compile(
    r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,4}|:[1-5][0-9]{4}|:6[0-4][0-9]{3}|:65[0-4][0-9]{2})?"
)


class Address(NamedTuple):
    """`nats://[user:password@|token@]host[:port][,host...][?name=...&replicas=...]`, or `tls://...`."""

    servers: list[str]
    """The URL of each server, without credentials."""
    user: str | None
    """The user's name or, if there is no password, a token."""
    password: str | None
    """The user's password; None if there is none."""
    name: str
    """The name of the stream."""
    replicas: int
    """The number of servers that keep the stream; it counts only when the stream is created."""
    shown: str
    """The URL for messages, without its secrets."""

    @property
    def is_tls(self) -> bool:
        """Whether the connection has to be encrypted."""
        return self.servers[0].startswith("tls:")

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL. Raises `ConfigError` for one that the broker cannot use."""
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, colon, password = login.partition(":")
        secret = f"{user}:***@" if colon else "***@" if user else ""
        shown = parts._replace(netloc=secret + hosts).geturl()
        if not all(_HOST.fullmatch(host) for host in hosts.split(",")) or parts.path not in ("", "/"):
            raise ConfigError(f"HubConfig.broker = {shown!r} is not allowed; it takes {parts.scheme}://host:port")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        name, replicas = query.pop("name", "ssepool"), query.pop("replicas", "1")
        if query:
            bare, unknown = shown.partition("?")[0], next(iter(query))
            raise ConfigError(f"HubConfig.broker = {bare!r} has {unknown!r} in its query; it takes name and replicas")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name):
            raise ConfigError(f"HubConfig.broker: name={name!r} is not allowed; it takes letters, digits, - and _")
        if replicas not in ("1", "2", "3", "4", "5"):
            raise ConfigError(f"HubConfig.broker: replicas={replicas!r} is not allowed; it takes 1 to 5")
        servers = [f"{parts.scheme}://{host}" for host in hosts.split(",")]
        return cls(servers, unquote(user) or None, unquote(password) if colon else None, name, int(replicas), shown)
