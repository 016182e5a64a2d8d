"""What becomes of a history in NATS whose end is lost, and of one whose hub dies while it drops."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from histories import DEADLINE, Open, batch, data, positions, read_all, take, until
from services.nats import Nats
from ssepool.brokers.base import Broker
from ssepool.brokers.nats.stream import JetStream
from ssepool.core.cut import Cut
from ssepool.errors import BrokerError


@pytest.fixture
def kind() -> str:
    """For the fixtures `service` and `opened`."""
    return "nats"


class Backup:
    """The whole store of a server, as it was at one moment."""

    def __init__(self, service: Nats) -> None:
        self._service = service
        self._store, self._copy = service.directory / "store", service.directory / "copy"
        service.kill()
        shutil.copytree(self._store, self._copy)
        service.start()

    def restore(self) -> None:
        self._service.kill()
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)
        self._service.start()


async def retried(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call returns, once the broker is back."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await call()
            except BrokerError:
                await asyncio.sleep(0.05)


async def append(broker: Broker, *texts: str) -> list[str]:
    return [one.id for one in await retried(lambda: broker.append(batch(*texts)))]


async def assert_places(broker: Broker, epoch: str, end: int, lost: int) -> None:
    """Ids of a timeline are placed up to its end, and not behind it."""
    bounds = await broker.bounds()
    assert (epoch, end) in bounds.timelines
    found = [await broker.find(f"{epoch}-{position}") for position in range(1, lost + 1)]
    assert found == [*range(1, end + 1), *[None] * (lost - end)]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_backup_is_restored_while_hubs_are_up(service: Nats, opened: Open) -> None:
    before = descriptors()
    brokers = [await opened() for _ in range(3)]
    ids = await append(brokers[0], *"abc")
    epoch = (await brokers[2].bounds()).epoch
    backup = Backup(service)
    ids += await append(brokers[0], *"de") + await append(brokers[1], *"fg")
    lost = (await retried(brokers[2].bounds)).epoch  # the server was started anew
    backup.restore()
    late = await opened()  # before those that have seen more are back
    ids += await append(late, "h") + await append(brokers[1], "i") + await append(brokers[0], "j")
    ids += await append(brokers[2], "k")
    assert len(set(ids)) == len(ids)
    for broker in (*brokers, late):
        bounds = await retried(broker.bounds)
        assert bounds.newest == 7
        assert data(await read_all(broker)) == list("abchijk")
        await assert_places(broker, epoch, 3, 7)
        assert [await broker.find(f"{lost}-{position}") for position in range(1, 8)] == [None] * 7
    assert len({(await broker.bounds()).epoch for broker in brokers}) == 1
    for broker in (*brokers, late):
        await broker.close()

    async def are_closed() -> bool:
        return descriptors() == before

    await until(are_closed)


async def test_a_backup_is_restored_while_hubs_are_down(service: Nats, opened: Open) -> None:
    one = await opened()
    await append(one, *"abc")
    await one.drop([2], {"news": Cut(2)}, 0)
    first = (await one.bounds()).epoch
    await one.close()
    backup = Backup(service)
    two = await opened()
    ids = await append(two, *"de")
    second = (await two.bounds()).epoch
    await two.drop([4], {"news": Cut(4)}, 0)
    await two.close()
    backup.restore()
    three = await opened()
    bounds = await three.bounds()
    assert (bounds.newest, bounds.timelines) == (3, ((first, 3),))
    assert bounds.epoch not in (first, second)
    ids += await append(three, *"fg")
    assert len(set(ids)) == 4
    assert [entry.id for entry in await read_all(three)] == [f"{first}-1", f"{first}-3", *ids[2:]]
    assert await three.find(f"{second}-4") is None
    assert list(await three.cuts()) == [("news", Cut(2))]


async def test_who_has_seen_nothing_of_what_is_lost_publishes_first_after_a_restore(
    service: Nats, opened: Open
) -> None:
    hub, idle = await opened(), await opened()
    ids = await append(idle, "a")
    epoch = (await hub.bounds()).epoch
    backup = Backup(service)
    ids += await append(hub, *"bc")
    backup.restore()
    ids += await append(idle, "d") + await append(hub, "e") + await append(idle, "f")
    assert len(set(ids)) == 6
    bounds = await hub.bounds()
    assert bounds.timelines == ((epoch, 1),)  # one more, and not one of each


async def test_a_history_that_goes_back_behind_a_name_is_known_by_who_has_seen_the_next(
    service: Nats, opened: Open
) -> None:
    broker = await opened()
    ids = await append(broker, *"abc")
    backup = Backup(service)
    first = (await retried(broker.bounds)).epoch
    await broker.renew(first)
    ids += await append(broker, "d")
    backup.restore()
    ids += await append(broker, "e")  # the history has all that there was under its first name
    assert len(set(ids)) == 5
    assert (await broker.bounds()).epoch != first


async def test_a_hub_that_does_not_answer_counts_as_dead(service: Nats, opened: Open) -> None:
    one = await opened()
    await append(one, "a")
    first = (await one.bounds()).epoch
    await one.close()
    async with Client() as client:
        await client.connect(f"nats://127.0.0.1:{service.port}")
        await client.subscribe("test.hubs")  # as one that is frozen
        later = await opened(service.url("test"), broker_timeout=0.5)
        assert (await later.bounds()).timelines == ((first, 1),)


@asynccontextmanager
async def api(service: Nats) -> AsyncIterator[Callable[..., Awaitable[dict[str, Any]]]]:
    """The server's own interface."""
    async with Client() as client:
        await client.connect(f"nats://127.0.0.1:{service.port}")

        async def ask(subject: str, **wish: Any) -> dict[str, Any]:
            answer = await client.request(f"$JS.API.STREAM.{subject}", msgspec.json.encode(wish), timeout=DEADLINE)
            said: dict[str, Any] = msgspec.json.decode(answer.data)
            assert "error" not in said, said
            return said

        ask.client = client  # type: ignore[attr-defined]
        yield ask


