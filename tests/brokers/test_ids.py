"""What an id means that a publisher chose, with each kind of broker: one event for each set of topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from histories import DROPPING, Open, batch, data, positions, read_all, until
from services.kinds import SERVICES
from ssepool.brokers.base import PAGE_PLACES, Stored, Wants
from ssepool.brokers.group import GroupCommit
from ssepool.brokers.record import Record, records
from ssepool.config import MiB
from ssepool.core.cut import Cut
from ssepool.core.event import Event
from ssepool.core.topics import Subscription
from ssepool.errors import DuplicateEvent, IdConflict

shared = pytest.mark.parametrize("kind", ("sqlite", *SERVICES))


def order(text: str, *topics: str, id: str = "order-42", **fields: Any) -> Record:
    """An event with that id, of these topics."""
    [record] = records([Event(text, topics or ("news",), id=id, **fields)], MiB)
    return record


def follower(*topics: str, private: bool = False) -> Wants:
    """What a client of these topics may have had."""
    return Subscription.of(topics, private=private).matches


# The same id for other topics.


@pytest.mark.parametrize("on_duplicate", ["ignore", "refuse"])
async def test_an_id_of_other_topics_is_another_event(make: Open, on_duplicate: str) -> None:
    broker = await make(on_duplicate=on_duplicate)
    assert await broker.append([order("stranger", "b")]) == [("order-42", 1)]
    assert await broker.append([order("own", "a")]) == [("order-42", 2)]
    assert positions(await broker.append([order("x", "a", "b"), order("own", "c"), order("own", "d")])) == [3, 4, 5]
    assert data(await read_all(broker)) == ["stranger", "own", "x", "own", "own"]


async def test_the_order_and_repetition_of_topics_do_not_matter(make: Open) -> None:
    broker = await make()
    assert positions(await broker.append([order("x", "zürich", "b", "a/1")])) == [1]
    assert positions(await broker.append([order("x", "a/1", "zürich", "b", "b"), order("x", "b")])) == [1, 2]


async def test_a_client_goes_on_behind_the_event_of_its_own_subscription(make: Open) -> None:
    broker = await make()
    await broker.append(
        [
            order("x", "b"),
            order("x", "a"),
            order("x", "secret", private=True),
            order("x", "c", "a"),
            order("y", id="other"),
        ]
    )
    assert await broker.find("order-42") == 1
    assert await broker.find("order-42", follower("b")) == 1
    assert await broker.find("order-42", follower("a")) == 2  # of several the first
    assert await broker.find("order-42", follower("c")) == 4
    assert await broker.find("order-42", follower("a", "b")) == 1
    assert await broker.find("order-42", follower("secret", private=True)) == 3
    assert await broker.find("order-42", follower("secret")) is None
    assert await broker.find("order-42", follower("nobody")) is None
    assert await broker.find("order-4", follower("a")) is None
    assert await broker.find("other", follower("news")) == 5
    made = (await broker.append(batch("z")))[0].id
    assert await broker.find(made, follower("nobody")) == 6  # made ids are nobody's to choose


async def test_an_id_that_thousands_have_is_found_for_each(make: Open) -> None:
    broker = await make()
    count = 2 * PAGE_PLACES + 2
    await broker.append([order("x", f"t/{number}") for number in range(count)])
    for number in (0, PAGE_PLACES, count - 1):
        assert await broker.find("order-42", follower(f"t/{number}")) == number + 1
    assert await broker.find("order-42", follower("nobody")) is None


async def test_an_id_whose_own_event_has_gone_is_not_anothers(kind: str, make: Open) -> None:
    broker = await make(history_events=2)
    await broker.append([order("x", "a")])
    await broker.append([order("x", "b"), order("y", id="later")])
    if kind in DROPPING:
        await broker.drop([1], {"a": Cut(1)}, 0)

    async def is_gone() -> bool:
        return await broker.find("order-42", follower("a")) is None

    await until(is_gone)
    assert await broker.find("order-42", follower("b")) == 2
    assert positions(await broker.append([order("new", "a")])) == [4]
    assert await broker.find("order-42", follower("a")) == 4
    assert await broker.find("order-42", follower("a", "b")) in (2, 4)


async def test_ids_that_begin_alike_are_told_apart(make: Open) -> None:
    broker = await make()
    ids = ["a", "a.b", "a%2Eb", "a*", "a>", "a-1", "a!", "a~", "*", ">"]
    assert positions(await broker.append([order("x", id=id) for id in ids])) == list(range(1, 11))
    assert [await broker.find(id, follower("news")) for id in ids] == list(range(1, 11))
    assert positions(await broker.append([order("x", id=id) for id in ids])) == list(range(1, 11))


# Other content for the same id and topics.

OTHERS = {
    "data": order("other"),
    "type": order("x", type="update"),
    "retry": order("x", retry=1000),
    "private": order("x", private=True),
}


@pytest.mark.parametrize("on_duplicate", ["ignore", "refuse"])
@pytest.mark.parametrize("what", OTHERS)
async def test_other_content_is_refused_and_nothing_of_the_batch_is_stored(
    make: Open, what: str, on_duplicate: str
) -> None:
    broker = await make(on_duplicate=on_duplicate)
    await broker.append([order("x")])
    before = await broker.bounds()
    with pytest.raises(IdConflict, match=r"^an event with the id 'order-42' is in the history already, .*other data"):
        await broker.append([*batch("a"), order("new", id="new"), OTHERS[what]])
    assert await broker.bounds() == before
    assert await broker.find("new") is None
    assert positions(await broker.append([order("new", id="new")])) == [2]


@pytest.mark.parametrize("on_duplicate", ["ignore", "refuse"])
async def test_other_content_inside_one_batch_is_refused(make: Open, on_duplicate: str) -> None:
    broker = await make(on_duplicate=on_duplicate)
    for some in ([order("x"), *batch("a"), order("y")], [order("x", "a", "b"), order("y", "b", "a")]):
        with pytest.raises(IdConflict, match="'order-42'"):
            await broker.append(some)
    assert (await broker.bounds()).newest == 0
    assert positions(await broker.append([order("x", "a"), order("y", "b")])) == [1, 2]


@shared
async def test_a_refusal_names_all_that_the_history_refuses(make: Open) -> None:
    broker = await make()
    await broker.append([order("x"), order("x", id="two"), order("x", id="three")])
    some = [*batch("a"), order("y"), order("x", id="two"), order("new", id="new"), order("z"), order("y", id="three")]
    with pytest.raises(IdConflict) as error:
        await broker.append(some)
    assert list(error.value.places) == [1, 4, 5]
    with pytest.raises(IdConflict) as error:
        await broker.append([order("1", id="new"), order("2", id="new"), order("x")])
    assert list(error.value.places) == []
    # What the history refuses comes first: a repetition must not be refused for what is refused itself.
    with pytest.raises(IdConflict) as error:
        await broker.append([order("y"), order("x")])
    assert list(error.value.places) == [0]


async def test_a_batch_that_is_published_again_is_stored_once(make: Open) -> None:
    broker = await make()
    some = [order(str(number), f"t/{number % 3}", id=f"order-{number}") for number in range(50)]
    stored = await broker.append(some)
    assert await broker.append(some) == stored
    assert await broker.append([*some, order("more", id="more")]) == [*stored, ("more", 51)]
    assert (await broker.bounds()).newest == 51


@shared
async def test_other_brokers_and_later_ones_know_what_an_id_names(make: Open) -> None:
    one, two = await make(), await make()
    await one.append([order("x", "a")])
    await two.append([order("x", "b")])
    for broker in (one, two, await make()):
        assert positions(await broker.append([order("x", "a"), order("x", "b")])) == [1, 2]
        with pytest.raises(IdConflict):
            await broker.append([order("y", "a")])
        assert await broker.find("order-42", follower("b")) == 2
    for broker in (one, two):
        await broker.close()
    later = await make()
    assert positions(await later.append([order("x", "b"), order("x", "c"), order("x", "a")])) == [2, 3, 1]
    with pytest.raises(IdConflict):
        await later.append([order("y", "c")])


@shared
async def test_of_different_events_at_once_one_is_stored(make: Open) -> None:
    brokers = [await make() for _ in range(4)]
    for turn in range(10):
        answers: Sequence[object] = await asyncio.gather(
            *(broker.append([order(str(number), id=f"{turn}")]) for number, broker in enumerate(brokers)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers].count(IdConflict) == 3
        assert [(f"{turn}", turn + 1)] in answers
    assert [entry.id for entry in await read_all(brokers[0])] == [f"{turn}" for turn in range(10)]


@shared
async def test_who_is_refused_fails_alone(make: Open) -> None:
    broker = await make()
    await broker.append([order("x")])
    commit = GroupCommit(broker)
    first = asyncio.create_task(commit.append([Event("first", ("news",))]))
    await asyncio.sleep(0)
    honest = [[Event("x", ("news",), id="order-42")], [Event("own", ("shop",), id="order-42")], [Event("b", ("news",))]]
    bad = [[Event(f"bad {number}", ("news",), id="order-42")] for number in range(3)]
    mixed = [group for pair in zip(bad, honest, strict=True) for group in pair]
    answers = await asyncio.gather(first, *(commit.append(group) for group in mixed), return_exceptions=True)
    assert [type(answer) for answer in answers[1::2]] == [IdConflict] * 3
    assert [one.position for answer in answers[::2] for one in answer] == [2, 1, 3, 4]  # type: ignore[union-attr]
    await commit.close()


@shared
@pytest.mark.parametrize("is_there", [False, True])
async def test_a_flood_of_refused_publishes_costs_the_others_two_appends(
    make: Open, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    broker = await make()
    if is_there:
        await broker.append([order("0")])
    appends, append = 0, broker.append

    async def counted(records: Sequence[Record]) -> list[Stored]:
        nonlocal appends
        appends += 1
        return await append(records)

    monkeypatch.setattr(broker, "append", counted)
    commit = GroupCommit(broker)
    first = asyncio.create_task(commit.append([Event("first", ("news",))]))
    await asyncio.sleep(0)
    flood = [commit.append([Event(str(number), ("news",), id="order-42")]) for number in range(50)]
    answers = await asyncio.gather(first, *flood, commit.append([Event("last", ("news",))]), return_exceptions=True)
    assert [type(answer) for answer in answers].count(IdConflict) == 49
    assert isinstance(answers[1], list)  # the first is the one that is there, or gets there
    assert data(await read_all(broker)) == (["0", "first", "last"] if is_there else ["first", "0", "last"])
    assert appends <= 3
    await commit.close()


async def test_refusing_tells_a_repetition_from_another_event(make: Open) -> None:
    broker = await make(on_duplicate="refuse")
    await broker.append([order("x")])
    for text, error in (("x", DuplicateEvent), ("y", IdConflict)):
        with pytest.raises(DuplicateEvent) as raised:
            await broker.append([order(text)])
        assert type(raised.value) is error
