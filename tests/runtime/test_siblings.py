"""Siblings: who is met at an address, and when the log says so. The other processes are real ones."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssepool.runtime.siblings import LOOK_SECONDS, Siblings, addresses
from virtual import in_virtual_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are no abstract sockets")

OTHER = """
import asyncio, sys
from ssepool.runtime.siblings import Siblings

async def main():
    siblings = Siblings(lambda: {sys.argv[1]})
    await asyncio.sleep(0.01)
    print("claimed", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    siblings.close()
    print("left", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


class Other:
    """Another process that has claimed an address."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-c", OTHER, address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "claimed\n"

    def leave(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "left\n"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    other = Other(f"{tmp_path}/sock")
    yield other
    with other.process:
        other.process.kill()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.ERROR]


@in_virtual_time
async def test_a_process_that_comes_second_says_so_once(
    other: Other, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    siblings = Siblings(lambda: {f"{tmp_path}/sock", f"{tmp_path}/alone"})
    await asyncio.sleep(LOOK_SECONDS[1] / 2)
    assert errors(caplog) == []  # it may be about to go
    await asyncio.sleep(60)
    [error] = errors(caplog)
    assert f"another is {other.process.pid}" in error
    assert f"several processes serve {tmp_path}/sock" in error
    siblings.close()


@in_virtual_time
async def test_one_that_leaves_while_the_next_begins_is_no_sibling(
    other: Other, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    siblings = Siblings(lambda: {f"{tmp_path}/sock"})
    await asyncio.sleep(LOOK_SECONDS[1] / 2)
    other.leave()
    await asyncio.sleep(60)
    assert errors(caplog) == []
    siblings.close()


@in_virtual_time
async def test_two_hubs_of_one_process_are_no_siblings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = [Siblings(lambda: {f"{tmp_path}/sock"}) for _ in range(2)]
    await asyncio.sleep(60)
    assert errors(caplog) == []
    for siblings in both:
        siblings.close()


def test_the_addresses_are_those_of_sockets_that_are_bound_and_not_connected(tmp_path: Path) -> None:
    before = addresses()
    with socket.socket() as bound, socket.socket() as listening, socket.socket() as client, socket.socket() as fresh:
        bound.bind(("127.0.0.1", 0))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"{tmp_path}/sock")
            ports = {f"127.0.0.1:{each.getsockname()[1]}" for each in (bound, listening)}
            assert addresses() - before == {*ports, f"{tmp_path}/sock"}
            assert fresh.fileno() >= 0