async def test_a_snapshot_of_the_stream_is_restored_under_the_hubs(service: Nats, opened: Open) -> None:
    """No connection breaks meanwhile."""
    one, two, idle = await opened(), await opened(), await opened()
    ids = await append(one, *"abc") + await append(idle, "d")
    epoch = (await two.bounds()).epoch
    async with api(service) as ask:
        client: Client = ask.client  # type: ignore[attr-defined]
        chunks: list[bytes] = []
        is_whole = asyncio.Event()

        async def take_chunk(message: Any) -> None:
            chunks.append(message.data)
            if not message.data:
                is_whole.set()
            elif message.reply:
                await client.publish(message.reply, b"")

        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=take_chunk)
        said = await ask("SNAPSHOT.test", deliver_subject=inbox, chunk_size=65536)
        await asyncio.wait_for(is_whole.wait(), DEADLINE)
        ids += await append(one, *"ef")
        assert positions(await take(two, 4, 2)) == [5, 6]
        await ask("DELETE.test")
        to = (await ask("RESTORE.test", config=said["config"], state=said["state"]))["deliver_subject"]
        for chunk in chunks:
            await client.request(to, chunk, timeout=DEADLINE)

        async def is_back() -> bool:
            return (await one.bounds()).newest == 4

        await until(is_back)
    ids += await append(one, "g") + await append(idle, "h") + await append(two, "i")
    assert len(set(ids)) == 9
    for broker in (one, two, idle, await opened()):
        await retried(broker.bounds)
        assert data(await read_all(broker)) == list("abcdghi")
        await assert_places(broker, epoch, 4, 6)


async def test_what_was_dropped_of_a_history_that_was_emptied_says_nothing_of_the_next(
    service: Nats, opened: Open
) -> None:
    broker = await opened()
    await append(broker, *"abc")
    await broker.drop([1], {"news": Cut(1)}, 0)
    await broker.drop([], {}, 1)
    await broker.drop([2], {"news": Cut(2)}, 1)
    async with api(service) as ask:
        await ask("PURGE.test")
        assert (await broker.bounds())[1:] == (0, 0, 0, (), 0)
        assert list(await broker.cuts()) == []
        await append(broker, *"abc")
        assert positions(await read_all(broker)) == [1, 2, 3]
        await broker.trim()
        assert (await ask("INFO.test_cuts"))["state"]["messages"] == 1  # the floor


