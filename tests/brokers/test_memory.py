"""The memory broker: order and ids, where a client goes on, and what is kept, with a clock of the test's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool.brokers import connect
from ssepool.brokers.base import Found, History
from ssepool.brokers.memory import MemoryBroker
from ssepool.config import HubConfig
from ssepool.core.decoder import Decoder
from ssepool.core.event import Event
from ssepool.core.feed import Entry
from ssepool.errors import ConfigError, EventTooLarge


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def broker_of(clock: Clock | None = None, **settings: Any) -> MemoryBroker:
    return MemoryBroker(HubConfig(**settings), clock=clock or Clock())


def events(count: int, *, first: int = 1, **fields: Any) -> list[Event]:
    return [Event(f"{number:04}", ("news",), **fields) for number in range(first, first + count)]


def positions(entries: Sequence[Entry]) -> list[int]:
    return [entry.position for entry in entries]


# Order and ids.


async def test_the_listener_gets_all_entries_in_order_and_each_once() -> None:
    broker, heard = broker_of(), list[Entry]()
    await broker.open(heard.extend)
    ids = await broker.append(events(3))
    ids += broker.append_nowait(events(2, first=4))
    assert positions(heard) == [1, 2, 3, 4, 5]
    assert [entry.id for entry in heard] == ids
    assert list(broker.read(0, most=10)) == heard


async def test_after_close_nobody_listens() -> None:
    broker, heard = broker_of(), list[Entry]()
    await broker.open(heard.extend)
    await broker.close()
    await broker.append(events(1))
    assert heard == []


def test_without_a_listener_events_are_kept_all_the_same() -> None:
    broker = broker_of()
    broker.append_nowait(events(2))
    assert broker.history().events == 2


def test_an_entry_has_all_that_delivery_needs() -> None:
    broker = broker_of()
    (id,) = broker.append_nowait([Event("hello", ("news", "sport"), "greeting", retry=500, private=True)])
    (entry,) = broker.read(0, most=1)
    assert entry[:3] == (1, id, ("news", "sport"))
    assert entry.private
    decoder = Decoder()
    (message,) = decoder.feed(entry.frame)
    assert (message.id, message.type, message.data, decoder.retry) == (id, "greeting", "hello", 500)


def test_ids_are_the_epoch_and_the_position() -> None:
    broker = broker_of()
    assert broker.append_nowait(events(2)) == [f"{broker.epoch}-1", f"{broker.epoch}-2"]


def test_the_epoch_is_new_in_each_process() -> None:
    assert len({broker_of().epoch for _ in range(50)}) == 50


def test_ids_need_no_preflight_and_are_allowed() -> None:
    (id,) = broker_of().append_nowait(events(1))
    assert Event("x", id=id).id == id
    assert not set(id) & set('"():<>?@[\\]{}')


def test_an_id_that_the_publisher_chose_is_kept() -> None:
    broker = broker_of()
    assert broker.append_nowait([Event("x", ("news",), id="mine"), *events(1)]) == ["mine", f"{broker.epoch}-2"]
    assert broker.read(0, most=1)[0].frame == b"id: mine\ndata: x\n\n"


def test_nothing_at_all_can_be_appended() -> None:
    broker = broker_of()
    assert broker.append_nowait([]) == []
    assert (broker.newest, broker.oldest) == (0, 0)


def test_an_event_that_is_too_large_leaves_nothing_appended() -> None:
    broker, heard = broker_of(max_event_size=128), list[Entry]()
    broker._listener = heard.extend
    broker.append_nowait(events(1))
    before = (broker.newest, broker.oldest, broker.history(), list(heard), broker.find("a"))
    with pytest.raises(EventTooLarge, match=r"^an event of \d{3} bytes on the wire exceeds max_event_size=128$"):
        broker.append_nowait([Event("fits", ("news",), id="a"), Event("x" * 128, ("news",), id="b"), *events(1)])
    assert (broker.newest, broker.oldest, broker.history(), list(heard), broker.find("a")) == before
    assert broker.append_nowait(events(1)) == [f"{broker.epoch}-2"]


def test_an_event_of_exactly_the_largest_size_is_appended() -> None:
    broker = broker_of(max_event_size=128)
    overhead = len(b"id: i\ndata: \n\n")
    broker.append_nowait([Event("x" * (128 - overhead), ("news",), id="i")])
    assert broker.history().bytes == 128
    with pytest.raises(EventTooLarge, match="an event of 129 bytes"):
        broker.append_nowait([Event("x" * (129 - overhead), ("news",), id="i")])


# Where a client goes on.


def test_who_has_an_event_goes_on_behind_it() -> None:
    broker = broker_of()
    ids = broker.append_nowait([*events(2), Event("x", ("news",), id="mine"), *events(1)])
    assert [broker.find(id) for id in ids] == [Found(position, True) for position in (1, 2, 3, 4)]
    assert positions(broker.read(broker.find("mine").position, most=10)) == [4]


def test_earliest_is_all_that_is_kept() -> None:
    broker = broker_of(history_events=2)
    assert broker.find("earliest") == Found(0, True)
    broker.append_nowait(events(5))
    assert broker.find("earliest") == Found(3, True)
    assert positions(broker.read(3, most=10)) == [4, 5]


@pytest.mark.parametrize(
    "id",
    ["", "-", "nobody", "{epoch}", "{epoch}-", "{epoch}-x", "{epoch}-4", "{epoch}--1", "{epoch}-1.0", "00000000-1"],
)
def test_an_id_that_nobody_gave_goes_on_at_the_oldest_and_is_not_complete(id: str) -> None:
    broker = broker_of()
    broker.append_nowait(events(3))
    assert broker.find(id.format(epoch=broker.epoch)) == Found(0, False)


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "\u0661", "\u00b2", "1 ", "+1", "1_0"])
def test_hostile_numbers_are_unknown_ids(number: str) -> None:
    broker = broker_of()
    broker.append_nowait(events(3))
    assert broker.find(f"{broker.epoch}-{number}") == Found(0, False)


def test_an_id_of_another_process_is_not_complete() -> None:
    old, new = broker_of(), broker_of()
    (id,) = old.append_nowait(events(1))
    new.append_nowait(events(3))
    assert new.find(id) == Found(0, False)


@pytest.mark.parametrize("chosen", [False, True])
def test_an_id_is_good_as_long_as_all_that_came_after_it_is_kept(chosen: bool) -> None:
    broker = broker_of(history_events=3)
    ids = [
        id
        for number in range(5)
        for id in broker.append_nowait([Event("x", ("n",), id=f"c{number}" if chosen else None)])
    ]
    # 3, 4 and 5 are kept. Who has 2 lacks nothing else; who has only 1 lacks 2, which is gone.
    assert [broker.find(id) for id in ids] == [Found(2, False), *(Found(position, True) for position in (2, 3, 4, 5))]


def test_a_client_that_has_everything_lacks_nothing_when_all_has_expired() -> None:
    clock = Clock()
    broker = broker_of(clock, history_age=60)
    own, chosen = broker.append_nowait([*events(1), Event("x", ("news",), id="chosen")])
    clock.now += 3600
    broker.expire()
    assert broker.find(chosen) == Found(2, True)
    assert broker.find(own) == Found(2, False)


def test_of_two_events_with_one_id_the_newer_counts() -> None:
    broker = broker_of(history_events=3)
    broker.append_nowait([Event("x", ("news",), id="twice"), *events(1), Event("y", ("news",), id="twice")])
    assert broker.find("twice") == Found(3, True)
    broker.append_nowait(events(2))  # the older is dropped, and the one behind it
    assert broker.find("twice") == Found(3, True)
    broker.append_nowait(events(2, first=3))
    assert broker.find("twice") == Found(4, False)


def test_chosen_ids_are_forgotten_with_their_events() -> None:
    broker = broker_of(history_events=10)
    broker.append_nowait([Event("x", ("news",), id=f"c{number}") for number in range(1000)])
    assert len(broker._chosen) <= 11


def test_looking_an_id_up_takes_no_longer_in_a_long_history() -> None:
    broker = broker_of(history_events=50_000)
    broker.append_nowait([Event("x", ("news",), id=f"c{n}" if n % 2 else None) for n in range(50_000)])
    began = time.process_time()
    for _ in range(5_000):
        assert broker.find("c24999").complete
        assert broker.find(f"{broker.epoch}-25001").complete
        assert not broker.find("unknown").complete
    # It takes ten milliseconds; looking through the history takes a minute.
    assert time.process_time() - began < 5


# Reading.


def test_reading_is_in_order_and_in_pages() -> None:
    broker = broker_of()
    broker.append_nowait(events(5))
    assert positions(broker.read(0, most=2)) == [1, 2]
    assert positions(broker.read(2, most=2)) == [3, 4]
    assert positions(broker.read(4, most=2)) == [5]
    assert positions(broker.read(5, most=2)) == []


def test_reading_from_before_the_oldest_begins_at_the_oldest() -> None:
    broker = broker_of(history_events=2)
    broker.append_nowait(events(5))
    assert positions(broker.read(1, most=10)) == [4, 5]
    assert positions(broker.read(1, most=1)) == [4]


# What is kept.


def test_history_is_bounded_by_count() -> None:
    broker = broker_of(history_events=3)
    broker.append_nowait(events(2))
    broker.append_nowait(events(5, first=3))
    assert positions(broker.read(0, most=100)) == [5, 6, 7]
    assert (broker.oldest, broker.newest, broker.history().events) == (4, 7, 3)


def test_history_is_bounded_by_bytes() -> None:
    broker = broker_of()
    broker.append_nowait(events(1))
    size = broker.history().bytes
    broker = broker_of(history_bytes=3 * size)
    broker.append_nowait(events(3))
    assert broker.history() == History(3, 3 * size)
    broker.append_nowait(events(1))
    assert broker.history() == History(3, 3 * size)
    broker.append_nowait([Event("x" * 20, ("news",), id="1")])
    assert broker.history().bytes <= 3 * size
    assert broker.newest == 5


def test_an_event_above_all_of_history_is_delivered_and_not_kept() -> None:
    broker, heard = broker_of(history_bytes=50), list[Entry]()
    broker._listener = heard.extend
    broker.append_nowait(events(1))
    broker.append_nowait([Event("x" * 100, ("news",))])
    assert positions(heard) == [1, 2]
    assert (broker.history(), broker.oldest) == (History(0, 0), 2)


@pytest.mark.parametrize("setting", ["history_events", "history_bytes"])
def test_a_history_of_zero_keeps_nothing(setting: str) -> None:
    broker = broker_of(**{setting: 0})
    ids = broker.append_nowait(events(3))
    assert broker.history() == History(0, 0)
    assert broker.read(0, most=10) == []
    assert broker.find(ids[2]) == Found(3, True)
    assert broker.find(ids[1]) == Found(3, False)


def test_history_is_bounded_by_age() -> None:
    clock = Clock()
    broker = broker_of(clock, history_age=60)
    for _ in range(4):
        broker.append_nowait(events(1))
        clock.now += 20
    broker.expire()  # the four are 80, 60, 40 and 20 seconds old
    assert positions(broker.read(0, most=10)) == [3, 4]
    clock.now += 19.9
    broker.expire()
    assert positions(broker.read(0, most=10)) == [3, 4]
    clock.now += 0.1
    broker.expire()
    assert positions(broker.read(0, most=10)) == [4]
    clock.now += 1e6
    broker.expire()
    assert broker.history() == History(0, 0)
    broker.expire()
    assert broker.append_nowait(events(1)) == [f"{broker.epoch}-5"]


STEPS = st.one_of(
    st.tuples(
        st.just("append"), st.lists(st.tuples(st.integers(1, 30), st.sampled_from([None, "a", "b", "c"])), max_size=5)
    ),
    st.tuples(st.just("pass"), st.integers(0, 20)),
)


@given(steps=st.lists(STEPS, max_size=30), most=st.integers(0, 6), most_bytes=st.integers(0, 300))
def test_what_is_kept_is_the_tail_of_one_list(steps: list[tuple[str, Any]], most: int, most_bytes: int) -> None:
    clock = Clock()
    broker = broker_of(clock, history_events=most, history_bytes=most_bytes, history_age=30)
    heard: list[Entry] = []
    broker._listener = heard.extend
    times: list[float] = []
    dropped = 0
    for step, what in steps:
        if step == "append":
            broker.append_nowait([Event("x" * size, ("news",), id=id) for size, id in what])
            times += [clock.now] * len(what)
        else:
            clock.now += what
            broker.expire()
            while dropped < len(heard) and clock.now - times[dropped] >= 30:
                dropped += 1
        while len(heard) - dropped > most or sum(len(entry.frame) for entry in heard[dropped:]) > most_bytes:
            dropped += 1
        kept = heard[dropped:]
        assert positions(heard) == list(range(1, len(heard) + 1))
        assert (broker.oldest, broker.newest) == (dropped, len(heard))
        assert list(broker.read(0, most=1000)) == kept
        assert broker.history() == History(len(kept), sum(len(entry.frame) for entry in kept))
        last = {entry.id: entry.position for entry in heard}
        for id, position in last.items():
            assert id is not None
            complete = position >= dropped
            assert broker.find(id) == Found(position if complete else dropped, complete)


# How it is named.


def test_the_url_memory_names_it() -> None:
    assert isinstance(connect(HubConfig()), MemoryBroker)
    assert isinstance(connect(HubConfig(broker="memory://")), MemoryBroker)


@pytest.mark.parametrize("url", ["carrier-pigeon://loft", "memory", "://"])
def test_an_unknown_scheme_is_an_error_that_names_it_and_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^HubConfig\.broker has the scheme '.*', which is not one of memory://"):
        connect(HubConfig(broker=url))
