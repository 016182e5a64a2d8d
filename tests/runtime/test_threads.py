"""Publishing from threads: who is turned away, who waits, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from ssepool import BrokerError, Event, PoolClosed
from ssepool.runtime.tasks import Tasks
from ssepool.runtime.threads import Threads

EVENT = Event("x", ("a",))
Publish = Callable[[Iterable[Event]], Awaitable[list[str]]]


async def published(events: Iterable[Event]) -> list[str]:
    await asyncio.sleep(0)
    return [f"id of {event.data}" for event in events]


async def failing(events: Iterable[Event]) -> list[str]:
    raise BrokerError("it is away")


async def never(events: Iterable[Event]) -> list[str]:
    await asyncio.Event().wait()
    raise AssertionError


def opened(publish: Publish) -> Threads:
    threads = Threads(publish, Tasks())
    threads.open()
    return threads


async def test_a_thread_waits_and_gets_the_id() -> None:
    threads = opened(published)
    assert await asyncio.to_thread(threads.wait, EVENT) == "id of x"
    future = await asyncio.to_thread(threads.submit, EVENT)
    assert await asyncio.wrap_future(future) == "id of x"


async def test_what_fails_is_raised_in_the_thread() -> None:
    threads = opened(failing)
    with pytest.raises(BrokerError, match="it is away"):
        await asyncio.to_thread(threads.wait, EVENT)


async def test_the_events_of_a_thread_keep_their_order() -> None:
    order: list[str] = []

    async def note(events: Iterable[Event]) -> list[str]:
        order.extend(event.data for event in events)
        return ["id"]

    threads = opened(note)
    numbers = [str(number) for number in range(100)]
    futures = await asyncio.to_thread(lambda: [threads.submit(Event(number, ("a",))) for number in numbers])
    await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert order == numbers


async def test_on_the_event_loop_it_raises_instead_of_waiting_for_itself() -> None:
    threads = opened(published)
    for call in (threads.wait, threads.submit):
        with pytest.raises(RuntimeError, match=r"on the hub's event loop it is `await hub\.publish"):
            call(EVENT)


async def test_what_belongs_to_the_loop_says_so_in_a_thread() -> None:
    threads = opened(published)
    threads.check_on_loop("publish_nowait")
    with pytest.raises(RuntimeError, match=r"publish_nowait was called in another thread .* hub\.publish_sync"):
        await asyncio.to_thread(threads.check_on_loop, "publish_nowait")


def test_before_the_hub_is_open_and_behind_its_end_it_is_closed() -> None:
    threads = Threads(published, Tasks())
    with pytest.raises(PoolClosed, match="is not open"):
        threads.wait(EVENT)

    async def main() -> None:
        threads.open()
        threads.close()

    asyncio.run(main())
    with pytest.raises(PoolClosed, match="is not open"):
        threads.submit(EVENT)


async def test_who_waits_when_the_hub_closes_is_told() -> None:
    threads = opened(never)
    waiting = asyncio.create_task(asyncio.to_thread(threads.wait, EVENT))
    while not threads._pending:
        await asyncio.sleep(0)
    threads.close()
    with pytest.raises(PoolClosed, match="closed meanwhile"):
        await waiting
    assert not threads._pending


@pytest.mark.parametrize("end", ["cancelled", "stopped", "closed"])
def test_who_waits_when_the_loop_ends_is_told(end: str) -> None:
    threads = Threads(never, Tasks())
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            threads.wait(EVENT)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        threads.open()
        thread.start()
        while not threads._pending or not threads._tasks._tasks:
            await asyncio.sleep(0)
        if end == "cancelled":  # as asyncio.run does at its end
            for task in list(threads._tasks._tasks):
                task.cancel()
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    if end != "stopped":
        loop.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in outcome] == [PoolClosed]
    if end == "closed":
        with pytest.raises(PoolClosed, match="has ended"):
            threads.submit(EVENT)
    if end == "stopped":
        for task in list(threads._tasks._tasks):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    # What the loop never came to is nobody's any more.
    threads._tasks._tasks.clear()


async def test_a_future_that_was_cancelled_publishes_nothing() -> None:
    done: list[Any] = []

    async def note(events: Iterable[Event]) -> list[str]:
        done.append(events)
        return ["id"]

    threads = opened(note)
    future = await asyncio.to_thread(lambda: (found := threads.submit(EVENT), found.cancel())[0])
    await asyncio.sleep(0.01)
    assert future.cancelled() or done
    assert not threads._pending


def test_another_event_loop_awaits_the_future() -> None:
    async def main() -> None:
        threads = opened(published)

        async def other() -> str:
            return await asyncio.wrap_future(threads.submit(EVENT))

        assert await asyncio.to_thread(asyncio.run, other()) == "id of x"
        assert await asyncio.to_thread(lambda: asyncio.run(_blocking(threads))) == "id of x"

    asyncio.run(main())


async def _blocking(threads: Threads) -> str:
    return threads.wait(EVENT)
