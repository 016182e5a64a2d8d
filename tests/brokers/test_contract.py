"""What `Broker` promises, with each kind of broker on a real server: run one with `-k redis`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import sys
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace

from histories import DEADLINE, DROPPING, TRIMMING, Open, batch, data, page_of, positions, read_all, take, until
from services.kinds import SERVICES
from ssepool.brokers import connect
from ssepool.brokers.base import MAX_FACT_BYTES, MAX_MESSAGE_BYTES, PAGE_FACTS, Broker
from ssepool.brokers.record import Record, records
from ssepool.config import HubConfig, KiB, MiB
from ssepool.core.chunk import chunk
from ssepool.core.event import Entry, Event
from ssepool.errors import BrokerError, DuplicateEvent

SHARED = ("sqlite", *SERVICES)
"""Kinds whose history is outside the process: several brokers share it, and it stays when they close."""

shared = pytest.mark.parametrize("kind", SHARED)

trimming = pytest.mark.parametrize("kind", TRIMMING)


def numbered(count: int, *, first: int = 1, size: int = 1) -> list[Record]:
    return batch(*(f"{number:0{size}}" for number in range(first, first + count)))


# Order and positions.


async def test_a_new_history_is_empty(make: Open) -> None:
    broker = await make()
    bounds = await broker.bounds()
    assert re.fullmatch("[0-9a-f]{8}", bounds.epoch)
    assert (bounds[1:5], bounds.untold) == ((0, 0, 0, ()), 0)
    assert await broker.read(0, max_entries=10) == []


async def test_positions_are_whole_numbers_from_one_on(make: Open) -> None:
    broker = await make()
    stored = [await broker.append(batch("a")), await broker.append(batch("b", "c")), await broker.append(batch("d"))]
    assert [positions(one) for one in stored] == [[1], [2, 3], [4]]
    entries = await read_all(broker)
    assert positions(entries) == [1, 2, 3, 4]
    assert data(entries) == ["a", "b", "c", "d"]


async def test_the_broker_makes_ids_of_its_epoch_and_the_position(make: Open) -> None:
    broker = await make()
    stored = await broker.append(numbered(3))
    epoch = (await broker.bounds()).epoch
    assert [one.id for one in stored] == [f"{epoch}-1", f"{epoch}-2", f"{epoch}-3"]
    assert [entry.id for entry in await read_all(broker)] == [one.id for one in stored]


async def test_an_append_of_nothing_stores_nothing(make: Open) -> None:
    broker = await make()
    assert await broker.append([]) == []
    assert (await broker.bounds())[1:4] == (0, 0, 0)
    assert positions(await broker.append(numbered(1))) == [1]
    assert await broker.append([]) == []
    assert (await broker.bounds()).newest == 1


async def test_a_large_batch_is_stored_whole(make: Open) -> None:
    broker = await make()
    assert positions(await broker.append(numbered(5000))) == list(range(1, 5001))
    assert data(await read_all(broker)) == [str(number) for number in range(1, 5001)]
    assert positions(await take(broker, 0, 5000)) == list(range(1, 5001))


async def test_the_largest_event_comes_through(make: Open) -> None:
    broker = await make()
    text = "x" * (MiB - 100)
    await broker.append(batch("before", text, "after"))
    assert data(await take(broker, 0, 3)) == ["before", text, "after"]
    assert data(await broker.read(1, max_entries=1)) == [text]


async def test_the_largest_group_of_publishes_comes_through(make: Open) -> None:
    broker = await make()
    texts = [str(number) * (MiB - 100) for number in range(4)]
    assert positions(await broker.append(batch(*texts))) == [1, 2, 3, 4]
    assert data(await take(broker, 0, 4)) == texts


@shared
async def test_appends_of_several_brokers_follow_each_other(make: Open) -> None:
    one, two = await make(), await make()
    stored = [await broker.append(numbered(2)) for broker in (one, two, two, one, two)]
    assert [positions(some) for some in stored] == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert len({bounds.epoch for bounds in [await one.bounds(), await two.bounds()]}) == 1


APPENDER = """
import asyncio, sys
from ssepool.brokers import connect
from ssepool.brokers.record import Record
from ssepool.config import HubConfig

