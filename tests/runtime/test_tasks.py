"""Tasks: who keeps them alive, and how they end."""

from __future__ import annotations

import asyncio
import gc
import weakref

from ssepool.runtime.tasks import Tasks
from virtual import in_virtual_time, now


@in_virtual_time
async def test_closing_waits_for_what_comes_to_its_end_in_time() -> None:
    tasks, ended, began = Tasks(), [], now()()

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)

    tasks.start(work(0.5))
    tasks.start(work(0.25))
    await tasks.close(1.0)
    assert (ended, now()() - began) == ([0.25, 0.5], 0.5)


@in_virtual_time
async def test_closing_cancels_what_takes_longer_and_keeps_what_others_have_done() -> None:
    tasks, began = Tasks(), now()()
    late = tasks.start(asyncio.sleep(3600))
    early = tasks.start(asyncio.sleep(0.5))
    await tasks.close(1.0)
    assert now()() - began == 1.0
    await asyncio.wait([late])
    assert (late.cancelled(), early.cancelled()) == (True, False)


@in_virtual_time
async def test_closing_waits_for_what_the_tasks_start_too_and_says_how_many_were_late() -> None:
    tasks, ended = Tasks(), []

    async def work(left: int) -> None:
        await asyncio.sleep(0.25)
        ended.append(left)
        if left:
            tasks.start(work(left - 1))

    tasks.start(work(2))
    assert await tasks.close(1.0) == 0
    tasks.start(work(9))
    assert await tasks.close(1.0) == 1
    assert ended == [2, 1, 0, 9, 8, 7]


@in_virtual_time
async def test_closing_without_a_task_takes_no_time() -> None:
    tasks, began = Tasks(), now()()
    await tasks.close(1.0)
    tasks.start(asyncio.sleep(0.5))
    await asyncio.sleep(2)
    before = now()()
    await tasks.close(1.0)
    assert (before, now()()) == (began + 2, began + 2)


async def test_a_task_is_kept_alive_until_it_is_done_and_no_longer() -> None:
    tasks = Tasks()
    reached: list[weakref.ref[asyncio.Future[None]]] = []

    async def work() -> None:
        waits_for = asyncio.get_running_loop().create_future()  # nobody else has it: a cycle that could be collected
        reached.append(weakref.ref(waits_for))
        await waits_for

    task = weakref.ref(tasks.start(work()))
    await asyncio.sleep(0)
    gc.collect()
    assert task() is not None
    waits_for = reached[0]()
    assert waits_for is not None
    waits_for.set_result(None)
    del waits_for
    while (running := task()) is not None and not running.done():
        del running
        await asyncio.sleep(0)
    running = None
    await asyncio.sleep(0)
    gc.collect()
    assert task() is None
