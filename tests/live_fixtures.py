"""Fixtures of the tests that run on every path. Each test leaves a pool without clients, no descriptor and a clean log.

A module that shares one server among its tests names its settings in `SETTINGS` and takes `server`; a test that needs
a server of its own takes `start`. Both run on each path, or only on those of the mark `paths`. There is one more path
than servers have: `protocol`, on which a request is not recognised at `accept` and is detached by uvicorn's protocol.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wire
from live import PATHS as SERVERS
from live import LiveServer, Stream, serve, wait_for

PATHS = ("protocol", *SERVERS)

TROUBLE = ("Traceback", "ERROR", "never retrieved", "was destroyed but it is pending")
"""What a log must not have, unless a test expects it (`expected_trouble`)."""

Start = Callable[..., LiveServer]
Connect = Callable[..., Stream]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "paths(*names): the only paths on which this holds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("paths")
        metafunc.parametrize("path", marker.args if marker else PATHS, scope="module")


@pytest.fixture(scope="module")
def shared(path: str, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """The module's server."""
    with serve(served(path), **request.module.SETTINGS) as server:
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
            server = stack.enter_context(serve(served(path), **settings))
            server.descriptors_at_rest = server.descriptors()
            stack.callback(at_rest, server, streams, expected_trouble)
            return server

        yield start


def served(path: str) -> str:
    """The server of a path."""
    return "detached" if path == "protocol" else path


@pytest.fixture
def connect(path: str, streams: list[Stream]) -> Connect:
    """`connect(server, *topics, ...)` is a `Stream` that is closed at the end of the test."""

    def connect(*args: Any, **kwargs: Any) -> Stream:
        if path == "protocol":
            kwargs["headers"] = {"Content-Length": "0", **kwargs.get("headers", {})}
        streams.append(Stream(*args, **kwargs))
        return streams[-1]

    return connect


def goodbye(stream: Stream) -> str:
    """The reason that a stream ended with; it was its last event, with a time to come back."""
    stream.to_end()
    assert stream.events[-1].type == "ssepool.close"
    assert stream.retry is not None and stream.retry >= 1000
    wire.check(stream.raw)
    (data,) = stream.of_type("ssepool.close")
    reason: str = data["reason"]
    return reason


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
    assert not unexpected, "".join(server.log[-100:])