async def main(url, name):
    broker = connect(HubConfig(broker=url))
    await broker.open()
    for turn in range(100):
        events = [Record(b"data: %d\\n\\n" % turn, (name,)), Record(b"", ("both",), id=f"id{turn}")]
        stored = await broker.append(events)
        print(*(one.position for one in stored))
    await broker.close()

asyncio.run(main(*sys.argv[1:]))
"""


@shared
async def test_two_processes_append_in_one_order(url: str, make: Open) -> None:
    broker = await make()
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", APPENDER, url, name, stdout=asyncio.subprocess.PIPE)
        for name in ("one", "two")
    ]
    async with asyncio.timeout(DEADLINE):
        outputs = [(await process.communicate())[0] for process in processes]
    told = [[tuple(map(int, line.split())) for line in output.splitlines()] for output in outputs]
    assert [len(lines) for lines in told] == [100, 100]
    entries = await read_all(broker)
    assert positions(entries) == list(range(1, 301))  # of each chosen id one is stored
    for name, lines in zip(("one", "two"), told, strict=True):
        assert [entry.position for entry in entries if entry.topics == (name,) and b"data" in entry.frame] == [
            own for own, _ in lines
        ]
    assert [chosen for _, chosen in told[0]] == [chosen for _, chosen in told[1]]


@shared
async def test_many_brokers_append_at_once_in_one_order(make: Open) -> None:
    brokers = [await make() for _ in range(4)]
    appended: dict[int, str] = {}

    async def append(number: int, broker: Broker) -> None:
        for turn in range(25):
            texts = [f"{number}.{turn}.{place}" for place in range(random.randint(1, 7))]
            stored = await broker.append(batch(*texts))
            assert positions(stored) == list(range(stored[0].position, stored[0].position + len(texts)))
            appended.update(zip(positions(stored), texts, strict=True))

    tails = [asyncio.create_task(take(broker, 0, 100)) for broker in brokers]
    await asyncio.gather(*(append(number, broker) for number, broker in enumerate(brokers)))
    newest = len(appended)
    assert sorted(appended) == list(range(1, newest + 1))
    wanted = [appended[position] for position in range(1, newest + 1)]
    for broker, tail in zip(brokers, tails, strict=True):
        assert data(await read_all(broker)) == wanted
        seen = data(await tail)
        assert seen == wanted[: len(seen)]
        assert data(await take(broker, 0, newest)) == wanted
    assert {(await broker.bounds()).newest for broker in brokers} == {newest}


# What an event is made of.

EVENTS = {
    "plain": Event("hello", ("news",)),
    "empty": Event("", ("news",)),
    "without topics": Event("hello"),
    "several topics": Event("hello", ("news", "rooms/1", "zürich/köln", "a b", "東京")),
    "lines": Event("one\ntwo\r\nthree\rfour\n", ("news",)),
    "unicode": Event("Grüße, 東京 \U0001f600 \u2028 \x85 \x7f", ("news",)),
    "control characters": Event("\0 \x01 \t \x1b", ("news",)),
    "leading spaces": Event("  : data: x", ("news",)),
    "quotes": Event("""'"`\\ %s {0} $1 :a ; -- /* */""", ("'\"%s{0}$1",)),
    "json": Event({"price": 1.5, "name": "é"}, ("news",)),
    "type": Event("hello", ("news",), "grüße"),
    "retry": Event("hello", ("news",), retry=300_000),
    "private": Event("hello", ("news",), private=True),
    "all": Event("one\ntwo", ("news", "sport"), "update", "mine-7", 500, True),
    "chosen id": Event("hello", ("news",), id="order/42#7"),
    "longest id": Event("hello", ("news",), id="x" * 128),
    "strange id": Event("hello", ("news",), id="""'"`\\%s{0}$1:a;--/*<>*/?&=+@|~^!()[],."""),
}


@pytest.mark.parametrize("name", EVENTS)
async def test_an_entry_is_what_was_published(make: Open, name: str) -> None:
    event = EVENTS[name]
    broker = await make()
    ((id, position),) = await broker.append(records([event], MiB))
    assert (id, position) == (event.id or f"{(await broker.bounds()).epoch}-1", 1)
    entry = Entry(1, id, event.topics, chunk(event.encode(id)), event.private)
    for [read] in (await broker.read(0, max_entries=1), await take(broker, 0, 1)):
        assert replace(read, at=0.0) == entry
    assert await broker.find(id) == 1


