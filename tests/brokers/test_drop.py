"""What brokers forget: what they are told to, and nothing else. With each kind of `DROPPING` on a real server."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from histories import DEADLINE, DROPPING, Open, batch, data, page_of, positions, read_all, take, until
from ssepool.brokers.base import DROP_ENTRIES, PAGE_CUTS, Broker
from ssepool.brokers.record import Record
from ssepool.config import KiB, MiB
from ssepool.core.cut import Cut
from ssepool.errors import DuplicateEvent, IdConflict

shared = pytest.mark.parametrize("kind", [kind for kind in DROPPING if kind != "memory"])


@pytest.fixture(params=DROPPING)
def kind(request: pytest.FixtureRequest) -> str:
    """For the fixtures `url` and `make`."""
    kind: str = request.param
    return kind


def numbers(count: int, *, first: int = 1) -> list[Record]:
    return batch(*map(str, range(first, first + count)))


async def all_cuts(broker: Broker) -> dict[str, Cut]:
    """All that a broker knows of what has been dropped, by topics in their order."""
    found: dict[str, Cut] = {}
    after = ""
    while page := await broker.cuts(after):
        assert len(page) <= PAGE_CUTS
        assert not found.keys() & dict(page).keys()
        found.update(page)
        after = page[-1][0]
    return found


# Nothing goes by itself.


@pytest.mark.parametrize("settings", [{"history_events": 0}, {"history_bytes": 0}, {"history_age": 0.001}], ids=str)
async def test_nothing_goes_that_nobody_has_dropped(make: Open, settings: dict[str, float]) -> None:
    broker = await make(**settings)
    stored = await broker.append(batch("a", ids=["mine"])) + await broker.append(numbers(1200))
    await asyncio.sleep(0.01)
    await broker.trim()
    bounds = await broker.bounds()
    assert (bounds.oldest, bounds.newest, bounds.floor) == (0, 1201, 0)
    assert positions(await read_all(broker)) == list(range(1, 1202))
    for after in (0, 600, 1200):  # also where another one would say that nothing behind it is kept
        assert positions(await take(broker, after, 1201 - after)) == list(range(after + 1, 1202))
    assert await broker.find("mine") == 1
    assert await broker.append(batch("a", ids=["mine"])) == [("mine", 1)]
    assert await broker.find(stored[5].id) == 6


# What is dropped is gone.


async def test_what_is_dropped_is_gone_and_the_rest_stays(make: Open) -> None:
    broker = await make()
    stored = await broker.append(batch(*"abcdefghij", ids=[None, "two", None, "four"]))
    before = await broker.bounds()
    await broker.drop([2, 3, 7], {"news": Cut(7)}, 0)
    left = [1, 4, 5, 6, 8, 9, 10]
    assert positions(await read_all(broker)) == left
    assert positions(await take(broker, 0, 7)) == left
    assert positions(await take(broker, 6, 3)) == [8, 9, 10]
    assert positions(await broker.read(1, max_entries=2)) == [4, 5]
    assert positions(await broker.fetch([1, 2, 3, 4, 7, 8])) == [1, 4, 8]
    assert [await broker.find(one.id) for one in stored] == [one if one in left else None for one in range(1, 11)]
    bounds = await broker.bounds()
    assert bounds == before._replace(bytes=bounds.bytes)
    assert 0 < bounds.bytes < before.bytes
    assert positions(await broker.append(batch("k"))) == [11]


async def test_the_oldest_is_the_first_that_is_there(make: Open) -> None:
    broker = await make()
    await broker.append(numbers(10))
    for positions_dropped, oldest in (([2, 3], 0), ([1], 3), ([4, 5, 6], 6), ([8], 6), ([7], 8), ([9, 10], 10)):
        await broker.drop(positions_dropped, {}, 0)
        bounds = await broker.bounds()
        assert (bounds.oldest, bounds.newest) == (oldest, 10)
    assert bounds.bytes == 0
    assert await read_all(broker) == []
    assert await broker.read(0, max_entries=1) == []
    assert positions(await broker.append(numbers(2))) == [11, 12]
    assert (await broker.bounds()).oldest == 10
    assert positions(await take(broker, 0, 2)) == [11, 12]


async def test_dropping_again_makes_no_difference(make: Open) -> None:
    broker = await make()
    await broker.append(numbers(6))
    for gone in ([1, 2, 4], [1, 2, 4], [2], [1, 2, 3, 4], []):
        await broker.drop(gone, {"news": Cut(4)}, 1)
    assert positions(await read_all(broker)) == [5, 6]
    kept = (await broker.bounds()).bytes
    await broker.drop([5, 6], {}, 0)
    assert (await broker.bounds()).bytes == 0 < kept


async def test_as_many_as_are_allowed_go_in_one_step(make: Open) -> None:
    broker = await make()
    count = 2 * DROP_ENTRIES + 500
    await broker.append(numbers(count))
    await broker.drop(range(2, 2 * DROP_ENTRIES + 1, 2), {f"topic/{n}": Cut(n) for n in range(1, DROP_ENTRIES + 1)}, 0)
    left = [*range(1, 2 * DROP_ENTRIES, 2), *range(2 * DROP_ENTRIES + 1, count + 1)]
    assert positions(await read_all(broker)) == left
    assert positions(await take(broker, 0, len(left))) == left
    await broker.drop(range(1, DROP_ENTRIES + 1), {}, 0)
    assert positions(await read_all(broker)) == [one for one in left if one > DROP_ENTRIES]
    assert (await broker.bounds()).oldest == DROP_ENTRIES
    assert len(await all_cuts(broker)) == DROP_ENTRIES


@shared
async def test_what_one_drops_is_gone_for_all(make: Open) -> None:
    one, two = await make(), await make()
    await one.append(numbers(5))
    async with aclosing(two.tail(0)) as tail:  # type: ignore[type-var]
        await page_of(tail)
        await asyncio.gather(one.drop([2, 3], {"news": Cut(3)}, 1), two.drop([3, 4], {"news": Cut(4)}, 2))
        for broker in (one, two, await make()):
            assert positions(await read_all(broker)) == [1, 5]
            assert await all_cuts(broker) == {"news": Cut(4)}
            assert (await broker.bounds()).floor == 2
        await one.append(numbers(1, first=6))
        async with asyncio.timeout(DEADLINE):
            assert data(await page_of(tail)) == ["6"]


async def test_a_tail_goes_on_behind_what_is_dropped_before_it(make: Open) -> None:
    broker = await make()
    await broker.append(batch(*["x" * 400 * KiB] * 8))
    async with asyncio.timeout(DEADLINE), aclosing(broker.tail(0)) as tail:  # type: ignore[type-var]
        seen = positions(await page_of(tail))
        await broker.drop([5, 6, 7, 8], {"news": Cut(8)}, 0)
        await broker.append(numbers(2))
        while seen[-1] < 10:
            seen += positions(await page_of(tail))
    assert seen == sorted(seen)
    assert {1, 2, 3, 4, 9, 10} <= set(seen)


async def test_an_id_can_be_used_again_when_its_event_has_been_dropped(make: Open) -> None:
    broker = await make(on_duplicate="refuse")
    await broker.append(batch("a", "b", ids=["mine", "other"]))
    await broker.append(numbers(1500))
    with pytest.raises(DuplicateEvent):  # however long ago
        await broker.append(batch("a", ids=["mine"]))
    await broker.drop([1], {"news": Cut(1)}, 0)
    assert await broker.find("mine") is None
    assert await broker.append(batch("c", ids=["mine"])) == [("mine", 1503)]
    assert await broker.find("mine") == 1503
    with pytest.raises(DuplicateEvent):
        await broker.append(batch("b", ids=["other"]))


async def test_of_the_events_with_one_id_those_stay_that_were_not_dropped(make: Open) -> None:
    broker = await make()
    for topic in "abc":
        await broker.append(batch(topic, ids=["mine"], topics=[topic]))
    await broker.drop([2], {"b": Cut(2)}, 0)
    found = {topic: await broker.find("mine", lambda topics, _, topic=topic: topic in topics) for topic in "abc"}  # type: ignore[misc]
    assert found == {"a": 1, "b": None, "c": 3}
    assert positions(await broker.append(batch("b", ids=["mine"], topics=["b"]))) == [4]
    assert await broker.append(batch("a", ids=["mine"], topics=["a"])) == [("mine", 1)]


# Fetching.


async def test_fetch_gives_those_that_are_there_in_their_order(make: Open) -> None:
    broker = await make()
    await broker.append(numbers(4))
    await broker.append(numbers(4, first=5))
    entries = await broker.fetch([1, 3, 4, 8, 9, 1000])
    assert data(entries) == ["1", "3", "4", "8"]
    assert entries == [entry for entry in await read_all(broker) if entry.position in (1, 3, 4, 8)]
    assert list(await broker.fetch([])) == list(await broker.fetch([9, 1000])) == []


async def test_fetch_gives_as_much_as_a_page_takes(make: Open) -> None:
    broker = await make()
    await broker.append(batch(*["x" * 300 * KiB] * 8))
    wanted = [1, 3, 4, 5, 7, 8]
    seen: list[int] = []
    while page := await broker.fetch([position for position in wanted if position not in seen]):
        assert sum(len(entry.chunk) for entry in page) < 2 * MiB
        seen += positions(page)
    assert seen == wanted
    await broker.append(batch(*["x" * (MiB - 100)] * 2))
    assert positions(await broker.fetch([9, 10]))[:1] == [9]


async def test_a_thousand_can_be_fetched_at_once(make: Open) -> None:
    broker = await make()
    await broker.append(numbers(2 * DROP_ENTRIES))
    wanted = list(range(2, 2 * DROP_ENTRIES + 1, 2))
    entries = await broker.fetch(wanted)
    seen = positions(entries)
    assert seen == wanted[: len(seen)]
    assert len(seen) == DROP_ENTRIES or sum(entry.size for entry in entries) > MiB // 2


async def test_an_entry_says_when_it_was_stored(make: Open) -> None:
    broker = await make()
    before = time.time()
    await broker.append(batch("a"))
    await broker.append(batch("b", "c"))
    entries = await read_all(broker)
    times = [entry.at for entry in entries]
    assert before - 1 <= times[0] <= times[1] <= times[2] <= time.time() + 1
    assert await take(broker, 0, 3) == list(await broker.fetch([1, 2, 3])) == entries


async def test_a_key_and_whether_it_is_removed_are_kept(make: Open) -> None:
    broker = await make()
    keys = ["one", "zürich/\"%s' 東京", None, "x" * 128]
    records = [
        replace(record, key=key, removed=number % 2 == 1)
        for number, (record, key) in enumerate(zip(batch(*"abcd", ids=[None, "id"]), keys, strict=True))
    ]
    await broker.append(records)
    for entries in (await read_all(broker), await take(broker, 0, 4), await broker.fetch([1, 2, 3, 4])):
        assert [entry.key for entry in entries] == keys
        assert [entry.removed for entry in entries] == [False, True, False, True]
        assert data(entries) == list("abcd")
    assert positions(await broker.append([records[1]])) == [2]
    for other in ({"key": "other"}, {"removed": False}):
        with pytest.raises(IdConflict):
            await broker.append([replace(records[1], **other)])


# Cuts.


async def test_no_cut_falls(make: Open) -> None:
    broker = await make()
    assert list(await broker.cuts()) == []
    await broker.append(numbers(9))
    await broker.drop([], {"a": Cut(5), "b": Cut(0, 4)}, 0)
    await broker.drop([], {"a": Cut(3, 2), "c": Cut(1)}, 0)
    await broker.drop([], {"b": Cut(1, 1)}, 0)
    assert await all_cuts(broker) == {"a": Cut(5, 2), "b": Cut(1, 4), "c": Cut(1)}


async def test_cuts_up_to_the_floor_are_forgotten(make: Open) -> None:
    broker = await make()
    await broker.append(numbers(9))
    await broker.drop([1], {"a": Cut(1), "b": Cut(2), "c": Cut(3), "p": Cut(1, 3), "q": Cut(2, 2)}, 0)
    assert (await broker.bounds()).floor == 0
    await broker.drop([], {}, 2)
    assert await all_cuts(broker) == {"c": Cut(3), "p": Cut(1, 3)}
    await broker.drop([], {"d": Cut(2), "e": Cut(5)}, 1)  # the floor is another's already
    assert await all_cuts(broker) == {"c": Cut(3), "e": Cut(5), "p": Cut(1, 3)}
    assert (await broker.bounds()).floor == 2
    await broker.drop([2], {"f": Cut(8)}, 7)
    assert await all_cuts(broker) == {"f": Cut(8)}
    await broker.drop(range(3, 10), {"f": Cut(9)}, 9)
    assert list(await broker.cuts()) == []
    bounds = await broker.bounds()
    assert bounds[1:4] == (9, 9, 0)
    assert bounds.floor == bounds.untold == 9


async def test_cuts_are_read_in_pages_in_the_order_of_their_bytes(make: Open) -> None:
    broker = await make()
    await broker.append(numbers(3))
    strange = ["Z", "a", "a b", "é", "\uffe6", "\U0001f600", "'\"%s{0}$1", "x" * 1024, "z*[?]\\", "a:b", "a.b>c"]
    topics = [*strange, *(f"room/{number}" for number in range(PAGE_CUTS + 300))]
    for first in range(0, len(topics), DROP_ENTRIES):
        await broker.drop([], {topic: Cut(3, 1) for topic in topics[first : first + DROP_ENTRIES]}, 0)
    assert list(await all_cuts(broker)) == sorted(topics, key=lambda topic: topic.encode())
    assert [topic for topic, _ in await broker.cuts("room/999")] == sorted(
        (topic for topic in topics if topic.encode() > b"room/999"), key=lambda topic: topic.encode()
    )
    assert list(await broker.cuts("\U0001f600")) == []


@shared
async def test_who_finds_an_entry_gone_finds_its_cut(make: Open) -> None:
    dropping, looking = await make(), await make()
    await dropping.append(numbers(40))
    over = 0

    async def look() -> None:
        nonlocal over
        while over < 40:
            there = positions(await looking.fetch(range(1, 41)))
            gone = max(set(range(1, 41)) - set(there), default=0)
            assert (await all_cuts(looking)).get("news", Cut()).public >= gone
            over = gone
            await asyncio.sleep(0)

    async def drop() -> None:
        for position in range(1, 41):
            await dropping.drop([position], {"news": Cut(position)}, 0)

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(look(), drop())


@shared
async def test_what_was_dropped_and_cut_is_known_when_a_history_is_opened_anew(make: Open) -> None:
    broker = await make()
    await broker.append(batch("a", "b", "c", "d", ids=["mine"]))
    await broker.drop([1, 3], {"news": Cut(3, 2), "other": Cut(1)}, 1)
    before = await broker.bounds()
    await broker.close()
    later = await make()
    assert (await later.bounds())[1:4] == before[1:4]
    assert (await later.bounds()).floor == 1
    assert data(await read_all(later)) == ["b", "d"]
    assert await all_cuts(later) == {"news": Cut(3, 2)}
    assert await later.find("mine") is None
    assert positions(await later.append(batch("a", ids=["mine"]))) == [5]


async def test_events_come_and_go_and_leave_nothing(make: Open) -> None:
    broker = await make()
    newest = 0
    for turn in range(5):
        stored = await broker.append(batch(*"abcdef", ids=["x", None, f"{turn}"], topics=[f"room/{turn}", "news"]))
        newest = stored[-1].position
        await broker.drop(range(newest - 5, newest + 1), {f"room/{turn}": Cut(newest), "news": Cut(newest)}, newest - 6)

    async def is_empty() -> bool:
        return (await broker.bounds())[1:4] == (newest, newest, 0)

    await until(is_empty)
    assert await all_cuts(broker) == {"room/4": Cut(newest), "news": Cut(newest)}
