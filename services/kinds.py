"""Which kinds of brokers have a server."""

from __future__ import annotations

from importlib import import_module

from services import Service

SERVICES = {"redis": "services.redis:Redis", "nats": "services.nats:Nats", "postgres": "services.postgres:Postgres"}
"""Kinds of brokers with a server, and who starts it."""


def load(kind: str) -> type[Service]:
    """Who starts the server of a kind."""
    module, _, name = SERVICES[kind].partition(":")
    cls: type[Service] = getattr(import_module(module), name)
    return cls
