"""Address: what the URL of a Redis broker says."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ssepool.config import HubConfig
from ssepool.errors import ConfigError
from ssepool.urls import without_password

OPTIONS = {
    *("db", "client_name", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"),
    *("ssl_cert_reqs", "ssl_check_hostname"),
}
"""Parameters of redis-py that the URL's query may have."""

NAME_PATTERN = re.compile(r"[\w.:-]{1,100}", re.ASCII)
"""A name that a history may have."""


class Address(NamedTuple):
    """Where a history is."""

    url: str
    """The URL for redis-py."""
    name: str
    """The name of the history."""
    wait: int
    """Replicas that have to have an event before it is acknowledged."""


def address(config: HubConfig) -> Address:
    """What the broker's URL says. Raises `ConfigError` for one that the broker cannot use."""
    parts = urlsplit(config.broker)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:  # the URL is not shown, since the wrong port may be part of a password
        raise ConfigError(
            "HubConfig.broker has a port that is not a number from 1 to 65535; "
            "in a password '/', '#' and '?' are written as %2F, %23 and %3F"
        )
    url, secure = without_password(config.broker), parts.scheme in ("rediss", "valkeys")
    if not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
        raise ConfigError(
            f"HubConfig.broker = {url!r} is not allowed; it takes redis://host:port/N, with the number of a database"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = query.pop("name", "ssepool")
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"HubConfig.broker has the name {name!r}; it takes 1 to 100 letters, digits and _ . : -")
    wait = query.pop("wait", "0")
    if not re.fullmatch("[0-9]{1,2}", wait, re.ASCII):
        raise ConfigError(f"HubConfig.broker has wait={wait!r}; it takes a number of replicas, 0 to 99")
    for option in query:
        if option not in OPTIONS:
            raise ConfigError(
                f"HubConfig.broker has the parameter {option!r}; there are name, wait, {', '.join(sorted(OPTIONS))}"
            )
        if option.startswith("ssl_") and not secure:
            raise ConfigError(f"HubConfig.broker has the parameter {option!r}, which takes rediss:// or valkeys://")
    scheme = "rediss" if secure else "redis"
    return Address(urlunsplit((scheme, parts.netloc, parts.path, urlencode(query), "")), name, int(wait))