# Ids that publishers choose, and duplicates.


async def test_chosen_and_made_ids_stand_beside_each_other(make: Open) -> None:
    broker = await make()
    stored = await broker.append(batch("a", "b", "c", ids=[None, "mine"]))
    epoch = (await broker.bounds()).epoch
    assert stored == [(f"{epoch}-1", 1), ("mine", 2), (f"{epoch}-3", 3)]
    assert [await broker.find(one.id) for one in stored] == [1, 2, 3]


NOT_MADE = ("", "-", "-x", "-0", "-4", "--1", "-+1", "-1.0", "-1 ", "-1_0", "-9223372036854775808", "-" + "9" * 100)
"""What is no position of a history of three events."""


@pytest.mark.parametrize("id", ["nobody", "00000000-1", "-", "MINE", *("{epoch}" + rest for rest in NOT_MADE)])
async def test_an_id_that_nobody_gave_is_not_found(make: Open, id: str) -> None:
    broker = await make()
    await broker.append(batch("a", "b", "c", ids=["mine"]))
    assert await broker.find(id.format(epoch=(await broker.bounds()).epoch)) is None


async def test_a_chosen_id_may_look_like_a_made_one(make: Open) -> None:
    broker = await make()
    # Publishers may not choose one any more, but those of earlier versions could.
    [chosen] = batch("b")
    assert await broker.append([*batch("a"), replace(chosen, id="00c0ffee-1")]) == [
        (f"{(await broker.bounds()).epoch}-1", 1),
        ("00c0ffee-1", 2),
    ]
    assert await broker.find("00c0ffee-1") == 2


