"""Brokers keep events and share them between processes: one contract (`base`), and a class for each URL scheme."""

from __future__ import annotations

from importlib import import_module
from urllib.parse import urlsplit

from ssepool.brokers.base import Broker
from ssepool.config import HubConfig
from ssepool.errors import ConfigError
from ssepool.urls import without_password

SCHEMES = {
    "memory": "ssepool.brokers.memory:MemoryBroker",
    "sqlite": "ssepool.brokers.sqlite.broker:SqliteBroker",
    "redis": "ssepool.brokers.redis.broker:RedisBroker",
    "rediss": "ssepool.brokers.redis.broker:RedisBroker",
    "valkey": "ssepool.brokers.redis.broker:RedisBroker",
    "valkeys": "ssepool.brokers.redis.broker:RedisBroker",
    "nats": "ssepool.brokers.nats.broker:NatsBroker",
    "tls": "ssepool.brokers.nats.broker:NatsBroker",
    "postgresql": "ssepool.brokers.postgres.broker:PostgresBroker",
    "postgres": "ssepool.brokers.postgres.broker:PostgresBroker",
}
"""The broker's class for each URL scheme, as `module:class`. A module is loaded when a URL first names its scheme."""

EXTRAS = {"redis": "redis", "nats": "nats", "psycopg": "postgres"}
"""The extra of ssepool that installs each optional library."""


def connect(config: HubConfig) -> Broker:
    """The broker that `config.broker` names, not opened yet.

    Raises `ConfigError` for an unknown scheme, for a URL that the broker cannot use, and for a library that is not
    installed.
    """
    try:
        scheme = urlsplit(config.broker).scheme
    except ValueError as error:
        raise ConfigError(f"HubConfig.broker is not a URL: {error}") from None
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(f"HubConfig.broker has the scheme {scheme!r}, which is not one of {known}")
    module, _, name = SCHEMES[scheme].partition(":")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        raise ConfigError(
            f"HubConfig.broker = {without_password(config.broker)!r} needs the library {library!r}, which is not "
            f'installed; install "ssepool[{EXTRAS[library]}]"'
        ) from None
    broker: Broker = getattr(loaded, name)(config)
    return broker
