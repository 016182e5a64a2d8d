"""The systems that `scripts/bench` compares: each takes part with what it was given, and leaves nothing behind."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.peers import PEERS as every
from ssepool.bench import Plan, run
from ssepool.bench.process import Processes

ROOT = Path(__file__).parents[2]
PEERS = [peer.name for peer in every if not peer.missing()]
"""Ours, and those that are there: `scripts/bench` installs the others."""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT)
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else None
    yield importlib.import_module("benchmarks.peers")
    if cores is not None:  # whoever starts a peer leaves a core to it
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_delivers_everything_and_all_its_processes_end(peers: ModuleType, name: str) -> None:
    peer = next(peer for peer in peers.PEERS if peer.name == name)
    topics = 1 if name == "bare send()" else 2  # that one knows none
    load = {"subscribers": 5, "topics": topics, "rate": 100, "events": 20, "seconds": 30, "warmup": 0, "settle": 0}
    with peers.started(peer, load["subscribers"]) as running:
        family = Processes(running.pids).pids()
        places = {"subscribe": running.subscribe, "publish": running.publish, "pids": running.pids}
        report = run(Plan(**{**load, **peer.load, **places}))
    assert report.connecting.open == load["subscribers"] and not report.connecting.ended
    delivering, server = report.delivering, report.server
    assert delivering and delivering.received > 0
    assert (delivering.lost, delivering.missed, delivering.doubled, delivering.reordered) == (0, 0, 0, 0)
    assert sys.platform != "linux" or (server and server.cpu_per_delivery and server.processes == len(family))
    assert not Processes(family).pids()
    stall = running.longest_stall
    assert (stall is not None) == (name == "ours, watched")
    assert stall is None or stall["passed"] > 0
