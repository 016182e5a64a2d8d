"""Brokers of every kind for the tests of their contract, on real servers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from histories import Open, opening
from service_fixtures import Get, make_service
from services import Service
from services.kinds import SERVICES

KINDS = ("memory", "sqlite", *SERVICES)

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
async def make(url: str) -> AsyncIterator[Open]:
    """Open brokers on that history; they are closed with the test."""
    async with opening(url) as make:
        yield make


@pytest.fixture
def service(kind: str, tmp_path: Path) -> Iterator[Service]:
    """A server for one test, that may be harmed."""
    service = make_service(kind, tmp_path / kind)
    service.start()
    yield service
    service.kill()


@pytest.fixture
async def opened(service: Service) -> AsyncIterator[Open]:
    """Open brokers on that server; they are closed with the test."""
    async with opening(service.url("test")) as opened:
        yield opened
