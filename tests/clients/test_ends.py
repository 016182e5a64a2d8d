"""Clients of other makers on a stream that ends: each has the first event at once, and can tell a stream that is over
from one that was cut."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live import LiveServer, serve_app
from tools import require

HERE = Path(__file__).parent
PYTHON = ("requests", "urllib3", "launchdarkly", "requests_sse")
CLIENTS = (*PYTHON, "fetch", "r3labs", "curl")
COMES_BACK = ("requests_sse",)
"""Clients that do not tell how a connection ended, and make another."""


@pytest.fixture(scope="session")
def r3labs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """The program around r3labs/sse, once it is asked for."""
    built: list[str] = []

    def build() -> str:
        if not built:
            program = tmp_path_factory.mktemp("r3labs") / "reader"
            command = [require("go"), "build", "-o", str(program), "."]
            subprocess.run(command, cwd=HERE / "r3labs", check=True, timeout=400)
            built.append(str(program))
        return built[0]

    return build


@pytest.fixture
def read(start: Callable[..., Any], r3labs: Callable[[], str]) -> Callable[[str, str], Any]:
    """Starts a client on a URL."""

    def read(client: str, url: str) -> Any:
        if client in PYTHON:
            return start(sys.executable, str(HERE / "readers.py"), client, url)
        if client == "fetch":
            return start(require("node"), str(HERE / "reader.mjs"), url)
        if client == "r3labs":
            return start(r3labs(), url)
        # curl says with its exit code that a transfer is not whole (18).
        told = 'curl -sN "$0"; if [ $? = 0 ]; then echo "end: clean"; else echo "end: cut"; fi'
        require("curl")
        return start("bash", "-c", told, url)

    return read


@pytest.fixture(scope="module", params=["detached", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("stream_app:app", request.param) as server:
        yield server


@pytest.mark.timeout(500)  # the first has a program compiled
@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_is_over_ends_cleanly_and_one_that_fails_untold_is_cut(
    server: LiveServer, read: Callable[[str, str], Any], client: str
) -> None:
    for item, end in (("END", "clean"), ("FAIL", "clean")):  # `ssepool.close` says which
        reader = read(client, f"{server.url}/streams/{client}-{item}")
        reader.wait_line("ssepool.open")
        server.request("POST", f"/streams/{client}-{item}", ["one", item])
        reader.wait_line("ssepool.close")
        if client not in COMES_BACK:
            reader.wait_line(f"end: {end}")
    if client not in COMES_BACK:
        reader = read(client, f"{server.url}/streams/{client}-untold?own_events=false")
        server.request("POST", f"/streams/{client}-untold", ["one", "FAIL"])
        reader.wait_line("end: cut")


@pytest.mark.timeout(500)
@pytest.mark.parametrize("path", ["detached", "plain"])
def test_a_crash_is_no_end_for_any_client(read: Callable[[str, str], Any], path: str) -> None:
    with serve_app("stream_app:app", path) as server:
        readers = [read(client, f"{server.url}/events?topic=news") for client in CLIENTS]
        for reader in readers:
            reader.wait_line("ssepool.open")
        server.stop(signal.SIGKILL)
        for reader in readers:
            reader.wait_line("end: cut")
