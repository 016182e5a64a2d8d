"""Background tasks of a response."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from ssepool.runtime.background import Background
from ssepool.runtime.tasks import Tasks

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user")


async def test_it_sees_the_context_of_its_request_whoever_starts_it() -> None:
    tasks, seen = Tasks(), list[str]()

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append(USER.get())

    async def request() -> Background:
        USER.set("ann")
        return Background(work, tasks)

    background = await asyncio.create_task(request())
    USER.set("bob")
    background.start()
    await tasks.close(10)
    assert seen == ["ann"]


async def test_one_that_fails_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise RuntimeError("on purpose")

    await Background(work, Tasks()).run()
    [record] = caplog.records
    assert record.message.startswith("a background task of a stream failed")
    assert record.exc_info is not None
