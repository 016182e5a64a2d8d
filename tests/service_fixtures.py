"""One running server of each kind of broker, for all tests that do it no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services import Service
from services.kinds import load
from tools import require

Get = Callable[[str], Service]


def make_service(kind: str, directory: Path) -> Service:
    """A server of a kind, not started. Skips the test, or fails it in CI, if its program is missing."""
    cls = load(kind)
    for tool in cls.tools:
        require(tool)
    return cls(directory)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    """One running server a kind."""
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
