"""The reaper, with a pool and a clock of the test's own."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from parts import Applicant, opened, running, until
from ssepool.config import PoolConfig
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState, WaiterState
from ssepool.core.term import ENDLESS, Term, term_of
from ssepool.runtime.reaper import Reaper
from ssepool.runtime.streams import slices
from virtual import hold_up, in_virtual_time, now


class Watched:
    """A reaper, and what it has had done."""

    def __init__(self, **settings: Any) -> None:
        self.pool = Pool(PoolConfig(**settings))
        self.pool.open()
        self.now = now()
        self.evicted: list[tuple[Slot, Reason]] = []
        self.expired: list[float] = []
        self.reaper = Reaper(self.pool, evict_all=self.evict_all, expire=self.expired.append, now=self.now)

    def evict_all(self, slots: Iterable[tuple[Slot, Reason]]) -> Iterator[int]:
        for slot, reason in slots:
            self.evicted.append((slot, reason))
            yield 0

    def open_slot(self, term: Term = ENDLESS) -> Slot:
        slot = self.pool.acquire(self.now(), Applicant())
        assert isinstance(slot, Slot)
        slot.holder = Holder()
        self.pool.start(slot, self.now(), term)
        return slot


class Holder:
    """A link, and what it was told."""

    owner = None
    weight = 0

    def __init__(self) -> None:
        self.beats = 0
        self.ended: Reason | None = None

        self.warned: list[int] = []

    def beat(self) -> None:
        self.beats += 1

    def warn(self, seconds: int) -> None:
        self.warned.append(seconds)

    def close(self, reason: Reason) -> None:
        raise AssertionError("the reaper leaves that to `evict`")

    def end(self, reason: Reason) -> None:
        self.ended = reason


@in_virtual_time
async def test_it_looks_at_each_interval_until_it_is_stopped() -> None:
    watched = Watched(size=1, reap_interval=1.0)
    began = watched.now()
    await asyncio.sleep(10.5)
    assert watched.expired == pytest.approx([began + 15 / 16 * look for look in range(1, 12)])
    assert (watched.reaper.runs, watched.reaper.late) == (11, 0)
    watched.reaper.stop()
    await asyncio.sleep(100)
    assert watched.reaper.runs == 11


@in_virtual_time
async def test_clients_whose_time_is_up_are_sent_away_with_the_reason() -> None:
    watched = Watched(size=3, idle_timeout=60, max_lifetime=0, heartbeat_interval=1000)
    quiet, stalled, busy = (watched.open_slot() for _ in range(3))
    watched.pool.block(stalled, watched.now())
    await asyncio.sleep(25)
    assert watched.evicted[0] == (stalled, Reason.SEND_TIMEOUT)
    busy.received_at = watched.now()
    del watched.evicted[:]
    await asyncio.sleep(40)
    assert (quiet, Reason.IDLE) in watched.evicted
    assert busy not in [slot for slot, _ in watched.evicted]
    watched.reaper.stop()


@in_virtual_time
async def test_a_client_that_does_not_take_its_goodbye_is_cut() -> None:
    watched = Watched(size=1, send_timeout=5)
    slot = watched.open_slot()
    watched.pool.closing(slot, Reason.KICKED, watched.now())
    await asyncio.sleep(4)
    assert isinstance(slot.holder, Holder)
    assert slot.holder.ended is None
    await asyncio.sleep(3)
    assert slot.holder.ended is Reason.KICKED
    watched.reaper.stop()


@in_virtual_time
async def test_heartbeats_are_spread_over_the_interval() -> None:
    watched = Watched(size=160, heartbeat_interval=16, reap_interval=100)
    slots = [watched.open_slot() for _ in range(160)]
    beats: list[int] = []
    for _ in range(8):  # in half the interval each client has its turn once
        before = sum(slot.holder.beats for slot in slots)  # type: ignore[union-attr]
        await asyncio.sleep(1)
        beats.append(sum(slot.holder.beats for slot in slots) - before)  # type: ignore[union-attr]
    assert max(beats) <= 20
    await asyncio.sleep(2)
    assert all(slot.holder.beats for slot in slots)  # type: ignore[union-attr]
    watched.reaper.stop()


@in_virtual_time
async def test_a_heartbeat_may_find_that_its_client_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(size=3, reap_interval=1, heartbeat_interval=2)
    slots = [watched.open_slot() for _ in range(3)]
    first = slots[0].holder
    assert isinstance(first, Holder)

    def gone() -> None:
        watched.pool.release(slots[0], watched.now(), Reason.PEER_DEAD)

    first.beat = gone  # type: ignore[method-assign]
    await asyncio.sleep(5)
    assert slots[0].state is SlotState.FREE
    assert [slot.holder.beats > 0 for slot in slots[1:]] == [True, True]  # type: ignore[union-attr]
    assert caplog.records == []
    watched.reaper.stop()


@in_virtual_time
async def test_waiters_are_told_their_places_and_that_their_time_is_up() -> None:
    watched = Watched(size=1, announce_queue=True, acquire_timeout=10)
    watched.open_slot()
    first, second = Applicant(), Applicant()
    watched.pool.acquire(watched.now(), first)
    await asyncio.sleep(5)
    watched.pool.acquire(watched.now(), second)
    await asyncio.sleep(3)
    assert (first.told[-1], second.told[-1]) == ((1, 2), (2, 2))
    await asyncio.sleep(4)
    assert first.outcome is WaiterState.TIMED_OUT
    assert second.told[-1] == (1, 1)
    watched.reaper.stop()


@in_virtual_time
async def test_a_look_that_fails_does_not_end_the_looking(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(size=1)

    def fail(now: float) -> None:
        raise RuntimeError("on purpose")

    watched.reaper._expire = fail
    await asyncio.sleep(5)
    watched.reaper.stop()
    assert watched.reaper.runs > 3
    assert len(caplog.records) == watched.reaper.runs
    assert {record.message for record in caplog.records} == {"the reaper failed; it goes on"}


@in_virtual_time
async def test_it_says_so_when_the_event_loop_was_held_up(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(size=1)
    await asyncio.sleep(2)
    hold_up(5.0)
    await asyncio.sleep(2)
    watched.reaper.stop()
    assert watched.reaper.late == 1
    assert "late: something held the event loop up" in caplog.text


@in_virtual_time
async def test_it_says_once_that_no_descriptor_is_left_and_once_that_there_are_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    watched = Watched(size=7)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "ssepool"):
        patch.setattr(os, "open", refuse)
        await asyncio.sleep(5)
    await asyncio.sleep(5)
    watched.reaper.stop()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "the pool's size of 7" in caplog.records[0].message


async def test_many_heartbeats_are_sent_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)  # one heartbeat a slice
    async with running() as engine:
        held = [await opened(engine) for _ in range(20)]
        subject = Reaper(
            engine.pool, evict_all=engine.connections.evict_all, expire=lambda now: None, now=time.monotonic
        )
        gone, (early, _) = held[-1][0], held[0]
        slices.in_slices(subject._beat([slot for _, slot in held]), time.monotonic)
        assert early.written.endswith(b"\n: heartbeat\n")
        assert sum(link.written.endswith(b": heartbeat\n") for link, _ in held) == 1
        gone.end(Reason.CLIENT_CLOSED)  # before its turn
        await until(lambda: held[-2][0].written.endswith(b": heartbeat\n"))
        assert all(link.written.count(b": heartbeat\n") == (link is not gone) for link, _ in held)
        assert held[-1][1].state is SlotState.FREE
        subject.stop()


@in_virtual_time
async def test_a_stream_ends_before_its_grant_and_its_client_is_told_ahead() -> None:
    watched = Watched(size=1, reap_interval=1.0, idle_timeout=0)
    began = watched.now()
    slot = watched.open_slot(term_of(600.0, 1800.0, now=began, look=1.0, chance=0.0))
    holder = slot.holder
    assert isinstance(holder, Holder)
    await asyncio.sleep(538)
    assert holder.warned == []
    await asyncio.sleep(3)
    assert holder.warned in ([60], [61])
    await asyncio.sleep(57)
    assert watched.evicted == []
    await asyncio.sleep(2)  # now it is 600 s
    assert watched.evicted[0] == (slot, Reason.TOKEN_EXPIRED)
    assert holder.warned in ([60], [61])
    watched.reaper.stop()


@in_virtual_time
async def test_a_waiter_whose_grant_runs_out_is_told_at_the_next_look() -> None:
    watched = Watched(size=1, reap_interval=1.0)
    watched.open_slot()
    waits = Applicant()
    watched.pool.acquire(watched.now(), waits, ends_at=watched.now() + 5)
    await asyncio.sleep(4.5)
    assert waits.outcome is None
    await asyncio.sleep(1.5)
    assert waits.outcome is WaiterState.REFUSED
    watched.reaper.stop()


@in_virtual_time
async def test_who_takes_a_slot_while_others_are_ended_is_not_warned_for_the_one_before() -> None:
    watched = Watched(size=1, reap_interval=1.0, idle_timeout=0)
    slot = watched.open_slot(Term(2000.0, Reason.TOKEN_EXPIRED, 0.0, 2001.0))
    generation = slot.generation
    watched.pool.release(slot, watched.now())
    again = watched.open_slot()
    list(watched.reaper._warn([(slot, generation, 60)]))
    assert again is slot
    assert again.holder.warned == []  # type: ignore[union-attr]
    watched.reaper.stop()
