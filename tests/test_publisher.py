"""Publishing without a hub: both publishers against a real broker, over threads and forks."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from live import Stream, serve_command
from ssepool import (
    AsyncPublisher,
    BrokerError,
    ConfigError,
    DuplicateEvent,
    Event,
    EventTooLarge,
    IdConflict,
    InvalidEvent,
    InvalidTopic,
    Publisher,
)
from ssepool.brokers import connect
from ssepool.config import HubConfig


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def publisher(url: str) -> Iterator[Publisher]:
    with Publisher(url) as publisher:
        yield publisher


async def kept(url: str) -> list[bytes]:
    """The frames that the broker has."""
    broker = connect(HubConfig(broker=url))
    await broker.open()
    try:
        return [entry.frame.split(b"\n", 1)[1] for entry in await broker.read(0, max_entries=10_000)]
    finally:
        await broker.close()


def test_an_event_replaces_and_removes(url: str, publisher: Publisher) -> None:
    publisher.publish("t", 1, key="7")
    publisher.publish("t", 2, key="7")
    publisher.publish("t", 3, key="8")
    publisher.remove("t", "8")
    with serve_command("--broker", url) as server, Stream(server, "t", last_event_id="earliest") as stream:
        stream.wait_data("2")


async def test_an_event_replaces_and_removes_from_tasks_too(url: str) -> None:
    async with AsyncPublisher(url) as publisher:
        await publisher.publish("t", 1, key="7")
        await publisher.publish(["t", "u"], 2, key="7")  # of other topics, so another row
        await publisher.publish("t", 3, key="7")
        await publisher.remove(["u", "t"], "7")  # whose topics are the same in whatever order
        await publisher.remove("t", "8", {"id": 8}, type="gone")
        for removed in (publisher.remove("t", ""), publisher.remove([], "7"), publisher.remove("t", 7)):  # type: ignore[arg-type]
            with pytest.raises((InvalidEvent, InvalidTopic)):
                await removed
        stored = [frame for frame in await kept(url) if frame.startswith(b"event")]
    assert stored == [b"event: removed\ndata: 7\n\n", b'event: gone\ndata: {"id":8}\n\n']
    with serve_command("--broker", url) as server, Stream(server, "t", "u", last_event_id="earliest") as stream:
        stream.wait_data("3")
        async with AsyncPublisher(url) as publisher:
            await publisher.publish("u", 4, key="7")
            await publisher.remove("t", "7")
        stream.wait_data("3", "4", "7")


def test_a_hub_gets_what_a_program_without_one_publishes(url: str, publisher: Publisher) -> None:
    first = publisher.publish("news", "before the hub")  # the broker keeps it
    with serve_command("--broker", url) as server, Stream(server, "news", last_event_id="earliest") as stream:
        stream.wait_data("before the hub")
        second = publisher.publish(["news", "sport"], {"n": 1}, type="update", id="mine")
        stream.wait_data("before the hub", '{"n":1}')
        assert [event.id for event in stream.events if event.id] == [first, second]
        assert (stream.events[-1].type, second) == ("update", "mine")


def test_a_batch_is_published_whole_and_in_order(url: str, publisher: Publisher) -> None:
    ids = publisher.publish_many(Event(str(n), ("news",)) for n in range(50))
    assert len(set(ids)) == 50
    assert asyncio.run(kept(url)) == [b"data: %d\n\n" % n for n in range(50)]


def test_a_publish_that_is_tried_again_is_stored_once(url: str, publisher: Publisher) -> None:
    assert [publisher.publish("news", 0, id="order-7") for _ in range(3)] == ["order-7"] * 3
    assert asyncio.run(kept(url)) == [b"data: 0\n\n"]
    with Publisher(url, on_duplicate="refuse") as strict, pytest.raises(DuplicateEvent, match="'order-7'"):
        strict.publish("news", 0, id="order-7")


def test_an_id_is_one_of_its_topics_and_names_one_content(url: str, publisher: Publisher) -> None:
    publisher.publish("shop", "own", id="order-7")
    assert publisher.publish("stranger", "other", id="order-7") == "order-7"
    with pytest.raises(IdConflict, match=r"^an event with the id 'order-7' is in the history already, for the same"):
        publisher.publish_many([Event("new", ("shop",)), Event("other", ("shop",), id="order-7")])
    assert asyncio.run(kept(url)) == [b"data: own\n\n", b"data: other\n\n"]


def test_the_history_is_bounded_by_the_hubs_and_not_by_publishers(url: str, publisher: Publisher) -> None:
    publisher.publish_many(Event(str(n), ("news",)) for n in range(10_500))  # more than a hub keeps by default
    broker = connect(HubConfig(broker=url, history_events=20_000))

    async def count() -> int:
        await broker.open()
        bounds = await broker.bounds()
        await broker.close()
        return bounds.newest - bounds.oldest

    assert asyncio.run(count()) == 10_500


def test_many_threads_share_one(url: str, publisher: Publisher) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: publisher.publish("news", n), range(200)))
    assert len(set(ids)) == 200
    assert sum(thread.name == "ssepool-publisher" for thread in threading.enumerate()) == 1


def _publish_in_child(publisher: Publisher, number: int) -> None:
    publisher.publish("news", f"child {number}")
    publisher.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # with threads, which is what is tested here
def test_a_process_that_is_forked_makes_its_own_connection(url: str, publisher: Publisher) -> None:
    publisher.publish("news", "parent")
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_publish_in_child, args=(publisher, number)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    publisher.publish("news", "parent again")
    frames = asyncio.run(kept(url))
    assert (frames[0], frames[-1]) == (b"data: parent\n\n", b"data: parent again\n\n")
    assert sorted(frames[1:-1]) == [b"data: child %d\n\n" % number for number in range(3)]


def test_it_can_be_used_again_after_closing(url: str) -> None:
    publisher = Publisher(url)
    for number in range(3):
        publisher.publish("news", number)
        publisher.close()
        publisher.close()
    assert len(asyncio.run(kept(url))) == 3


async def test_many_tasks_share_one(url: str) -> None:
    async with AsyncPublisher(url) as publisher:
        ids = await asyncio.gather(*(publisher.publish("news", n) for n in range(100)))
    assert len(set(ids)) == 100
    assert await kept(url) == [b"data: %d\n\n" % n for n in range(100)]


def test_bad_events_are_refused_and_nothing_is_published(url: str, publisher: Publisher) -> None:
    with pytest.raises(InvalidTopic, match="at least one topic"):
        publisher.publish([], "x")
    with pytest.raises(InvalidEvent, match="id"):
        publisher.publish("news", "x", id="not allowed")
    with Publisher(url, max_event_size=200) as small, pytest.raises(EventTooLarge, match="max_event_size=200"):
        small.publish_many([Event("fits", ("news",)), Event("x" * 300, ("news",))])
    publisher.publish("news", "the only one")
    assert asyncio.run(kept(url)) == [b"data: the only one\n\n"]


@pytest.mark.parametrize("make", [Publisher, AsyncPublisher])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://", "kept in one process"),
        ("pigeon://loft", "'pigeon'"),
        ("sqlite:///:memory:", "memory://"),
    ],
)
def test_a_url_that_will_not_do_is_refused_at_once(make: type, url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(url)


def test_a_broker_that_does_not_answer_is_an_error_in_bounded_time(url: str) -> None:
    with Publisher(url) as publisher:
        publisher.publish("news", "first")
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    with Publisher(url, broker_timeout=0.3) as publisher:
        publisher.publish("news", "second")
        other.execute("BEGIN IMMEDIATE")  # nobody else can write now
        with pytest.raises(BrokerError):
            publisher.publish("news", "never", id="never")
        other.execute("ROLLBACK")
        publisher.publish("news", "third")
    other.close()
    frames = asyncio.run(kept(url))
    assert [frame for frame in frames if frame != b"data: never\n\n"] == [
        b"data: first\n\n",
        b"data: second\n\n",
        b"data: third\n\n",
    ]


class Unknown:
    pass


async def test_a_publisher_asks_the_application_about_objects_that_it_does_not_know(url: str) -> None:
    def encoder(unknown: Unknown) -> str:
        return type(unknown).__name__

    async with AsyncPublisher(url, json_encoder=encoder) as publisher:
        await publisher.publish("a", {"n": [Unknown()]})
    with Publisher(url, json_encoder=encoder) as sync:
        await asyncio.to_thread(sync.publish, "a", [Unknown()])
        await asyncio.to_thread(sync.publish, "a", Event.from_frame(": note\ndata: x\n\n"))
    with Publisher(url) as plain, pytest.raises(InvalidEvent, match="json_encoder="):
        await asyncio.to_thread(plain.publish, "a", Unknown())
    assert await kept(url) == [b'data: {"n":["Unknown"]}\n\n', b'data: ["Unknown"]\n\n', b": note\ndata: x\n\n"]
