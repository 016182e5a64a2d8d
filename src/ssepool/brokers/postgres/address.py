"""Address: what the URL of a PostgreSQL broker says."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import conninfo

from ssepool.brokers.postgres.tables import NAME_PATTERN
from ssepool.config import HubConfig
from ssepool.errors import ConfigError
from ssepool.urls import without_password

SECRET_PARAMETERS = ("password", "sslpassword")
"""Parameters that the URL's query must not have, because messages show the query."""


def address(config: HubConfig) -> tuple[str, str]:
    """The connection string for the library, and the name of the history. Raises `ConfigError` for a URL that the
    broker cannot use."""
    parts = urlsplit(config.broker)
    query = parse_qsl(parts.query, keep_blank_values=True)
    keys = [key for key, _ in query]
    if parts.netloc.count("@") > 1 or "@" in "".join([parts.path, parts.fragment, *keys]):
        raise ConfigError(
            "HubConfig.broker is not a URL: in a user's name or password, @ is written %40, / %2F, ? %3F and # %23"
        )
    if shown := [key for key in keys if key in SECRET_PARAMETERS]:
        raise ConfigError(
            f"HubConfig.broker must not have {shown[0]!r} in its query, which is shown: put a password in front of "
            "the @, or use PGPASSWORD, a password file (PGPASSFILE) or a service file (PGSERVICEFILE)"
        )
    name = dict(query).get("name", "ssepool")
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"HubConfig.broker has the name {name!r}; a history in PostgreSQL has a name of 1 to 50 letters, "
            "digits, _ and -"
        )
    rest = urlencode([(key, value) for key, value in query if key != "name"])
    url = urlunsplit(parts._replace(query=rest))
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:  # the only ones that quote the URL
        text = message_of(error).replace(parts.password, "***") if parts.password else message_of(error)
        raise ConfigError(f"HubConfig.broker = {without_password(config.broker)!r} will not do: {text}") from None
    return _completed(given, config.broker_timeout), name


def message_of(error: psycopg.Error) -> str:
    """The error's message in one line."""
    return " ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__


def _completed(given: dict[str, Any], timeout: float) -> str:
    """The connection string, with our defaults."""
    hosts = str(given.get("host") or "").count(",") + 1
    wanted: dict[str, Any] = {
        "connect_timeout": max(2, round(timeout / hosts)),
        "tcp_user_timeout": max(1, round(1000 * timeout)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "target_session_attrs": "read-write",  # of several hosts the one that takes events
        "fallback_application_name": "ssepool",
        "client_encoding": "UTF8",
    }
    return conninfo.make_conninfo(**{**wanted, **given})
