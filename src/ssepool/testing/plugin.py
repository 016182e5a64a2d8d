"""The pytest plugin: all runs of pytest load it where ssepool is installed, so it loads nothing itself until a fixture
is used. It needs no plugin for asyncio, and works with any."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ssepool import Hub
    from ssepool.testing import VirtualClock

BROKERS = "SSEPOOL_TEST_BROKERS"
"""The variable that says on which brokers tests run, apart by commas, where the command line does not."""

_names = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--ssepool-broker`."""
    parser.getgroup("ssepool").addoption(
        "--ssepool-broker",
        action="append",
        default=[],
        metavar="URL",
        help="run the tests that use ssepool_hub on this broker: memory, sqlite, or a URL such as "
        f"redis://127.0.0.1:6379/0, which they may fill; again for several (default: {BROKERS}, else memory)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a broker once on each of them."""
    if "ssepool_broker" in metafunc.fixturenames and not _is_given(metafunc):
        named = os.environ.get(BROKERS, "memory").split(",")
        brokers = metafunc.config.getoption("--ssepool-broker") or [name.strip() for name in named]
        metafunc.parametrize(
            "ssepool_broker", brokers, indirect=True, ids=[name.partition("://")[0] for name in brokers]
        )


def _is_given(metafunc: pytest.Metafunc) -> bool:
    """Whether the test itself says on which brokers it runs."""
    marks = metafunc.definition.iter_markers("parametrize")
    return any("ssepool_broker" in str(mark.args[0]) for mark in marks if mark.args)


@pytest.fixture
def ssepool_broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of the broker of this test: `memory` and `sqlite` stand for one of its own, another URL for itself."""
    name: str = getattr(request, "param", "memory")
    own = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/events{next(_names)}.db"}
    return own.get(name.removesuffix("://"), name)


@pytest.fixture
def ssepool_hub(ssepool_broker: str) -> Hub:
    """A hub on the broker of this test, not opened: for `async with`, or as an application's lifespan."""
    from ssepool import AccessConfig, Hub, HubConfig

    return Hub(
        HubConfig(broker=ssepool_broker, access=AccessConfig(public_topics=("*",)), detach=True, handle_signals=False)
    )


@pytest.fixture
def sse() -> Any:
    """The function `ssepool.testing.stream`."""
    from ssepool.testing import stream

    return stream


@pytest.fixture
def sse_clock() -> Iterator[VirtualClock]:
    """A virtual clock. It begins with the first `stream`, `running`, `recorded` or `advance` of the test."""
    from ssepool.testing.clock import VirtualClock, want

    clock = VirtualClock()
    want(clock)
    yield clock
    want(None)
    clock.end()
