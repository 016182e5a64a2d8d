"""The reaper, with a pool and a clock of the test's own."""

from __future__ import annotations

import pytest

from parts import opened, running, until
from ssepool.core.states import Reason, SlotState
from ssepool.runtime import reaper
from ssepool.runtime.reaper import Reaper


async def test_many_heartbeats_are_sent_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "SLICE_SECONDS", 0.0)  # one heartbeat a slice
    async with running() as engine:
        held = [await opened(engine) for _ in range(20)]
        subject = Reaper(engine.pool, evict=engine.connections.evict, expire=lambda now: None, now=engine.now)
        gone, (early, _) = held[-1][0], held[0]
        subject._beat(iter([slot for _, slot in held]))
        assert early.written.endswith(b"\n: heartbeat\n")
        assert sum(link.written.endswith(b": heartbeat\n") for link, _ in held) == 1
        gone.end(Reason.CLIENT_CLOSED)  # before its turn
        await until(lambda: held[-2][0].written.endswith(b": heartbeat\n"))
        assert all(link.written.count(b": heartbeat\n") == (link is not gone) for link, _ in held)
        assert held[-1][1].state is SlotState.FREE
        subject.stop()
