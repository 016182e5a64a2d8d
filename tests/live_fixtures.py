"""Fixtures of the tests that run on every path. Each test leaves a pool without clients, no descriptor and a clean log.

A module that shares one server among its tests names its settings in `SETTINGS` and takes `server`; a test that needs
a server of its own takes `start`. Both run once for each of the module's `PATHS` (all of `live.PATHS` by default).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from live import PATHS, LiveServer, Stream, serve, wait_for

TROUBLE = ("Traceback", "ERROR", "never retrieved", "was destroyed but it is pending")
"""What a log must not have, unless a test expects it (`expected_trouble`)."""

Start = Callable[..., LiveServer]
Connect = Callable[..., Stream]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", getattr(metafunc.module, "PATHS", PATHS), scope="module")


@pytest.fixture(scope="module")
def shared(path: str, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """The module's server."""
    with serve(path, **request.module.SETTINGS) as server:
        server.descriptors_at_rest = server.descriptors()
        yield server


@pytest.fixture
def streams() -> list[Stream]:
    return []


@pytest.fixture
def expected_trouble() -> list[str]:
    """Parts of lines that this test's server may well log; a test appends to it."""
    return []


@pytest.fixture
def server(shared: LiveServer, streams: list[Stream], expected_trouble: list[str]) -> Iterator[LiveServer]:
    """The module's server, for a test that leaves it as it was."""
    del shared.log[:]
    yield shared
    at_rest(shared, streams, expected_trouble)


@pytest.fixture
def start(path: str, streams: list[Stream], expected_trouble: list[str]) -> Iterator[Start]:
    """`start(**settings)` is a server of the test's own."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> LiveServer:
            server = stack.enter_context(serve(path, **settings))
            server.descriptors_at_rest = server.descriptors()
            stack.callback(at_rest, server, streams, expected_trouble)
            return server

        yield start


@pytest.fixture
def connect(streams: list[Stream]) -> Connect:
    """`connect(server, *topics, ...)` is a `Stream` that is closed at the end of the test."""

    def connect(*args: Any, **kwargs: Any) -> Stream:
        streams.append(Stream(*args, **kwargs))
        return streams[-1]

    return connect


def at_rest(server: LiveServer, streams: list[Stream], expected_trouble: list[str]) -> None:
    """All clients leave; then no slot is held, nobody waits, no descriptor is left and the log has no error."""
    for stream in streams:
        stream.close()
    if server.process.poll() is None:
        server.wait_pool(reserved=0, open=0, closing=0, waiting=0)
        wait_for(
            lambda: server.descriptors() <= server.descriptors_at_rest,
            what=f"descriptors as at the start, {server.descriptors_at_rest}",
        )
    trouble = [line for line in server.log if any(word in line for word in TROUBLE)]
    unexpected = [line for line in trouble if not any(part in line for part in expected_trouble)]
    assert not unexpected, "".join(server.log)
