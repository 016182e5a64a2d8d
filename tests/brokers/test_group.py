"""Group commit, with a broker that does what the test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from ssepool.brokers import group
from ssepool.brokers.base import Bounds, Broker, Fact, Stored, duplicate
from ssepool.brokers.group import GroupCommit
from ssepool.brokers.record import Record
from ssepool.config import HubConfig, KiB, MiB
from ssepool.core.event import Entry, Event
from ssepool.errors import BrokerError, DuplicateEvent, EventTooLarge

DEADLINE = 10.0


class Script(Broker):
    """Stores nothing, notes what it was given, and answers when and how the test says."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(HubConfig(broker="memory://", **settings))
        self.appends: list[list[Record]] = []
        """What was given, an append each."""
        self._held = False
        self._answers = asyncio.Semaphore(0)
        self.error: BaseException | None = None
        """What the next appends raise."""
        self.under_way = 0
        self.position = 0

    @property
    def sizes(self) -> list[int]:
        return [len(records) for records in self.appends]

    def hold(self) -> None:
        """Do not answer any more."""
        self._held, self._answers = True, asyncio.Semaphore(0)

    def answer_one(self) -> None:
        """Answer one append, and hold the next."""
        self._answers.release()

    def go_on(self) -> None:
        """Answer all that comes, and what waits."""
        self._held = False
        self._answers.release()

    async def append(self, records: Sequence[Record]) -> list[Stored]:
        self.under_way += 1
        assert self.under_way == 1, "one append at a time is what is promised to brokers"
        self.appends.append(list(records))
        try:
            if self._held:
                await self._answers.acquire()
            if self.error is not None:
                raise self.error
            stored = []
            for record in records:
                if record.id == "kept":
                    raise duplicate(record.id)
                self.position += 1
                stored.append(Stored(record.id or f"made-{self.position}", self.position))
            return stored
        finally:
            self.under_way -= 1

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def trim(self) -> None: ...
    async def send(self, message: bytes) -> None: ...
    async def keep(self, name: str, data: bytes, seconds: float) -> None: ...

    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        raise NotImplementedError

    async def find(self, id: str) -> int | None:
        raise NotImplementedError

    async def bounds(self) -> Bounds:
        raise NotImplementedError

    def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        raise NotImplementedError

    async def kept(self, after: int = 0) -> Sequence[Fact]:
        return ()

    def messages(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


def events(count: int = 1, *, size: int = 1, ids: Sequence[str] = ()) -> list[Event]:
    if ids:
        return [Event("x" * size, ("news",), id=id) for id in ids]
    return [Event("x" * size, ("news",))] * count


class Publishers:
    """Publishes in tasks of their own."""

    def __init__(self, broker: Script) -> None:
        self.broker = broker
        self.commit = GroupCommit(broker)

    async def publish(self, batch: Sequence[Event]) -> asyncio.Task[list[Stored]]:
        """Begin to publish, and come back when it waits."""
        task = asyncio.create_task(self.commit.append(batch))
        await asyncio.sleep(0)
        return task

    async def hold(self) -> asyncio.Task[list[Stored]]:
        """Publish one event that the broker does not answer, so that all others wait."""
        self.broker.hold()
        task = await self.publish(events())
        await self.begun(1)
        return task

    async def begun(self, appends: int) -> None:
        """Wait until the broker has been given so many."""
        async with asyncio.timeout(DEADLINE):
            while len(self.broker.appends) < appends:
                await asyncio.sleep(0)

    async def positions(self, *tasks: asyncio.Task[list[Stored]]) -> list[list[int]]:
        async with asyncio.timeout(DEADLINE):
            return [[stored.position for stored in await task] for task in tasks]


async def test_a_publish_alone_goes_at_once() -> None:
    one = Publishers(Script())
    async with asyncio.timeout(DEADLINE):
        assert await one.commit.append(events(2)) == [("made-1", 1), ("made-2", 2)]
        assert await one.commit.append(events(1)) == [("made-3", 3)]
    assert one.broker.sizes == [2, 1]


async def test_what_comes_while_the_broker_works_goes_together_and_in_order() -> None:
    some = Publishers(Script())
    tasks = [await some.hold()]
    tasks += [await some.publish(events(count)) for count in (1, 3, 2)]
    assert some.broker.sizes == [1]
    some.broker.go_on()
    assert await some.positions(*tasks) == [[1], [2], [3, 4, 5], [6, 7]]
    assert some.broker.sizes == [1, 6]


async def test_nothing_at_all_may_be_published() -> None:
    async with asyncio.timeout(DEADLINE):
        assert await GroupCommit(Script()).append([]) == []


async def test_groups_are_bounded_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group.MAX_APPEND_EVENTS == 1000
    monkeypatch.setattr(group, "MAX_APPEND_EVENTS", 10)
    some = Publishers(Script())
    tasks = [await some.hold()]
    tasks += [await some.publish(events(count)) for count in (4, 6, 1, 25, 9, 2)]
    some.broker.go_on()
    await some.positions(*tasks)
    assert some.broker.sizes == [1, 10, 1, 25, 9, 2]


async def test_groups_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 4 * MiB == group.MAX_APPEND_BYTES
    monkeypatch.setattr(group, "MAX_APPEND_BYTES", 10 * KiB)
    some = Publishers(Script())
    tasks = [await some.hold()]
    tasks += [await some.publish(events(size=size * KiB)) for size in (4, 4, 4, 40, 1)]
    some.broker.go_on()
    await some.positions(*tasks)
    assert some.broker.sizes == [1, 2, 1, 1, 1]


async def test_an_event_that_is_too_large_takes_no_others_with_it() -> None:
    some = Publishers(Script(max_event_size=1000))
    first = await some.hold()
    with pytest.raises(EventTooLarge, match="exceeds max_event_size=1000"):
        await some.commit.append([*events(), *events(size=1000)])
    other = await some.publish(events())
    some.broker.go_on()
    assert await some.positions(first, other) == [[1], [2]]


# Duplicates.


async def test_batches_that_may_be_refused_go_apart_from_others() -> None:
    some = Publishers(Script(on_duplicate="refuse"))
    tasks = [await some.hold()]
    batches = [events(2), events(1), events(ids=["new", "kept"]), events(3), events(1), events(ids=["new"])]
    tasks += [await some.publish(batch) for batch in batches]
    some.broker.go_on()
    with pytest.raises(DuplicateEvent, match="'kept'"):
        await tasks.pop(3)
    assert [len(places) for places in await some.positions(*tasks)] == [1, 2, 1, 3, 1, 1]
    assert some.broker.sizes == [1, 3, 2, 4, 1]


async def test_what_is_ignored_needs_not_go_apart() -> None:
    some = Publishers(Script(on_duplicate="ignore"))
    tasks = [await some.hold()]
    tasks += [await some.publish(batch) for batch in (events(), events(ids=["a", "b"]), events(ids=["c"]))]
    some.broker.go_on()
    assert await some.positions(*tasks) == [[1], [2], [3, 4], [5]]
    assert some.broker.sizes == [1, 4]


# Failures.


async def test_an_error_reaches_all_of_the_group_and_the_next_go_on() -> None:
    some = Publishers(Script())
    first = await some.hold()
    group_ = [await some.publish(events()) for _ in range(3)]
    some.broker.answer_one()
    assert await some.positions(first) == [[1]]
    some.broker.error = BrokerError("the disk is full; nothing was published")
    some.broker.go_on()
    for task in group_:
        with pytest.raises(BrokerError, match="the disk is full"):
            await task
    some.broker.error = None
    async with asyncio.timeout(DEADLINE):
        assert await some.commit.append(events()) == [("made-2", 2)]


async def test_an_unexpected_error_reaches_publishers_too() -> None:
    broker = Script()
    broker.error = ZeroDivisionError("a defect")
    commit = GroupCommit(broker)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await commit.append(events())
        broker.error = None
        assert await commit.append(events()) == [("made-1", 1)]


async def test_a_broker_that_does_not_answer_fails_publishing_in_time() -> None:
    some = Publishers(Script(broker_timeout=0.1))
    some.broker.hold()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(
            BrokerError, match=r"^memory:// did not answer in 0\.1 s; the events may be published or not$"
        ):
            await some.commit.append(events())
        some.broker.go_on()
        assert await some.commit.append(events()) == [("made-1", 1)]


async def test_who_waits_behind_a_broker_that_does_not_answer_fails_in_time_too() -> None:
    some = Publishers(Script(broker_timeout=0.2))
    first = await some.hold()
    waiting = [await some.publish(events()) for _ in range(3)]
    async with asyncio.timeout(DEADLINE):
        for task in [first, *waiting]:
            with pytest.raises(BrokerError, match=r"^memory:// did not answer in 0\.2 s; "):
                await task


async def test_what_has_not_been_given_to_the_broker_is_said_not_to_be_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group, "MAX_APPEND_EVENTS", 1)
    some = Publishers(Script(broker_timeout=0.2))
    tasks = [await some.hold()]
    tasks += [await some.publish(events()) for _ in range(4)]
    async with asyncio.timeout(DEADLINE):
        messages = [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)]
    given = len(some.broker.appends)
    assert [message.rpartition("; ")[2] for message in messages] == (
        ["the events may be published or not"] * given + ["nothing was published"] * (5 - given)
    )
    assert given < 5
    some.broker.go_on()
    async with asyncio.timeout(DEADLINE):
        await some.commit.append(events())
    assert len(some.broker.appends) == given + 1  # what was given up is not stored later