async def test_the_place_of_what_has_been_dropped_is_lost(service: Nats, opened: Open) -> None:
    broker = await opened()
    await append(broker, *"abc")
    await broker.drop([2], {"news": Cut(2)}, 0)
    async with api(service) as ask:
        await ask("DELETE.test_cuts")
    bounds = await (await opened()).bounds()
    assert (bounds.newest, bounds.floor) == (3, 3)  # of no place it is known what was missed before it


async def test_holes_of_batches_that_another_hub_has_dropped_do_not_count(service: Nats, opened: Open) -> None:
    one, two = await opened(), await opened()
    await append(one, *["x" * 1000] * 10)
    await append(one, "y" * 100)
    await one.drop(range(1, 10), {}, 0)
    assert 1000 <= (await two.bounds()).bytes < 2000  # it knows of the hole
    await one.drop([10], {}, 0)
    await two.trim()
    assert 100 <= (await two.bounds()).bytes < 500
    assert await two.bounds() == await one.bounds()


class Dead(BrokerError):
    """Of a process that does nothing any more."""


def dies_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Callable[[], bool]:
    """Let nothing reach the server after so many changes. The function says whether there were so many."""
    done = 0

    def mortal(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done > steps:
                raise Dead
            return await method(*args, **kwargs)

        return call

    for name in ("put", "delete", "purge", "publish"):
        monkeypatch.setattr(JetStream, name, mortal(getattr(JetStream, name)))
    return lambda: done > steps


async def test_a_hub_dies_between_the_steps_of_a_drop(
    service: Nats, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [1, 2, 3, 5, 8, 9, 10, 11, 12, 13]
    for steps in range(100):
        url = service.url(f"test{steps}")
        broker = await opened(url)
        for some in (batch("a"), batch(*"bc"), batch(*"def"), batch("g"), batch(*"hij", ids="hij"), batch(*"klm")):
            await broker.append(some)
        await broker.drop([12], {"news": Cut(12)}, 0)
        with monkeypatch.context() as patch:
            has_died = dies_after(patch, steps)
            try:
                await broker.drop(gone, {"news": Cut(13), "other": Cut(5)}, 0)
            except Dead:
                assert has_died()
            await broker.close()
        later = await opened(url)
        left = positions(await read_all(later))
        assert {4, 6, 7} <= set(left)
        assert positions(await take(later, 0, len(left))) == left
        cuts = dict(await later.cuts())
        assert left == [4, 6, 7] or cuts["news"] >= Cut(12)
        if set(gone) - {12} - set(left):
            assert cuts == {"news": Cut(13), "other": Cut(5)}
        assert [await later.find(id) for id in "hij"] == [at if at in left else None for at in (8, 9, 10)]
        await later.append(batch("n"))
        await later.trim()
        await later.drop(gone, {"news": Cut(13), "other": Cut(5)}, 0)
        await later.trim()
        assert positions(await read_all(later)) == [4, 6, 7, 14]
        async with api(service) as ask:
            messages = (await ask(f"INFO.test{steps}"))["state"]["messages"]
            assert (messages, (await ask(f"INFO.test{steps}_cuts"))["state"]["messages"]) == (4, 4), steps
        await later.close()
        if not has_died():
            return
    raise AssertionError("it never came to its end")


async def test_bounds_that_are_asked_for_while_a_publisher_gives_a_name_are_all_under_one_name(
    make: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await make()
    await append(broker, "a")
    first = (await broker.bounds()).epoch
    history = broker._history  # type: ignore[attr-defined]
    oldest = history.drops.oldest

    async def slowly(js: JetStream, view: Any) -> Any:
        monkeypatch.undo()
        await history.renew(js, first)
        await append(broker, "b")
        return await oldest(js, view)

    monkeypatch.setattr(history.drops, "oldest", slowly)
    bounds = await broker.bounds()
    assert (bounds.newest, bounds.timelines) == (2, ((first, 1),))
    assert bounds.epoch != first
    assert data(await take(broker, 0, 2)) == ["a", "b"]
