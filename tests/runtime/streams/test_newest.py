"""The newest of each topic: what is found, in which order, and how it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from admitting import STRANGER
from parts import Paper, opened, running, until
from ssepool.config import HubConfig
from ssepool.core.chunk import chunk
from ssepool.core.decoder import Decoder
from ssepool.core.event import Entry, Event
from ssepool.core.states import LinkState, Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.core.window import STEP_ENTRIES, Window
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams import newest


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with running() as engine:
        yield engine


def publish(engine: Engine, *words: str, **fields: Any) -> None:
    """Publish events whose data are their topics and a number: `a+b7` is one of the topics a and b."""
    for word in words:  # each by itself: a batch may take several turns to be delivered
        engine.publish_nowait([Event(word, tuple(word.rstrip("0123456789").split("+")), **fields)])


async def followed(link: Paper) -> list[str]:
    """What the client has got when it follows what is live."""
    await until(lambda: link.state is LinkState.FOLLOWING)
    return link.events()[1:]


async def come(engine: Engine, wanted: str, *topics: str, patterns: Iterable[str] = (), private: bool = False) -> Paper:
    subscription = Subscription.of(topics, patterns, private)
    return (await opened(engine, Visit(grant=STRANGER, subscription=subscription, last_event_id=wanted)))[0]


@pytest.mark.parametrize(
    ("wanted", "topics", "expected"),
    [
        ("latest", ["a"], ["a4"]),
        ("last=1", ["a"], ["a4"]),
        ("last=2", ["a"], ["a+b3", "a4"]),
        ("last=100", ["a"], ["a1", "a+b3", "a4"]),
        ("latest", ["a", "b"], ["a4", "b5"]),
        ("latest", ["a", "c", "nothing"], ["c2", "a4"]),
        ("last=2", ["a", "b"], ["a+b3", "a4", "b5"]),
        ("latest", ["nothing"], ["ssepool.empty"]),
        ("last=0", ["a"], ["ssepool.empty"]),
    ],
)
async def test_the_newest_of_each_topic_come_once_in_order(
    engine: Engine, wanted: str, topics: list[str], expected: list[str]
) -> None:
    publish(engine, "a1", "c2", "a+b3", "a4", "b5")
    link = await come(engine, wanted, *topics)
    assert await followed(link) == expected
    publish(engine, f"{topics[0]}7")
    await until(lambda: link.events()[-1] == f"{topics[0]}7")


async def test_of_a_pattern_it_is_the_newest_of_all_that_match(engine: Engine) -> None:
    publish(engine, "a/x1", "b2", "a/y3", "a/x4", "b5")
    assert await followed(await come(engine, "last=2", patterns=["a/:any"])) == ["a/y3", "a/x4"]
    assert await followed(await come(engine, "latest", "b", patterns=["a/:any"])) == ["b5"]


@pytest.mark.parametrize(("private", "expected"), [(False, ["a1"]), (True, ["a2"])])
async def test_private_events_count_for_those_who_may_see_them(
    engine: Engine, private: bool, expected: list[str]
) -> None:
    publish(engine, "a1")
    publish(engine, "a2", private=True)
    assert await followed(await come(engine, "latest", "a", private=private)) == expected


async def test_what_comes_during_the_search_comes_behind_the_newest(engine: Engine) -> None:
    publish(engine, "a1", "a2")
    link = await come(engine, "latest", "a")
    publish(engine, "a3", "a4")
    assert await followed(link) == ["a2", "a3", "a4"]


async def test_where_nothing_is_kept_the_client_is_told_the_place(engine: Engine) -> None:
    publish(engine, "b1")
    link = await come(engine, "latest", "a")
    await followed(link)
    place = [message.id for message in Decoder().feed(link.written)][-1]
    assert place == f"{engine.log.window.epoch}-1"
    publish(engine, "a2", "a3")
    again = await come(engine, place, "a")
    assert await followed(again) == ["a2", "a3"]


async def test_who_breaks_off_among_the_newest_is_not_ahead_of_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "JOIN_BYTES", 1)
    publish(engine, "a1", "b2", "a3", "c4")
    link = await come(engine, "latest", "a", "b")
    link.room_left = 1
    await until(lambda: link.stalled)
    assert [message.id for message in Decoder().feed(link.written)] in ([], [""])  # the opening has no id
    link.make_room()
    seen = await followed(link)
    assert seen == ["b2", "a3"]
    [_, first, _] = Decoder().feed(link.written)
    assert await followed(await come(engine, first.id, "a", "b")) == ["a3"]


async def test_what_is_dropped_meanwhile_is_left_out() -> None:
    async with running(HubConfig(history_events=3)) as engine:
        publish(engine, "a1", "a2", "b3")
        link = await come(engine, "latest", "a", "b")
        publish(engine, "a4", "a5")  # it is the topic that has the most that gives its oldest up
        assert await followed(link) == ["b3", "a4", "a5"]


async def test_a_history_that_is_lost_meanwhile_is_told(engine: Engine) -> None:
    publish(engine, "a1")
    link = await come(engine, "latest", "a")
    engine.log.window = Window("00000000", after=1, events=9, bytes=9, age=9)
    assert await followed(link) == ["ssepool.gap"]


async def test_a_history_that_goes_on_whole_under_another_name_loses_nobody_anything(engine: Engine) -> None:
    publish(engine, "a1", "b2", "a3")
    link = await come(engine, "latest", "a", "b")
    window = engine.log.window
    window.timelines = window.timelines.followed("00000000", 3)
    assert await followed(link) == ["b2", "a3"]


async def test_what_a_broker_gives_out_again_in_the_place_of_the_newest_is_not_taken_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "JOIN_BYTES", 1)
    publish(engine, "b1", "a2", "c3", "a4")
    link = await come(engine, "latest", "a", "b", "c")
    link.room_left = 1
    await until(lambda: link.stalled)
    window = engine.log.window
    engine.log.window = again = window.branched(window.timelines.followed("00000000", 3), 3)
    again.append([Entry(4, "new", ("a",), chunk(b"data: new\n\n"))], 0.0)
    link.make_room()
    assert await followed(link) == ["b1", "c3", "ssepool.gap", "new"]


async def test_the_search_costs_what_it_finds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(engine, "quiet1", *["noise"] * (3 * STEP_ENTRIES))
    await followed(await come(engine, "latest", "quiet"))  # so that all are indexed
    looked_at = []
    back = Window.back

    def counted(window: Window, topic: str | None, *, until: int) -> Any:
        for entry in back(window, topic, until=until):
            looked_at.append(entry.position)
            yield entry

    monkeypatch.setattr(Window, "back", counted)
    assert await followed(await come(engine, "last=5", "quiet", "nothing")) == ["quiet1"]
    assert looked_at == [1]


async def test_no_more_than_a_bound_is_looked_at(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "MAX_LOOKED_AT", 3)
    publish(engine, "a1", "b2", "b3", "b4")
    assert await followed(await come(engine, "latest", patterns=["a*"])) == ["ssepool.empty"]
    assert await followed(await come(engine, "latest", "a")) == ["a1"]


async def test_a_client_is_given_no_more_than_a_bound(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "MAX_EVENTS", 4)
    publish(engine, *(f"{topic}{number}" for number in range(5) for topic in "ab"))
    assert await followed(await come(engine, "last=5", "a", "b")) == ["a3", "b3", "a4", "b4"]
    assert await followed(await come(engine, "last=5", "a")) == ["a1", "a2", "a3", "a4"]


async def test_who_leaves_during_the_search_gets_nothing(engine: Engine) -> None:
    publish(engine, "a1")
    link = await come(engine, "latest", "a")
    link.end(Reason.CLIENT_CLOSED)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert link.events() == ["ssepool.open"]
