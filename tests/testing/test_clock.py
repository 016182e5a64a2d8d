"""The virtual clock, in whatever event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from typing import Any

import anyio.to_thread
import pytest
import uvloop

from ssepool import AccessConfig, Grant, Hub, HubConfig, PoolConfig, clock
from ssepool.testing import stream, virtual_clock


async def test_a_day_passes_in_no_time() -> None:
    began = time.monotonic()
    async with virtual_clock() as virtual:
        await asyncio.sleep(86_400)
        assert virtual.elapsed == pytest.approx(86_400)
        assert virtual.wall_clock() - time.time() == pytest.approx(86_400, abs=5)
    assert time.monotonic() - began < 10


async def test_what_is_due_happens_in_order_and_before_advance_returns() -> None:
    seen: list[float] = []

    async def every(seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            seen.append(seconds)

    async with virtual_clock() as virtual:
        tasks = [asyncio.create_task(every(seconds)) for seconds in (2.0, 3.0)]
        await virtual.advance(7)
        assert seen == [2.0, 3.0, 2.0, 3.0, 2.0]
        for task in tasks:
            task.cancel()


async def test_afterwards_time_goes_on_at_its_own_pace_and_never_back() -> None:
    loop = asyncio.get_running_loop()
    async with virtual_clock():
        late = loop.call_later(100.02, lambda: None)
        await asyncio.sleep(100)
        then, hub_then = loop.time(), clock.now()
    assert then <= loop.time() < then + 5
    assert hub_then <= clock.now() < hub_then + 5
    while not late.cancelled() and loop.time() < late.when():
        await asyncio.sleep(0.01)  # a timer that was set in virtual time comes true
    assert abs(clock.wall_clock() - time.time()) < 5
    async with virtual_clock() as again:
        await again.advance(10)
        assert again.elapsed == pytest.approx(10)


@pytest.mark.parametrize("run", [asyncio.to_thread, anyio.to_thread.run_sync])
async def test_a_thread_that_works_is_waited_for(run: Any) -> None:
    async with virtual_clock() as virtual:
        run = anyio.to_thread.run_sync if run is not asyncio.to_thread else run  # which the clock has its own of
        async with asyncio.timeout(60):
            await run(time.sleep, 0.05)
        assert virtual.elapsed < 60


async def test_bytes_that_are_there_are_read_before_time_passes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        async with virtual_clock() as virtual, asyncio.timeout(5):
            theirs.send(b"x")
            assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"x"
            assert virtual.elapsed == 0


async def test_quiet_gives_another_program_time_to_answer() -> None:
    read, write = os.pipe()
    answered = asyncio.Event()
    asyncio.get_running_loop().add_reader(read, answered.set)
    async with virtual_clock(quiet=10):
        threading.Timer(0.05, os.write, (write, b"x")).start()
        async with asyncio.timeout(5):
            await answered.wait()
    asyncio.get_running_loop().remove_reader(read)
    os.close(read)
    os.close(write)


async def test_there_is_one_at_a_time() -> None:
    async with virtual_clock():
        with pytest.raises(RuntimeError, match="another virtual clock"):
            virtual_clock().begin()


def test_uvloop_is_refused_with_a_word_on_what_to_do() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="takes asyncio's own event loop, so run this test without uvloop"):
            virtual_clock().begin()

    uvloop.run(main())


def test_what_can_never_happen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssepool.testing.clock.STUCK_SECONDS", 0.01)

    async def main() -> None:
        async with virtual_clock():
            await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="there is no timer: the test is stuck"):
        asyncio.run(main())


def test_it_works_with_trio_less_anyio_and_with_plain_asyncio() -> None:
    async def main() -> None:
        async with virtual_clock():
            with anyio.move_on_after(3600) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught

    asyncio.run(main())
    anyio.run(main)


async def test_a_hub_opened_before_it_goes_by_it_too() -> None:
    hub = open_to_all(pool=PoolConfig(size=1, idle_timeout=3600))
    async with hub, virtual_clock() as virtual, stream(hub.app, "/events?topic=a") as s:
        await virtual.advance(3602)
        await s.expect_end("idle")


@pytest.mark.parametrize("broker", ["memory://", "sqlite:///{}/events.db"])
async def test_the_history_grows_old(broker: str, tmp_path: Any) -> None:
    hub = open_to_all(broker=broker.format(tmp_path), history_age=600)
    async with virtual_clock() as virtual, hub, stream(hub.app, "/events?topic=a") as s:
        await hub.publish("a", "one")
        await s.expect(data="one")
        await s.drop()
        await hub.publish("a", "two")
        await virtual.advance(700)
        await s.resume()
        await s.expect("ssepool.gap")


async def test_tokens_and_grants_run_out() -> None:
    def who(asking: Any) -> Grant:
        return Grant(subject="ann", subscribe=["a"], expires_at=clock.wall_clock() + 300)

    hub = Hub(authorize=who)
    async with virtual_clock() as virtual, hub, stream(hub.app, "/events?topic=a") as s:
        await virtual.advance(302)
        await s.expect("ssepool.expiring")
        await s.expect_end("token_expired")


async def test_a_waiter_is_timed_out() -> None:
    hub = open_to_all(pool=PoolConfig(size=1, acquire_timeout=30))
    async with virtual_clock() as virtual, hub, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(stream(hub.app, "/events?topic=a"))
        waiter = await stack.enter_async_context(stream(hub.app, "/events?topic=a", wait=False))
        await waiter.expect_no_answer(29)
        await virtual.advance(2)
        assert hub.stats().pool.timed_out == 1
        await waiter.expect_end()


def open_to_all(**settings: Any) -> Hub:
    return Hub(HubConfig(access=AccessConfig(public_topics=("*",)), **settings))
