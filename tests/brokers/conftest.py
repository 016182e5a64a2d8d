"""Brokers of every kind for the tests of their contract, on real servers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service_fixtures import Get
from services.kinds import SERVICES
from ssepool.brokers import connect
from ssepool.brokers.base import Broker
from ssepool.config import HubConfig

KINDS = ("memory", "sqlite", *SERVICES)

Make = Callable[..., Awaitable[Broker]]
_names = itertools.count(1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of broker in turn."""
    kind: str = request.param
    return kind


@pytest.fixture
def url(kind: str, services: Get, tmp_path: Path) -> str:
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
