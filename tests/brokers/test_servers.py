"""What becomes of brokers and hubs whose server dies, hangs or forgets.

Each test has a server of its own, that may be harmed. PostgreSQL takes long to start: see `test_postgres`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from histories import DEADLINE, Open, batch, page_of, positions, read_all, take
from live import LiveServer, Stream, serve, wait_for
from services import Service
from ssepool.errors import BrokerError

pytestmark = pytest.mark.parametrize("kind", ["redis", "nats"])

LOST = {
    "redis": ("has begun a new history or timeline", "has begun a new history or timeline"),
    "nats": ("Consumer Deleted", "has begun a new history"),
}
"""What a tail says in which the history is lost, and what readers of the lost history are told then."""


# A hub.


@pytest.fixture
def hub(service: Service) -> Iterator[LiveServer]:
    with serve("detached", broker=service.url("hub"), broker_timeout=1.0) as hub:
        yield hub


def publish(hub: LiveServer, number: int) -> bool:
    """Whether it was published. It may be tried again, since its id is its own."""
    event = {"topic": "news", "data": str(number), "id": f"id{number}"}
    status, answer = hub.request("POST", "/events", event)
    assert status in (201, 503), answer
    return status == 201


def publish_at_last(hub: LiveServer, number: int) -> None:
    wait_for(lambda: publish(hub, number), what=f"event {number} published")


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def test_a_hub_goes_on_when_its_server_has_died_and_lost_nothing(service: Service, hub: LiveServer) -> None:
    with Stream(hub, "news").opened() as stream:
        for number in range(1, 11):
            assert publish(hub, number)
        service.kill()
        assert not publish(hub, 11)
        service.start()
        for number in range(11, 21):
            publish_at_last(hub, number)
        stream.wait_data(*numbers(1, 20))
        assert not stream.of_type("ssepool.gap")
        with Stream(hub, "news", last_event_id="id4") as late:
            late.wait_data(*numbers(5, 20))


def test_publishes_fail_in_time_while_the_server_hangs_and_all_comes_once(service: Service, hub: LiveServer) -> None:
    with Stream(hub, "news").opened() as stream:
        for number in range(1, 6):
            assert publish(hub, number)
        service.suspend()
        assert not publish(hub, 6)  # the request itself has a deadline
        assert not publish(hub, 7)
        service.resume()
        for number in range(6, 11):  # some may have been published after all, when the server read on
            publish_at_last(hub, number)
        stream.until(lambda s: len(set(s.data)) == 10)
        assert sorted(stream.data, key=int) == numbers(1, 10)
        assert not stream.of_type("ssepool.gap")


def test_subscribers_are_told_when_the_server_has_lost_everything(service: Service, hub: LiveServer) -> None:
    with Stream(hub, "news").opened() as stream:
        for number in range(1, 6):
            assert publish(hub, number)
        stream.wait_data(*numbers(1, 5))
        service.lose_data()
        for number in range(6, 16):
            assert publish(hub, number)
        stream.until(lambda s: len(s.data) == 15)
        assert stream.data == numbers(1, 15)
        types = [event.type for event in stream.events]
        assert types.count("ssepool.gap") == 1
        assert publish(hub, 16)
        stream.wait_data(*numbers(1, 16))


# A broker.


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(service: Service, opened: Open) -> None:
    broker = await opened(broker_timeout=2.0)
    acknowledged: dict[int, str] = {}

    async def append() -> None:
        for number in itertools.count():
            (stored,) = await broker.append(batch(str(number)))
            acknowledged[stored.position] = f"id: {stored.id}\ndata: {number}\n\n"

    for _ in range(3):
        task, before = asyncio.create_task(append()), len(acknowledged)
        async with asyncio.timeout(DEADLINE):
            while len(acknowledged) < before + 100:
                await asyncio.sleep(0)
        service.kill()
        with pytest.raises(BrokerError):
            await task
        service.start()
    await broker.bounds()  # nobody can tell what a server that has died has lost, so the history may have another name
    kept = {entry.position: entry.frame.decode() for entry in await read_all(broker)}
    assert list(kept) == list(range(1, len(kept) + 1))
    assert {position: kept.get(position) for position in acknowledged} == acknowledged


async def test_waiting_calls_end_when_the_server_dies(kind: str, service: Service, opened: Open) -> None:
    broker = await opened()
    waiting = [
        asyncio.ensure_future(page_of(broker.tail(0))),  # type: ignore[arg-type]
        asyncio.ensure_future(anext(broker.messages())),  # type: ignore[arg-type]
    ]
    await asyncio.sleep(0.1)
    service.kill()
    for future in waiting:
        with pytest.raises(BrokerError, match=rf"^{kind}://127\.0\.0\.1:"):
            await asyncio.wait_for(future, DEADLINE)


async def test_each_call_ends_in_time_while_the_server_hangs(kind: str, service: Service, opened: Open) -> None:
    broker = await opened(broker_timeout=0.2)
    service.suspend()
    calls = [
        broker.append(batch("a")),
        broker.read(0, max_entries=1),
        broker.find("a"),
        broker.bounds(),
        broker.trim(),
        broker.send(b"a"),
    ]
    async with asyncio.timeout(DEADLINE):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [BrokerError] * len(calls)
    service.resume()
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                assert len(await broker.append(batch("b"))) == 1
                break
            except BrokerError:
                assert kind == "nats"  # whose one connection may break now


async def test_a_new_history_has_a_new_epoch_and_is_not_taken_for_the_old_one(
    kind: str, service: Service, opened: Open
) -> None:
    broken, lost = LOST[kind]
    broker, other = await opened(), await opened()
    await broker.append(batch(*"abc"))
    before = await broker.bounds()
    async with aclosing(broker.tail(3)) as tail:  # type: ignore[type-var]
        page = asyncio.ensure_future(page_of(tail))
        await asyncio.sleep(0.1)
        service.lose_data()
        stored = await other.append(batch(*"defgh"))
        with pytest.raises(BrokerError, match=broken):
            await asyncio.wait_for(page, DEADLINE)
    assert positions(stored) == [1, 2, 3, 4, 5]
    with pytest.raises(BrokerError, match=lost):
        await take(broker, 3, 1)
    with pytest.raises(BrokerError, match=lost):
        await broker.read(3, max_entries=1)
    assert await broker.find(f"{before.epoch}-2") is None
    after = await broker.bounds()
    assert (after.newest, after.oldest) == (5, 0)
    assert after.epoch != before.epoch
    assert [entry.id for entry in await take(broker, 0, 5)] == [f"{after.epoch}-{n}" for n in range(1, 6)]
