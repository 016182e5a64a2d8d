"""The memory broker: order and ids, where a client goes on, and what is kept, with a clock of the test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from ssepool.brokers import connect
from ssepool.brokers.memory import MemoryBroker
from ssepool.brokers.record import records
from ssepool.config import HubConfig
from ssepool.core.beginning import Found
from ssepool.core.decoder import Decoder
from ssepool.core.event import Entry, Event
from ssepool.core.topics import Subscription
from ssepool.core.window import Held
from ssepool.errors import ConfigError, DuplicateEvent, EventTooLarge, IdConflict
from ssepool.runtime.streams.log import EventLog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def broker_of(clock: Clock | None = None, **settings: Any) -> MemoryBroker:
    return MemoryBroker(HubConfig(**settings), clock=clock or Clock())


def events(count: int, *, first: int = 1, **fields: Any) -> list[Event]:
    return [Event(f"{number:04}", ("news",), **fields) for number in range(first, first + count)]


def found(broker: MemoryBroker, id: str, *topics: str) -> Found:
    """Where a hub lets a client go on that has this id, and whether it has missed nothing."""
    log = EventLog(broker, lambda entries: None, lambda missed: None, lambda: asyncio.sleep(0), time.monotonic)
    log.window = broker.window
    wanted = Subscription.of(topics or ["news", "n"])
    place = log.find(id, wanted)
    assert place is not None  # what is in memory need not be asked for
    if id == "earliest":
        return place
    return place._replace(complete=place.complete and not log.lost(wanted, place.position))


def positions(entries: Sequence[Entry]) -> list[int]:
    return [entry.position for entry in entries]


def hear(broker: MemoryBroker, heard: list[Entry]) -> None:
    """As a hub listens."""

    def listener(entries: Sequence[Entry]) -> None:
        broker.enter(entries)
        heard.extend(entries)

    broker.listener = listener


# Order and ids.


async def test_the_listener_gets_all_entries_in_order_and_each_once() -> None:
    broker, heard = broker_of(), list[Entry]()
    hear(broker, heard)
    ids = [stored.id for stored in await broker.append(records(events(3), 1000))]
    ids += broker.append_nowait(events(2, first=4))
    assert positions(heard) == [1, 2, 3, 4, 5]
    assert [entry.id for entry in heard] == ids
    assert broker.window.read(0, max_entries=10) == heard


async def test_after_close_nobody_listens() -> None:
    broker, heard = broker_of(), list[Entry]()
    hear(broker, heard)
    await broker.close()
    broker.append_nowait(events(1))
    assert heard == []


def test_without_a_listener_events_are_kept_all_the_same() -> None:
    broker = broker_of()
    broker.append_nowait(events(2))
    assert broker.window.kept.events == 2


def test_an_entry_has_all_that_delivery_needs() -> None:
    broker = broker_of()
    (id,) = broker.append_nowait([Event("hello", ("news", "sport"), "greeting", retry=500, private=True)])
    (entry,) = broker.window.read(0, max_entries=1)
    assert (entry.position, entry.id, entry.topics) == (1, id, ("news", "sport"))
    assert entry.private
    decoder = Decoder()
    (message,) = decoder.feed(entry.frame)
    assert (message.id, message.type, message.data, decoder.retry) == (id, "greeting", "hello", 500)


def test_ids_are_the_epoch_and_the_position() -> None:
    broker = broker_of()
    assert broker.append_nowait(events(2)) == [f"{broker.window.epoch}-1", f"{broker.window.epoch}-2"]


def test_the_epoch_is_new_in_each_process() -> None:
    assert len({broker_of().window.epoch for _ in range(50)}) == 50


def test_ids_need_no_preflight() -> None:
    (id,) = broker_of().append_nowait(events(1))
    assert not set(id) & set('"():<>?@[\\]{}')


def test_an_id_that_the_publisher_chose_is_kept() -> None:
    broker = broker_of()
    assert broker.append_nowait([Event("x", ("news",), id="mine"), *events(1)]) == ["mine", f"{broker.window.epoch}-2"]
    assert broker.window.read(0, max_entries=1)[0].frame == b"id: mine\ndata: x\n\n"


def test_nothing_at_all_can_be_appended() -> None:
    broker = broker_of()
    assert broker.append_nowait([]) == []
    assert (broker.window.newest, broker.window.oldest) == (0, 0)


def test_an_event_that_is_too_large_leaves_nothing_appended() -> None:
    broker, heard = broker_of(max_event_size=128), list[Entry]()
    hear(broker, heard)
    broker.append_nowait(events(1))
    before = (broker.window.newest, broker.window.oldest, broker.window.kept, list(heard), found(broker, "a"))
    with pytest.raises(EventTooLarge, match=r"^an event of \d{3} bytes on the wire exceeds max_event_size=128$"):
        broker.append_nowait([Event("fits", ("news",), id="a"), Event("x" * 128, ("news",), id="b"), *events(1)])
    assert (broker.window.newest, broker.window.oldest, broker.window.kept, list(heard), found(broker, "a")) == before
    assert broker.append_nowait(events(1)) == [f"{broker.window.epoch}-2"]


def test_an_event_of_exactly_the_largest_size_is_appended() -> None:
    broker = broker_of(max_event_size=128)
    overhead = len(b"id: i\ndata: \n\n")
    broker.append_nowait([Event("x" * (128 - overhead), ("news",), id="i")])
    assert broker.window.kept.events == 1
    with pytest.raises(EventTooLarge, match="an event of 129 bytes"):
        broker.append_nowait([Event("x" * (129 - overhead), ("news",), id="j")])


# Where a client goes on.


def test_who_has_an_event_goes_on_behind_it() -> None:
    broker = broker_of()
    ids = broker.append_nowait([*events(2), Event("x", ("news",), id="mine"), *events(1)])
    assert [found(broker, id) for id in ids] == [Found(position, True) for position in (1, 2, 3, 4)]
    assert positions(broker.window.read(found(broker, "mine").position, max_entries=10)) == [4]


def test_earliest_is_all_that_is_kept() -> None:
    broker = broker_of(history_events=2)
    assert found(broker, "earliest") == Found(0, True)
    broker.append_nowait(events(5))
    assert found(broker, "earliest") == Found(0, True)
    assert positions(broker.window.read(0, max_entries=10)) == [4, 5]


@pytest.mark.parametrize(
    "id",
    ["", "-", "nobody", "{epoch}", "{epoch}-", "{epoch}-x", "{epoch}-4", "{epoch}--1", "{epoch}-1.0", "00000000-1"],
)
def test_an_id_that_nobody_gave_goes_on_at_the_oldest_and_is_not_complete(id: str) -> None:
    broker = broker_of()
    broker.append_nowait(events(3))
    assert found(broker, id.format(epoch=broker.window.epoch)) == Found(0, False)


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "\u0661", "\u00b2", "1 ", "+1", "1_0"])
def test_hostile_numbers_are_unknown_ids(number: str) -> None:
    broker = broker_of()
    broker.append_nowait(events(3))
    assert found(broker, f"{broker.window.epoch}-{number}") == Found(0, False)


def test_an_id_of_another_process_is_not_complete() -> None:
    old, new = broker_of(), broker_of()
    (id,) = old.append_nowait(events(1))
    new.append_nowait(events(3))
    assert found(new, id) == Found(0, False)


@pytest.mark.parametrize("chosen", [False, True])
def test_an_id_is_good_as_long_as_all_that_came_after_it_is_kept(chosen: bool) -> None:
    broker = broker_of(history_events=3)
    ids = [
        id
        for number in range(5)
        for id in broker.append_nowait([Event("x", ("n",), id=f"c{number}" if chosen else None)])
    ]
    # 3, 4 and 5 are kept. Who has 2 lacks nothing else; who has only 1 lacks 2, which is gone.
    assert [found(broker, id) for id in ids] == [Found(1, False), *(Found(position, True) for position in (2, 3, 4, 5))]


def test_a_client_that_has_everything_lacks_nothing_when_all_has_expired() -> None:
    clock = Clock()
    broker = broker_of(clock, history_age=60)
    own, chosen = broker.append_nowait([*events(1), Event("x", ("news",), id="chosen")])
    clock.now += 3600
    broker.window.expire(clock())
    assert found(broker, chosen) == Found(2, True)
    assert found(broker, own) == Found(1, False)
    assert found(broker, own, "another") == Found(1, True)  # nothing of it has gone


def test_an_id_that_is_kept_already_is_ignored() -> None:
    broker, heard = broker_of(history_events=3), list[Entry]()
    hear(broker, heard)
    first = [Event("x", ("news",), id="twice"), *events(1), Event("x", ("news",), id="twice")]
    assert broker.append_nowait(first) == ["twice", f"{broker.window.epoch}-2", "twice"]
    assert broker.append_nowait(first[:1]) == ["twice"]
    assert [entry.frame for entry in heard if entry.id == "twice"] == [b"id: twice\ndata: x\n\n"]
    assert found(broker, "twice") == Found(1, True)


async def test_an_id_that_is_kept_already_is_stored_where_it_was() -> None:
    broker = broker_of()
    batch = [Event("a", ("n",), id="a"), *events(1), Event("b", ("n",), id="b"), Event("a", ("n",), id="a")]
    assert [stored.position for stored in await broker.append(records(batch, 1000))] == [1, 2, 3, 1]
    again = [Event("b", ("n",), id="b"), Event("c", ("n",), id="c"), *events(1)]
    assert [stored.position for stored in await broker.append(records(again, 1000))] == [3, 4, 5]


@pytest.mark.parametrize("again", ["twice", "new"])
def test_an_id_that_is_kept_already_can_be_refused(again: str) -> None:
    broker = broker_of(on_duplicate="refuse")
    broker.append_nowait([Event("x", ("news",), id="twice")])
    batch = [*events(1), Event("x", ("news",), id=again), Event("x", ("news",), id=again)]
    with pytest.raises(DuplicateEvent, match=rf"^an event with the id '{again}' is in the history already"):
        broker.append_nowait(batch)
    assert broker.window.newest == 1


def test_an_id_can_be_used_again_when_its_event_is_kept_no_longer() -> None:
    broker = broker_of(history_events=1, on_duplicate="refuse")
    broker.append_nowait([Event("x", ("news",), id="twice")])
    broker.append_nowait(events(2))
    broker.append_nowait([Event("y", ("news",), id="twice")])
    places = broker.window.named("twice")
    assert broker.window.at(places[-1]) is not None
    assert (broker.window.newest, places[-1]) == (4, 4)


def test_chosen_ids_are_forgotten_with_their_events() -> None:
    broker = broker_of(history_events=10)
    broker.append_nowait([Event("x", ("news",), id=f"c{number}") for number in range(1000)])
    assert len(broker.window._chosen) <= 2 * 11


def test_looking_an_id_up_takes_no_longer_in_a_long_history() -> None:
    broker = broker_of(history_events=50_000)
    broker.append_nowait([Event("x", ("news",), id=f"c{n}" if n % 2 else None) for n in range(50_000)])
    began = time.process_time()
    for _ in range(5_000):
        assert found(broker, "c24999").complete
        assert found(broker, f"{broker.window.epoch}-25001").complete
        assert not found(broker, "unknown").complete
    # It takes ten milliseconds; looking through the history takes a minute.
    assert time.process_time() - began < 5


# Reading.


def test_reading_is_in_order_and_in_pages() -> None:
    broker = broker_of()
    broker.append_nowait(events(5))
    assert positions(broker.window.read(0, max_entries=2)) == [1, 2]
    assert positions(broker.window.read(2, max_entries=2)) == [3, 4]
    assert positions(broker.window.read(4, max_entries=2)) == [5]
    assert positions(broker.window.read(5, max_entries=2)) == []


def test_reading_from_before_the_oldest_begins_at_the_oldest() -> None:
    broker = broker_of(history_events=2)
    broker.append_nowait(events(5))
    assert positions(broker.window.read(1, max_entries=10)) == [4, 5]
    assert positions(broker.window.read(1, max_entries=1)) == [4]


# What is kept.


def test_history_is_bounded_by_count() -> None:
    broker = broker_of(history_events=3)
    broker.append_nowait(events(2))
    broker.append_nowait(events(5, first=3))
    assert positions(broker.window.read(0, max_entries=100)) == [5, 6, 7]
    assert (broker.window.oldest, broker.window.newest, broker.window.kept.events) == (4, 7, 3)


def test_history_is_bounded_by_bytes() -> None:
    broker = broker_of()
    broker.append_nowait(events(1))
    size = broker.window.kept.bytes
    broker = broker_of(history_bytes=3 * size)
    broker.append_nowait(events(3))
    assert broker.window.kept == Held(3, 3 * size)
    broker.append_nowait(events(1))
    assert broker.window.kept == Held(3, 3 * size)
    broker.append_nowait([Event("x" * 20, ("news",), id="1")])
    assert broker.window.kept.bytes <= 3 * size
    assert broker.window.newest == 5


def test_an_id_is_known_before_its_event_has_entered_the_window() -> None:
    broker, waiting = broker_of(), list[Entry]()
    broker.listener = waiting.extend
    assert broker.append_nowait([Event("x", ("news",), id="mine"), *events(1)])[0] == "mine"
    assert broker.append_nowait([Event("x", ("news",), id="mine")]) == ["mine"]
    with pytest.raises(IdConflict):
        broker.append_nowait([Event("y", ("news",), id="mine")])
    assert (broker.append_nowait(events(1)), broker.window.newest) == ([f"{broker.window.epoch}-3"], 0)
    broker.enter(waiting)
    assert (broker.window.newest, broker.window.kept.events) == (3, 3)
    assert broker.append_nowait([Event("x", ("news",), id="mine")]) == ["mine"]


def test_an_event_above_all_of_history_is_delivered_and_not_kept() -> None:
    broker, heard = broker_of(history_bytes=600), list[Entry]()
    hear(broker, heard)
    broker.append_nowait(events(1))
    broker.append_nowait([Event("x" * 100, ("news",))])
    assert positions(heard) == [1, 2]
    assert positions(broker.window.read(0, max_entries=10)) == [1]  # and it has pushed nothing out
    assert found(broker, f"{broker.window.epoch}-1") == Found(1, False)


@pytest.mark.parametrize("setting", ["history_events", "history_bytes"])
def test_a_history_of_zero_keeps_nothing(setting: str) -> None:
    broker = broker_of(**{setting: 0})
    ids = broker.append_nowait(events(3))
    assert broker.window.kept == Held(0, 0)
    assert broker.window.read(0, max_entries=10) == []
    assert found(broker, ids[2]) == Found(3, True)
    assert found(broker, ids[1]) == Found(2, False)


def test_history_is_bounded_by_age() -> None:
    clock = Clock()
    broker = broker_of(clock, history_age=60)
    for _ in range(4):
        broker.append_nowait(events(1))
        clock.now += 20
    broker.window.expire(clock())  # the four are 80, 60, 40 and 20 seconds old
    assert positions(broker.window.read(0, max_entries=10)) == [3, 4]
    clock.now += 19.9
    broker.window.expire(clock())
    assert positions(broker.window.read(0, max_entries=10)) == [3, 4]
    clock.now += 0.1
    broker.window.expire(clock())
    assert positions(broker.window.read(0, max_entries=10)) == [4]
    clock.now += 1e6
    broker.window.expire(clock())
    assert broker.window.kept == Held(0, 0)
    broker.window.expire(clock())
    assert broker.append_nowait(events(1)) == [f"{broker.window.epoch}-5"]


# How it is named.


def test_the_url_memory_names_it() -> None:
    assert isinstance(connect(HubConfig()), MemoryBroker)
    assert isinstance(connect(HubConfig(broker="memory://")), MemoryBroker)


@pytest.mark.parametrize("url", ["carrier-pigeon://loft", "memory", "://"])
def test_an_unknown_scheme_is_an_error_that_names_it_and_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^HubConfig\.broker has the scheme '.*', which is not one of memory://"):
        connect(HubConfig(broker=url))
