"""Work that can be cut, whatever it catches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from ssepool.runtime.cuttable import Cuttable
from virtual import in_virtual_time


class Work:
    """Something that is done, and what it met."""

    def __init__(self, *ignored: type[BaseException]) -> None:
        self.ignored = ignored
        self.met: list[type[BaseException]] = []

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except self.ignored as error:
                self.met.append(type(error))


def started(work: Awaitable[Any]) -> tuple[Cuttable, asyncio.Task[None]]:
    cuttable = Cuttable()

    async def run() -> None:
        await cuttable.run(work)

    return cuttable, asyncio.create_task(run())


@in_virtual_time
async def test_what_is_not_cut_runs_as_ever_and_may_wait_and_fail_and_be_cancelled() -> None:
    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError("on purpose")

    _, task = started(asyncio.sleep(1))
    assert await task is None  # type: ignore[func-returns-value]
    _, task = started(fails())
    with pytest.raises(ValueError, match="on purpose"):
        await task
    work = Work()
    _, task = started(work.run())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_what_ignores_cancellation_goes_on_until_it_is_cut() -> None:
    work = Work(asyncio.CancelledError)
    cuttable, task = started(work.run())
    for _ in range(3):
        await asyncio.sleep(1)
        task.cancel()
    await asyncio.sleep(1)
    assert (len(work.met), task.done()) == (3, False)
    cuttable.is_cut = True
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert len(work.met) == 3


@in_virtual_time
async def test_what_ignores_even_that_is_left_where_it_stands() -> None:
    work = Work(asyncio.CancelledError, GeneratorExit)
    running = work.run()
    cuttable, task = started(running)
    await asyncio.sleep(1)
    cuttable.is_cut = True
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert work.met == [GeneratorExit]
    work.ignored = ()  # for the garbage collector's sake
    with pytest.raises(GeneratorExit):
        running.throw(GeneratorExit)


@in_virtual_time
async def test_a_step_of_a_generator_is_cut_with_the_generator() -> None:
    met: list[str] = []

    async def deaf() -> AsyncIterator[int]:
        try:
            while True:
                try:
                    await asyncio.sleep(3600)
                    yield 1
                except asyncio.CancelledError:
                    met.append("ignored")
        finally:
            met.append("closed")

    source = deaf()
    cuttable, task = started(anext(source))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    cuttable.is_cut = True
    task.cancel()
    await asyncio.wait({task})
    assert met == ["ignored", "closed"]
    await source.aclose()  # type: ignore[attr-defined]


async def test_what_is_awaited_returns_its_value_and_may_end() -> None:
    async def one() -> AsyncIterator[int]:
        yield 1

    source, cuttable = one(), Cuttable()
    assert await cuttable.run(anext(source)) == 1
    with pytest.raises(StopAsyncIteration):
        await cuttable.run(anext(source))
