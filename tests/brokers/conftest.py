"""Brokers of every kind for the tests of their contract, on real servers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from services import Service
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.config import HubConfig
from tools import require

SERVICES = {"redis": "services.redis:Redis", "nats": "services.nats:Nats", "postgres": "services.postgres:Postgres"}
"""Kinds of brokers with a server, and who starts it."""

KINDS = ("memory", "sqlite", *SERVICES)

Make = Callable[..., Awaitable[Broker]]
_names = itertools.count(1)


def make_service(kind: str, directory: Path) -> Service:
    """A server of a kind, not started. Skips the test, or fails it in CI, if its program is missing."""
    module, _, name = SERVICES[kind].partition(":")
    cls: type[Service] = getattr(import_module(module), name)
    for tool in cls.tools:
        require(tool)
    return cls(directory)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Service]]:
    """One running server a kind, shared by the tests that do it no harm."""
    running: dict[str, Service] = {}

    def get(kind: str) -> Service:
        if kind not in running:
            service = make_service(kind, tmp_path_factory.mktemp(kind))
            service.start()
            running[kind] = service
        return running[kind]

    yield get
    for service in running.values():
        service.stop()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of broker in turn."""
    kind: str = request.param
    return kind


@pytest.fixture
def url(kind: str, services: Callable[[str], Service], tmp_path: Path) -> str:
    """The URL of a history that nobody has used yet."""
    if kind == "memory":
        return "memory://"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return services(kind).url(f"test{next(_names)}")


@pytest.fixture
async def make(url: str) -> AsyncIterator[Make]:
    """Open brokers on that history; they are closed with the test."""
    opened: list[Broker] = []

    async def make(**settings: Any) -> Broker:
        broker = connect(HubConfig(broker=url, **settings))
        opened.append(broker)
        await broker.open()
        return broker

    yield make
    for broker in opened:
        await broker.close()
