"""Brokers: where events are kept and shared between processes. One contract, chosen by the URL's scheme."""

from __future__ import annotations

from importlib import import_module
from urllib.parse import urlsplit

from ssepool.brokers.base import Broker
from ssepool.config import HubConfig
from ssepool.errors import ConfigError

SCHEMES = {"memory": "ssepool.brokers.memory:MemoryBroker"}
"""URL scheme to the class that serves it; loaded when it is first named."""


def connect(config: HubConfig) -> Broker:
    """The broker that `config.broker` names, not opened yet. Raises `ConfigError` for an unknown scheme."""
    scheme = urlsplit(config.broker).scheme
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(f"HubConfig.broker has the scheme {scheme!r}, which is not one of {known}")
    module, _, name = SCHEMES[scheme].partition(":")
    broker: Broker = getattr(import_module(module), name)(config)
    return broker