async def test_a_duplicate_is_ignored_and_told_where_it_is(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a", "b", "c", ids=[None, "mine"]))
    assert await broker.append(batch("b", ids=["mine"])) == [("mine", 2)]
    assert (await broker.bounds()).newest == 3
    stored = await broker.append(batch("d", "b", "e", "f", ids=[None, "mine", "other"]))
    assert positions(stored) == [4, 2, 5, 6]
    assert data(await read_all(broker)) == ["a", "b", "c", "d", "e", "f"]


async def test_a_duplicate_inside_one_batch_is_ignored(make: Open) -> None:
    broker = await make()
    stored = await broker.append(batch("a", "b", "a", "c", "b", ids=["a", "b", "a", None, "b"]))
    assert positions(stored) == [1, 2, 1, 3, 2]
    assert data(await read_all(broker)) == ["a", "b", "c"]
    assert positions(await broker.append(batch("b", "d", ids=["b"]))) == [2, 4]


@pytest.mark.parametrize("ids", [["mine", None, "new"], ["new", None, "mine"], ["new", None, "new"]])
async def test_a_batch_with_a_duplicate_can_be_refused_whole(make: Open, ids: list[str | None]) -> None:
    broker = await make(on_duplicate="refuse")
    await broker.append(batch("a", ids=["mine"]))
    before = await broker.bounds()
    duplicate = "new" if ids.count("new") == 2 else "mine"
    texts = ["a" if id == "mine" else "b" for id in ids]
    with pytest.raises(DuplicateEvent, match=rf"^an event with the id '{duplicate}' is .*\(on_duplicate=refuse\)$"):
        await broker.append(batch(*texts, ids=ids))
    assert await broker.bounds() == before
    assert await broker.find("new") is None
    assert positions(await broker.append(batch("b", "c", ids=["new"]))) == [2, 3]
    assert data(await read_all(broker)) == ["a", "b", "c"]


@shared
async def test_a_duplicate_of_another_broker_is_found(make: Open) -> None:
    one, two, strict = await make(), await make(), await make(on_duplicate="refuse")
    await one.append(batch("a", "b", ids=[None, "mine"]))
    assert await two.find("mine") == 2
    assert await two.append(batch("b", ids=["mine"])) == [("mine", 2)]
    with pytest.raises(DuplicateEvent):
        await strict.append(batch("b", ids=["mine"]))
    assert (await one.bounds()).newest == 2


@shared
async def test_of_the_same_ids_at_once_one_is_stored(make: Open) -> None:
    brokers = [await make() for _ in range(4)]
    for turn in range(10):
        ids = [f"{turn}.{place}" for place in range(3)]
        stored = await asyncio.gather(*(broker.append(batch("x", "y", "z", ids=ids)) for broker in brokers))
        assert all(one == stored[0] for one in stored)
    assert [entry.id for entry in await read_all(brokers[0])] == [f"{n // 3}.{n % 3}" for n in range(30)]


@shared
async def test_of_the_same_ids_at_once_all_but_one_are_refused(make: Open) -> None:
    brokers = [await make(on_duplicate="refuse") for _ in range(4)]
    for turn in range(10):
        answers = await asyncio.gather(
            *(broker.append(batch("x", "y", ids=[None, f"{turn}"])) for broker in brokers), return_exceptions=True
        )
        stored = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert [positions(one) for one in stored] == [[2 * turn + 1, 2 * turn + 2]]
        assert [type(answer) for answer in answers].count(DuplicateEvent) == 3
    assert data(await read_all(brokers[0])) == ["x", "y"] * 10


@trimming
async def test_an_id_can_be_used_again_when_its_event_has_gone(make: Open) -> None:
    broker = await make(history_events=2, on_duplicate="refuse")
    await broker.append(batch("a", ids=["mine"]))
    for number in range(4):
        await broker.append(batch(str(number)))
    await until(lambda: _is_not_found(broker, "mine"))
    ((_, position),) = await broker.append(batch("b", ids=["mine"]))
    assert (position, await broker.find("mine")) == (6, 6)


async def _is_not_found(broker: Broker, id: str) -> bool:
    return await broker.find(id) is None


# Reading and following.


async def test_reading_is_in_pages(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(5))
    assert positions(await broker.read(0, max_entries=2)) == [1, 2]
    assert positions(await broker.read(2, max_entries=2)) == [3, 4]
    assert positions(await broker.read(4, max_entries=2)) == [5]
    assert positions(await broker.read(0, max_entries=5)) == [1, 2, 3, 4, 5]
    assert await broker.read(5, max_entries=2) == []
    assert await broker.read(99, max_entries=2) == []


async def test_a_tail_begins_behind_any_position(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(3))
    await broker.append(numbered(3, first=4))
    for after in range(6):
        assert positions(await take(broker, after, 6 - after)) == list(range(after + 1, 7))


async def test_a_tail_waits_for_news(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(2))
    async with aclosing(broker.tail(2)) as tail:  # type: ignore[type-var]
        for number in range(3, 13):
            page = asyncio.create_task(page_of(tail))
            await asyncio.sleep(0.01)
            assert not page.done()
            await broker.append(numbered(1, first=number))
            async with asyncio.timeout(DEADLINE):
                assert data(await page) == [str(number)]


@shared
async def test_a_tail_hears_of_other_brokers(make: Open) -> None:
    one, two = await make(), await make()
    async with aclosing(one.tail(0)) as tail:  # type: ignore[type-var]
        for number in range(1, 11):
            page = asyncio.create_task(page_of(tail))
            await two.append(numbered(1, first=number))
            async with asyncio.timeout(DEADLINE):
                assert data(await page) == [str(number)]


async def test_several_tails_of_one_broker_each_get_all(make: Open) -> None:
    broker = await make()
    tails = [asyncio.create_task(take(broker, 0, 30)) for _ in range(5)]
    for number in range(10):
        await broker.append(numbered(3, first=3 * number + 1))
    for tail in tails:
        assert positions(await tail) == list(range(1, 31))


async def test_what_is_appended_while_a_tail_is_read_comes_once_and_in_order(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(2500))
    seen: list[Entry] = []
    turns = itertools.count()
    async with asyncio.timeout(DEADLINE), aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
        async for page in tail:
            assert 0 < len(page) <= 1000 or not seen  # the first may be empty: it says that the tail follows
            seen += page
            if next(turns) < 10:
                await broker.append(numbered(10, first=1))
            if len(seen) >= 2600:
                break
    assert positions(seen) == list(range(1, 2601))


@shared
async def test_pages_of_a_tail_are_of_about_a_mebibyte(make: Open) -> None:
    broker = await make()
    for _ in range(6):
        await broker.append(batch("x" * 300 * KiB, "y" * 300 * KiB))
    sizes: list[int] = []
    async with asyncio.timeout(DEADLINE), aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
        async for page in tail:
            sizes.append(sum(len(entry.frame) for entry in page))
            if sum(sizes) > 12 * 300 * KiB:
                break
    assert max(sizes) < 2 * MiB


async def test_a_tail_that_is_cancelled_leaves_nothing_behind(make: Open) -> None:
    before = asyncio.all_tasks()
    broker = await make()
    tails = [asyncio.create_task(take(broker, 0, 10)) for _ in range(3)]
    listeners = [asyncio.create_task(anext(broker.messages())) for _ in range(2)]  # type: ignore[arg-type]
    await broker.append(numbered(2))
    await asyncio.sleep(0.05)
    for task in [*tails, *listeners]:
        task.cancel()
    ended = await asyncio.gather(*tails, *listeners, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in ended)
    assert positions(await broker.append(numbered(1))) == [3]
    assert positions(await take(broker, 0, 3)) == [1, 2, 3]
    await broker.close()

    async def is_gone() -> bool:
        return asyncio.all_tasks() <= before

    await until(is_gone)


# What is kept.


@trimming
async def test_history_is_bounded_by_count(make: Open) -> None:
    broker = await make(history_events=10)
    stored = [one for number in range(25) for one in await broker.append(numbered(1, first=number))]

    async def is_trimmed() -> bool:
        return (await broker.bounds()).oldest == 15

    await until(is_trimmed)
    assert positions(await read_all(broker)) == list(range(16, 26))
    assert positions(await broker.read(0, max_entries=1)) == [16]
    assert positions(await take(broker, 15, 10)) == list(range(16, 26))
    assert [await broker.find(one.id) for one in stored] == [None] * 15 + list(range(16, 26))


@trimming
async def test_a_batch_beyond_the_history_leaves_no_more_than_that(make: Open) -> None:
    broker = await make(history_events=10)
    await broker.append(numbered(4))
    assert positions(await broker.append(numbered(40, first=5))) == list(range(5, 45))

    async def is_trimmed() -> bool:
        return (await broker.bounds()).oldest >= 34

    await until(is_trimmed)
    assert (await broker.bounds()).newest == 44
    assert len(await read_all(broker)) <= 10
    assert positions(await broker.append(numbered(1))) == [45]


@trimming
async def test_history_is_bounded_by_bytes(make: Open) -> None:
    limit = 64 * KiB
    broker = await make(history_bytes=limit)
    for number in range(100):
        await broker.append(numbered(1, first=number, size=2000))

    async def is_trimmed() -> bool:
        return (await broker.bounds()).bytes <= limit

    await until(is_trimmed)
    kept = await read_all(broker)
    assert positions(kept) == list(range(101 - len(kept), 101))
    assert limit // 2 < sum(len(entry.frame) for entry in kept) <= limit


@trimming
async def test_an_event_larger_than_the_history_is_not_kept(make: Open) -> None:
    broker = await make(history_bytes=1000)
    await broker.append(numbered(2))
    assert positions(await broker.append(batch("x" * 5000))) == [3]

    async def is_trimmed() -> bool:
        return (await broker.bounds()).newest == 3

    await until(is_trimmed)
    assert positions(await read_all(broker)) in (
        [1],
        [2],
        [1, 2],
    )  # it has pushed nobody out but what was too much already
    assert positions(await broker.append(numbered(1))) == [4]


@trimming
async def test_history_is_bounded_by_age(make: Open) -> None:
    broker = await make(history_age=1.0)
    (old, *_) = await broker.append(batch("a", "b", "c", ids=[None, "mine"]))

    async def is_trimmed() -> bool:
        await broker.trim()
        return (await broker.bounds())[1:3] == (3, 3)

    await until(is_trimmed)
    assert await read_all(broker) == []
    assert [await broker.find(id) for id in (old.id, "mine")] == [None, None]
    assert positions(await broker.append(batch("d", ids=["mine"]))) == [4]
    assert (await broker.bounds())[1:3] == (3, 4)


async def test_trim_leaves_what_is_young_enough(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(5))
    before = await broker.bounds()
    await broker.trim()
    assert await broker.bounds() == before
    assert positions(await read_all(broker)) == [1, 2, 3, 4, 5]


@trimming
@pytest.mark.parametrize("setting", ["history_events", "history_bytes"])
async def test_a_history_of_zero_keeps_nothing(make: Open, setting: str) -> None:
    broker = await make(**{setting: 0})
    assert positions(await broker.append(numbered(3))) == [1, 2, 3]

    async def is_trimmed() -> bool:
        await broker.trim()
        return (await broker.bounds())[1:3] == (3, 3)

    await until(is_trimmed)
    assert await read_all(broker) == []
    assert positions(await broker.append(numbered(1))) == [4]


@shared
@pytest.mark.parametrize("setting", ["history_events", "history_bytes"])
async def test_a_tail_gets_what_is_kept_by_nobody(make: Open, setting: str) -> None:
    one, two = await make(**{setting: 0}), await make(**{setting: 0})
    seen: list[Entry] = []

    async def follow() -> None:
        async with aclosing(one.tail(0)) as tail:  # type: ignore[type-var]
            async for page in tail:
                seen.extend(page)

    async def has_seen_news() -> bool:
        await two.append(numbered(1))
        await asyncio.sleep(0.02)
        return bool(seen)

    following = asyncio.create_task(follow())
    await until(has_seen_news)  # what was appended before it began to follow may be gone
    for number in range(10):
        ((_, position),) = await two.append(numbered(1, first=number))

        async def has_come(position: int = position) -> bool:
            return seen[-1].position == position

        await until(has_come)
    following.cancel()
    await asyncio.wait([following])
    assert positions(seen) == list(range(seen[0].position, position + 1))


async def test_bounds_say_how_many_bytes_are_kept(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(10, size=1000))
    assert 10_000 <= (await broker.bounds()).bytes < 20_000
    await broker.append(numbered(10, size=1000))
    assert 20_000 <= (await broker.bounds()).bytes < 40_000


@trimming
async def test_topics_count_for_the_bytes_that_are_kept(make: Open) -> None:
    broker = await make(history_bytes=64 * KiB)
    long = tuple(f"{number}/" + "x" * 1000 for number in range(10))
    for _ in range(20):
        await broker.append(records([Event("", long)], MiB))

    async def is_trimmed() -> bool:
        return (await broker.bounds()).bytes <= 64 * KiB

    await until(is_trimmed)
    assert (await broker.bounds()).bytes >= 10_000
    assert len(await read_all(broker)) <= 6


@shared
async def test_a_history_stays_when_its_brokers_close(kind: str, make: Open) -> None:
    broker = await make()
    stored = await broker.append(batch("a", "b", "c", ids=[None, "mine"]))
    before = await broker.bounds()
    await broker.close()
    later = await make()
    after = await later.bounds()
    if kind in DROPPING:
        assert after == before._replace(epoch=after.epoch, timelines=((before.epoch, 3),))
    else:
        assert after == before
    assert data(await read_all(later)) == ["a", "b", "c"]
    assert [await later.find(one.id) for one in stored] == [1, 2, 3]
    assert await later.append(batch("b", "d", ids=["mine"])) == [("mine", 2), (f"{after.epoch}-4", 4)]


# The side channel.


class Listener:
    """Hears the messages of a broker from when it is entered on."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[bytes] = []
        self._broker = broker

    async def __aenter__(self) -> Listener:
        self._task = asyncio.create_task(self._listen())
        async with asyncio.timeout(DEADLINE):
            while not self.heard:
                await self._broker.send(b"anybody there?")
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _listen(self) -> None:
        async with aclosing(self._broker.messages()) as messages:  # type: ignore[type-var]
            async for message in messages:
                self.heard.append(message)

    async def hear(self, *messages: bytes) -> None:
        async with asyncio.timeout(DEADLINE):
            while [one for one in self.heard if one != b"anybody there?"] != list(messages):
                await asyncio.sleep(0.01)


async def test_a_message_reaches_all_who_listen(make: Open) -> None:
    broker = await make()
    async with Listener(broker) as one, Listener(broker) as two:
        await broker.send(b"first")
        await broker.send(b"\0second\xff\r\n")
        await broker.send(b"")
        for listener in (one, two):
            await listener.hear(b"first", b"\0second\xff\r\n", b"")


@shared
async def test_messages_go_from_each_broker_to_each(make: Open) -> None:
    one, two = await make(), await make()
    async with Listener(one) as first, Listener(two) as second:
        await one.send(b"from one")
        await first.hear(b"from one")
        await second.hear(b"from one")
        await two.send(b"from two")
        await first.hear(b"from one", b"from two")
        await second.hear(b"from one", b"from two")


async def test_the_largest_message_comes_through(make: Open) -> None:
    broker = await make()
    message = random.randbytes(MAX_MESSAGE_BYTES)
    async with Listener(broker) as listener:
        await broker.send(message)
        await listener.hear(message)


async def test_messages_are_no_events_and_are_not_kept(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(1))
    before = await broker.bounds()
    await broker.send(b"nobody hears this")
    async with Listener(broker) as listener:
        await broker.send(b"this is heard")
        await listener.hear(b"this is heard")
    assert await broker.bounds() == before
    assert positions(await take(broker, 0, 1)) == [1]


# Facts.


async def told(broker: Broker) -> dict[str, bytes]:
    """All facts that a broker keeps."""
    found: dict[str, bytes] = {}
    after = 0
    while page := await broker.kept(after):
        assert [fact.number for fact in page] == sorted({fact.number for fact in page})
        found.update((fact.name, fact.data) for fact in page)
        after = page[-1].number
    return found


async def test_facts_are_kept_by_their_names(make: Open) -> None:
    broker = await make()
    assert await broker.kept() == []
    await broker.keep("one", b"1", 60)
    await broker.keep("two", b"\0\xff\r\n", 60)
    await broker.keep("none", b"", 60)
    await broker.keep("one", b"another", 60)
    assert await told(broker) == {"one": b"another", "two": b"\0\xff\r\n", "none": b""}
    assert (await broker.bounds())[1:3] == (0, 0)  # they are no events


async def test_what_is_kept_later_has_a_higher_number(make: Open) -> None:
    broker = await make()
    await broker.keep("one", b"1", 60)
    await broker.keep("two", b"2", 60)
    last = (await broker.kept())[-1].number
    assert await broker.kept(last) == []
    await broker.keep("one", b"again", 60)
    [fact] = await broker.kept(last)
    assert (fact.name, fact.data) == ("one", b"again")


async def test_a_fact_is_forgotten_when_its_time_is_over(make: Open) -> None:
    broker = await make()
    await broker.keep("short", b"1", 0.3)
    await broker.keep("long", b"2", 60)
    last = (await broker.kept())[-1].number

    async def is_forgotten() -> bool:
        return set(await told(broker)) == {"long"}

    await until(is_forgotten)
    await broker.keep("later", b"3", 60)  # whatever of the others is still there
    assert set(await told(broker)) == {"long", "later"}
    assert [fact.name for fact in await broker.kept(last)] == ["later"]


async def test_numbers_rise_when_all_facts_are_forgotten(make: Open) -> None:
    broker = await make()
    await broker.keep("short", b"1", 0.2)
    [fact] = await broker.kept()

    async def is_forgotten() -> bool:
        await broker.trim()
        return not await broker.kept()

    await until(is_forgotten)
    await broker.keep("short", b"2", 60)
    [later] = await broker.kept(fact.number)
    assert later.data == b"2"


async def test_no_fact_is_given_up_for_another(make: Open) -> None:
    broker = await make()
    broker.max_facts = 3
    await broker.keep("short", b"", 0.3)
    for name in ("one", "two"):
        await broker.keep(name, b"", 60)
    with pytest.raises(BrokerError, match=r"keeps 3 facts, which is the most; one more was not kept$"):
        await broker.keep("three", b"", 60)
    await broker.keep("one", b"again", 60)
    assert await told(broker) == {"short": b"", "one": b"again", "two": b""}

    async def has_room() -> bool:
        with contextlib.suppress(BrokerError):
            await broker.keep("three", b"", 60)
            return True
        return False

    await until(has_room)
    assert set(await told(broker)) == {"one", "two", "three"}


async def test_many_facts_are_read_in_pages(make: Open) -> None:
    broker = await make()
    for number in range(PAGE_FACTS + 200):
        await broker.keep(f"fact-{number}", b"%d" % number, 60)
    assert len(await broker.kept()) == PAGE_FACTS
    assert await told(broker) == {f"fact-{number}": b"%d" % number for number in range(PAGE_FACTS + 200)}


@pytest.mark.parametrize(("name", "size"), [("", 0), ("A", 0), ("a b", 0), ("a" * 65, 0), ("a", MAX_FACT_BYTES + 1)])
async def test_a_fact_that_is_not_allowed_is_refused(make: Open, name: str, size: int) -> None:
    broker = await make()
    with pytest.raises(ValueError, match=f"^a fact '{name}' of {size} bytes is not allowed; it takes 8192 at most$"):
        await broker.keep(name, b"x" * size, 60)
    assert await broker.kept() == []


async def test_the_largest_fact_comes_through(make: Open) -> None:
    broker = await make()
    data = random.randbytes(MAX_FACT_BYTES)
    await broker.keep("a" * 64, data, 60)
    assert await told(broker) == {"a" * 64: data}


@shared
async def test_facts_stay_when_their_brokers_close(make: Open) -> None:
    one, two = await make(), await make()
    await one.keep("one", b"1", 60)
    assert await told(two) == {"one": b"1"}
    await two.keep("two", b"2", 60)
    await one.close()
    await two.close()
    later = await make()
    assert await told(later) == {"one": b"1", "two": b"2"}


@shared
async def test_nobody_misses_a_fact_of_many_at_once(make: Open) -> None:
    brokers = [await make() for _ in range(4)]
    seen: set[str] = set()

    async def keep(number: int, broker: Broker) -> None:
        for turn in range(20):
            await broker.keep(f"{number}-{turn}", b"", 60)

    async def read(after: int = 0) -> None:
        while len(seen) < 80:
            for fact in await brokers[0].kept(after):
                seen.add(fact.name)
                after = fact.number
            await asyncio.sleep(0.001)

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(read(), *(keep(number, broker) for number, broker in enumerate(brokers)))
    assert seen == {f"{number}-{turn}" for number in range(4) for turn in range(20)}


# Opening, closing and giving up.


async def test_closing_may_be_done_twice_and_without_opening(make: Open, url: str) -> None:
    broker = await make()
    await broker.append(numbered(1))
    await broker.close()
    await broker.close()
    await connect(HubConfig(broker=url)).close()


async def test_an_append_that_is_given_up_is_stored_whole_or_not_at_all(make: Open) -> None:
    broker = await make()
    returned: dict[str, int] = {}
    for turn in range(40):
        append = asyncio.create_task(broker.append(batch(*[f"{turn}.{place}" for place in range(50)])))
        await _let_pass(turn)
        append.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await append
        ((_, returned[f"sure {turn}"]),) = await broker.append(batch(f"sure {turn}"))
    entries = await read_all(broker)
    assert positions(entries) == list(range(1, len(entries) + 1))
    texts = data(entries)
    assert {text: texts.index(text) + 1 for text in returned} == returned
    for turn in range(40):
        stored = [text for text in texts if text.startswith(f"{turn}.")]
        assert stored in ([], [f"{turn}.{place}" for place in range(50)])
        assert not stored or texts.index(stored[-1]) - texts.index(stored[0]) == 49


async def test_questions_may_be_given_up(make: Open) -> None:
    broker = await make()
    await broker.append(numbered(100))
    for turn in range(20):
        asked: Sequence[Awaitable[Any]] = [
            broker.read(0, max_entries=100),
            broker.find("mine"),
            broker.bounds(),
            broker.trim(),
        ]
        questions = [asyncio.ensure_future(question) for question in asked]
        await _let_pass(turn)
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
    assert positions(await broker.read(0, max_entries=100)) == list(range(1, 101))
    assert positions(await broker.append(numbered(1))) == [101]


async def _let_pass(turn: int) -> None:
    """Some turns of the loop, or some time: each call a little more."""
    for _ in range(turn % 8):
        await asyncio.sleep(0)
    if turn % 3 == 2:
        await asyncio.sleep(random.uniform(0, 0.005))
