"""Siblings: who is met at an address, and when the log says so. `tests/test_leaving.py` has real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

import pytest

from ssepool.runtime.siblings import LOOK_SECONDS, Siblings, addresses
from virtual import in_virtual_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are no abstract sockets")

ANOTHER = 1
"""A process that this one is not."""


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.ERROR]


@in_virtual_time
async def test_a_process_that_comes_second_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Siblings(lambda: {f"{tmp_path}/sock"})
    await asyncio.sleep(0.1)
    second = Siblings(lambda: {f"{tmp_path}/sock", f"{tmp_path}/alone"}, ANOTHER)
    await asyncio.sleep(LOOK_SECONDS[1] / 2)
    assert errors(caplog) == []  # it may be about to go
    await asyncio.sleep(60)
    [error] = errors(caplog)
    assert f"several processes serve {tmp_path}/sock (this one is {ANOTHER}, another is {os.getpid()})" in error
    first.close()
    second.close()


@in_virtual_time
async def test_one_that_leaves_while_the_next_begins_is_no_sibling(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Siblings(lambda: {f"{tmp_path}/sock"})
    await asyncio.sleep(0.1)
    second = Siblings(lambda: {f"{tmp_path}/sock"}, ANOTHER)
    await asyncio.sleep(LOOK_SECONDS[1] / 2)
    first.close()
    await asyncio.sleep(60)
    assert errors(caplog) == []
    second.close()


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
