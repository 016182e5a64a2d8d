"""`latest` and `last=N` where most of the history is with the broker alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from admitting import STRANGER
from histories import DROPPING
from parts import QUIET, Paper, opened, running, until
from ssepool.config import HubConfig, KiB
from ssepool.core.event import Entry, Event
from ssepool.core.kept import Absent
from ssepool.core.states import LinkState, Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.errors import BrokerError
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams import newest
from ssepool.runtime.streams.log import MAX_FETCHES, EventLog

pytestmark = pytest.mark.parametrize("kind", DROPPING)

OLD = [f"{topic}{number}" for number in range(1, 6) for topic in "ab"]
"""The events at the positions 1 to 10."""


@pytest.fixture
async def engine(url: str) -> AsyncIterator[Engine]:
    """A hub whose history has old events of a and b that are not at hand, and then a11."""
    async with running(HubConfig(broker=url, window_bytes=4 * KiB, pool=QUIET, detach=False)) as engine:
        old = [Event(word, (word[0],)) for word in OLD]
        noise = [Event("x" * 500, ("noise",))] * 10
        await engine.log.store([*old, Event("ab", ("a", "b")), *noise, Event("a11", ("a",))])
        await engine.log.reached(22)
        assert all(isinstance(engine.log.window.at(position), Absent) for position in range(1, 12))
        yield engine


async def come(engine: Engine, wanted: str, *topics: str, patterns: Sequence[str] = ()) -> Paper:
    subscription = Subscription.of(topics, patterns)
    return (await opened(engine, Visit(grant=STRANGER, subscription=subscription, last_event_id=wanted)))[0]


async def followed(link: Paper) -> list[str]:
    """What the client has got when it follows what is live."""
    await until(lambda: link.state is LinkState.FOLLOWING)
    return link.events()[1:]


async def test_what_is_not_at_hand_is_fetched_and_comes_in_order(engine: Engine) -> None:
    assert await followed(await come(engine, "latest", "a", "b")) == ["ab", "a11"]
    assert await followed(await come(engine, "last=3", "a", "b")) == ["b4", "a5", "b5", "ab", "a11"]
    assert await followed(await come(engine, "last=3", patterns=["a*"])) == ["a5", "ab", "a11"]
    link = await come(engine, "last=100", "a", "b")
    await engine.log.store([Event("b12", ("b",))])
    await until(lambda: link.events()[-1] == "b12")
    assert await followed(link) == [*OLD, "ab", "a11", "b12"]


async def test_it_is_fetched_in_pages_also_where_the_broker_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, asked = engine.log.fetch, list[int]()

    async def failing(positions: Sequence[int]) -> Sequence[Entry]:
        asked.append(len(positions))
        if len(asked) == 2:
            raise BrokerError("it is away")
        return (await fetch(positions))[:3]  # it may give less than it was asked for

    monkeypatch.setattr(EventLog, "fetch", lambda log, positions: failing(positions))
    monkeypatch.setattr(newest, "RETRY_SECONDS", 0.0)
    at_one = engine.log.window.at(1)
    assert at_one is not None
    monkeypatch.setattr(newest, "FETCH_BYTES", 5 * at_one.size)
    assert await followed(await come(engine, "last=100", "a", "b")) == [*OLD, "ab", "a11"]
    assert max(asked) <= 5
    assert len(asked) == 5  # four pages, of which one came at the second try


async def test_what_is_dropped_before_it_is_fetched_is_left_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = engine.log.fetch

    async def late(positions: Sequence[int]) -> Sequence[Entry]:
        await engine.log.broker.drop([1, 4, 11], {}, 0)
        return await fetch(positions)

    monkeypatch.setattr(EventLog, "fetch", lambda log, positions: late(positions))
    assert await followed(await come(engine, "last=100", "a", "b")) == [*OLD[1:3], *OLD[4:], "a11"]


async def test_who_leaves_meanwhile_has_nothing_fetched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Sequence[int]] = []
    monkeypatch.setattr(EventLog, "fetch", lambda log, positions: fetched.append(positions))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_FETCHES):
            await stack.enter_async_context(engine.log.fetching)
        link = await come(engine, "latest", "b")
        await until(lambda: bool(engine.log.fetching._waiters))
        link.end(Reason.CLIENT_CLOSED)
    await until(lambda: not engine.log.fetching.locked())
    assert fetched == []
