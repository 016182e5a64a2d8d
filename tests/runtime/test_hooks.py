"""Hooks: who is called, in which order, and what a failing one does to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from parts import until
from ssepool.runtime.hooks import Hooks
from virtual import in_virtual_time


class Called:
    """Hooks, and which of them were called with what."""

    def __init__(self) -> None:
        self.hooks = Hooks()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def plain(self, label: str) -> Callable[..., None]:
        return lambda *args: self.calls.append((label, args))

    def slow(self, label: str) -> Callable[..., Any]:
        async def hook(*args: Any) -> None:
            await asyncio.sleep(0)
            self.calls.append((label, args))

        return hook


async def test_plain_and_async_hooks_are_called_one_after_the_other_in_the_order_of_their_adding() -> None:
    called = Called()
    called.hooks.add("connect", called.slow("first"))
    called.hooks.add("connect", called.plain("second"))
    called.hooks.add("message", called.plain("of another name"))
    called.hooks.add("connect", called.slow("third"))
    await called.hooks.run("connect", 1, "two")
    assert called.calls == [("first", (1, "two")), ("second", (1, "two")), ("third", (1, "two"))]


async def test_a_name_has_hooks_once_one_was_added() -> None:
    called = Called()
    assert "connect" not in called.hooks
    await called.hooks.run("connect")
    assert "connect" not in called.hooks
    called.hooks.add("connect", called.plain("one"))
    assert "connect" in called.hooks
    assert "disconnect" not in called.hooks


def fail(*args: Any) -> None:
    raise RuntimeError(f"on purpose, with {args}")


async def fail_later(*args: Any) -> None:
    fail(*args)


async def fail_with_a_cancellation_of_its_own(*args: Any) -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError:
        fail(*args)


@pytest.mark.parametrize("failing", [fail, fail_later, fail_with_a_cancellation_of_its_own])
async def test_a_failing_hook_is_logged_and_stops_nobody_else(
    failing: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    called = Called()
    called.hooks.add("connect", called.plain("before"))
    called.hooks.add("connect", failing)
    called.hooks.add("connect", called.plain("after"))
    await called.hooks.run("connect", 7)
    assert [label for label, _ in called.calls] == ["before", "after"]
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.message.startswith("an on_connect hook failed: <function fail")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "on purpose, with (7,)"


async def test_a_caller_that_is_cancelled_calls_no_more_hooks() -> None:
    called = Called()
    reached = asyncio.Event()

    async def waits() -> None:
        reached.set()
        await asyncio.Event().wait()

    called.hooks.add("connect", waits)
    called.hooks.add("connect", called.plain("never"))
    running = asyncio.create_task(called.hooks.run("connect"))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert called.calls == []


async def test_hooks_that_are_started_run_in_a_task_which_is_made_only_for_them() -> None:
    called = Called()
    called.hooks.start("disconnect", "nobody listens")
    assert len(asyncio.all_tasks()) == 1
    called.hooks.add("disconnect", called.slow("one"))
    called.hooks.add("disconnect", called.plain("two"))
    called.hooks.start("disconnect", 5)
    assert called.calls == []
    await until(lambda: len(called.calls) == 2)
    assert called.calls == [("one", (5,)), ("two", (5,))]


@in_virtual_time
async def test_closing_waits_for_hooks_that_were_started_and_tells_of_those_that_take_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called, ended = Called(), []

    async def takes(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)

    called.hooks.add("disconnect", takes)
    called.hooks.start("disconnect", 3)
    await called.hooks.close(5.0)
    assert (ended, caplog.messages) == ([3], [])
    called.hooks.start("disconnect", 4)
    called.hooks.start("disconnect", 3600)
    await called.hooks.close(5.0)
    assert ended == [3, 4]
    assert caplog.messages == ["1 calls of hooks took longer than 5 s when the hub closed; they were cancelled"]


async def test_adopted_hooks_are_one_list_with_those_of_before() -> None:
    first, second = Called(), Called()
    first.hooks.add("connect", first.plain("one"))
    second.hooks.adopt(first.hooks)
    first.hooks.add("connect", first.plain("two"))
    second.hooks.add("connect", first.plain("three"))
    for hooks in (first.hooks, second.hooks):
        await hooks.run("connect")
    assert [label for label, _ in first.calls] == ["one", "two", "three"] * 2