# Bounds.


async def test_more_publishes_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group.MAX_WAITING_PUBLISHES == 10_000
    monkeypatch.setattr(group, "MAX_WAITING_PUBLISHES", 3)
    some = Publishers(Script())
    tasks = [await some.hold()]
    tasks += [await some.publish(events(2, size=10)) for _ in range(3)]
    with pytest.raises(
        BrokerError,
        match=r"^memory:// is too slow or away: 3 publishes of 3492 bytes wait for it already; nothing was published$",
    ):
        await some.commit.append(events())
    some.broker.go_on()
    await some.positions(*tasks)
    async with asyncio.timeout(DEADLINE):
        await some.commit.append(events())
    assert some.broker.sizes == [1, 6, 1]


async def test_more_bytes_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 64 * MiB == group.MAX_WAITING_BYTES
    monkeypatch.setattr(group, "MAX_WAITING_BYTES", 10 * KiB)
    some = Publishers(Script())
    tasks = [await some.hold(), await some.publish(events(size=8 * KiB))]
    with pytest.raises(BrokerError, match="too slow or away"):
        await some.commit.append(events(size=8 * KiB))
    tasks.append(await some.publish(events(size=KiB // 2)))  # there is room for this one
    some.broker.go_on()
    assert await some.positions(*tasks) == [[1], [2], [3]]


async def test_a_batch_larger_than_may_wait_goes_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "MAX_WAITING_BYTES", 10 * KiB)
    some = Publishers(Script())
    tasks = [await some.hold(), await some.publish(events(size=100 * KiB))]
    some.broker.go_on()
    assert await some.positions(*tasks) == [[1], [2]]


async def test_room_comes_back_from_those_who_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "MAX_WAITING_BYTES", 10 * KiB)
    some = Publishers(Script())
    first = await some.hold()
    for _ in range(5):
        task = await some.publish(events(size=9 * KiB))
        task.cancel()
        await asyncio.wait([task])
    last = await some.publish(events(size=9 * KiB))
    some.broker.go_on()
    assert await some.positions(first, last) == [[1], [2]]
    assert some.broker.sizes == [1, 1]


# Giving up and closing.


async def test_who_gives_up_before_its_turn_is_not_published() -> None:
    some = Publishers(Script())
    tasks = [await some.hold()]
    tasks += [await some.publish(events(count)) for count in (2, 3, 4)]
    tasks[2].cancel()
    await asyncio.wait([tasks.pop(2)])
    some.broker.go_on()
    assert await some.positions(*tasks) == [[1], [2, 3], [4, 5, 6, 7]]


async def test_who_gives_up_in_a_group_takes_no_others_with_it() -> None:
    some = Publishers(Script())
    tasks = [await some.hold()]
    tasks += [await some.publish(events(count)) for count in (1, 2, 3)]
    some.broker.answer_one()
    await some.begun(2)
    assert tasks[2].cancel()
    await asyncio.wait([tasks.pop(2)])
    some.broker.go_on()
    assert await some.positions(*tasks) == [[1], [2], [5, 6, 7]]  # it was under way: its events are stored


@pytest.mark.parametrize("waiting", [0, 3])
async def test_closing_fails_what_waits_and_leaves_no_task(waiting: int) -> None:
    before = asyncio.all_tasks()
    some = Publishers(Script())
    first = await some.hold()
    others = [await some.publish(events()) for _ in range(waiting)]
    async with asyncio.timeout(DEADLINE):
        await some.commit.close()
        for task in others:
            with pytest.raises(BrokerError, match=r"^the hub is closed; nothing was published$"):
                await task
        await asyncio.wait([first])
    assert first.cancelled() or isinstance(first.exception(), BrokerError)
    assert asyncio.all_tasks() <= before
    some.broker.go_on()
    async with asyncio.timeout(DEADLINE):
        await some.commit.append(events(7))
    assert some.broker.sizes == [1, 7]  # and no batch either, should it be used again


async def test_closing_may_be_done_when_nothing_was_published_and_twice() -> None:
    commit = GroupCommit(Script())
    await commit.close()
    async with asyncio.timeout(DEADLINE):
        await commit.append(events())
    await commit.close()
    await commit.close()
