"""Presence: which connections are listed, in pages, and what others may know of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from parts import Paper, bound, connection_of, opened, running
from ssepool.core.grant import Grant
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.runtime.cluster import presence
from ssepool.runtime.cluster.messages import ConnectionInfo, FindConnections, Page
from ssepool.runtime.cluster.presence import describe, merge, page_of
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams import slices
from ssepool.runtime.streams.link import Link

VISITS: list[dict[str, Any]] = [
    {"user": "ann", "ip": "10.0.0.1", "topics": ["news"]},
    {"user": "ann", "ip": "10.0.0.2", "topics": ["news", "sport"]},
    {"user": "bob", "ip": "10.0.0.1", "topics": ["sport"], "patterns": ["news/*"]},
    {"topics": ["news"]},
]

WANTED: dict[str, tuple[dict[str, Any], list[int]]] = {
    "all": ({}, [0, 1, 2, 3]),
    "a user": ({"user": "ann"}, [0, 1]),
    "an address": ({"ip": "10.0.0.1"}, [0, 2]),
    "a topic": ({"topic": "news"}, [0, 1, 3]),
    "a pattern": ({"topic": "news/*"}, [2]),
    "what a pattern matches is not asked for": ({"topic": "news/1"}, []),
    "several": ({"user": "ann", "ip": "10.0.0.1", "topic": "news"}, [0]),
    "none": ({"user": "bob", "ip": "10.0.0.2"}, []),
    "those that are open": ({"state": "open"}, [0, 1, 2]),
    "those that are sent away": ({"state": "closing"}, [3]),
    "a state that there is not": ({"state": "free"}, []),
}


def visit(*, topics: Any = ("news",), patterns: Any = (), user: str | None = None, **fields: Any) -> Visit:
    return Visit(grant=Grant(subject=user), subscription=Subscription.of(topics, patterns), **fields)


async def filled(engine: Engine, count: int, **fields: Any) -> list[Link]:
    return [(await opened(engine, visit(**fields)))[0] for _ in range(count)]


def slots(page: Page) -> list[int]:
    return [presence.slot_of(found.id) for found in page.connections]


@pytest.mark.parametrize(("wanted", "expected"), WANTED.values(), ids=WANTED)
async def test_only_what_is_wanted_is_listed(wanted: dict[str, Any], expected: list[int]) -> None:
    async with running() as engine:
        links = [(await opened(engine, visit(**fields)))[0] for fields in VISITS]
        links[3].stall()  # its goodbye has to wait
        links[3].close(Reason.KICKED)
        assert slots(await page_of(engine.connections, FindConnections(10, **wanted))) == expected


async def test_a_stream_that_has_not_opened_is_not_listed() -> None:
    async with running() as engine:
        bound(engine, Paper(engine.links), visit())
        await filled(engine, 1)
        assert slots(await page_of(engine.connections, FindConnections(10))) == [1]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
async def test_pages_follow_each_other_without_hole_or_overlap(limit: int) -> None:
    async with running() as engine:
        links = await filled(engine, 9)
        links[0].end(Reason.CLIENT_CLOSED)
        links[5].end(Reason.CLIENT_CLOSED)
        seen: list[int] = []
        after = None
        more = True
        while more:
            page = await page_of(engine.connections, FindConnections(limit, after=after))
            seen += slots(page)
            assert len(page.connections) == limit or not page.more
            after, more = (engine.node, seen[-1]), page.more
        assert seen == [1, 2, 3, 4, 6, 7, 8]


async def test_who_leaves_between_two_pages_moves_nobody() -> None:
    async with running() as engine:
        links = await filled(engine, 6)
        assert slots(await page_of(engine.connections, FindConnections(3))) == [0, 1, 2]
        links[0].end(Reason.CLIENT_CLOSED)
        links[2].end(Reason.CLIENT_CLOSED)
        assert slots(await page_of(engine.connections, FindConnections(3, after=(engine.node, 2)))) == [3, 4, 5]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (lambda node: ("", 10), [0, 1, 2]),  # of a node before this one
        (lambda node: (node, -1), [0, 1, 2]),
        (lambda node: (node, 1), [2]),
        (lambda node: (node, 2), []),
        (lambda node: (node + "0", 0), []),  # of a node behind it
    ],
)
async def test_a_page_begins_behind_a_slot_of_whichever_node(
    after: Callable[[str], tuple[str, int]], expected: list[int]
) -> None:
    async with running() as engine:
        await filled(engine, 3)
        page = await page_of(engine.connections, FindConnections(10, after=after(engine.node)))
        assert (slots(page), page.more) == (expected, False)


async def test_a_page_that_would_be_too_big_ends_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_PAGE_BYTES", 4000)
    async with running() as engine:
        await filled(engine, 7, data="x" * 1000)
        page = await page_of(engine.connections, FindConnections(100))
        assert (slots(page), page.more) == ([0, 1, 2], True)
        assert len(msgspec.json.encode(page)) <= 4000 + 100
        after = (engine.node, 2)
        assert slots(await page_of(engine.connections, FindConnections(100, after=after))) == [3, 4, 5]


async def test_one_connection_that_is_too_big_has_a_page_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_PAGE_BYTES", 10)
    async with running() as engine:
        await filled(engine, 2)
        page = await page_of(engine.connections, FindConnections(100))
        assert (slots(page), page.more) == ([0], True)
        page = await page_of(engine.connections, FindConnections(100, after=(engine.node, 0)))
        assert (slots(page), page.more) == ([1], False)


async def test_others_have_their_turn_while_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    async with running() as engine:
        links = await filled(engine, 8)
        looking = asyncio.create_task(page_of(engine.connections, FindConnections(100)))
        turns = 0
        while not looking.done():
            await asyncio.sleep(0)
            turns += 1
            if turns == 1:  # the first one has not been looked at yet
                links[1].end(Reason.CLIENT_CLOSED)
                links[6].end(Reason.CLIENT_CLOSED)
        assert turns >= 6
        assert slots(looking.result()) == [0, 2, 3, 4, 5, 7]


DATA: dict[str, tuple[Any, Any]] = {
    "nothing": (None, None),
    "JSON": ({"a": [1, "x"]}, {"a": [1, "x"]}),
    "an object of the application": (NotImplemented, "NotImplemented"),
    "half a character": ("\ud800", "'\\ud800'"),
    "a key that is an object": ({(1, 2): 3}, "{(1, 2): 3}"),
}


@pytest.mark.parametrize(("data", "expected"), DATA.values(), ids=DATA)
async def test_the_data_of_a_connection_is_shown_whatever_it_is(data: Any, expected: Any) -> None:
    async with running() as engine:
        (link,) = await filled(engine, 1, data=data)
        assert msgspec.json.decode(describe(connection_of(link)).data) == expected


async def test_data_that_contains_itself_is_shown_as_text() -> None:
    async with running() as engine:
        circle: list[Any] = []
        circle.append(circle)
        (link,) = await filled(engine, 1, data=circle)
        assert msgspec.json.decode(describe(connection_of(link)).data) == "[[...]]"


async def test_a_connection_is_described_without_its_token() -> None:
    async with running(now=lambda: 100.0) as engine:
        engine.connections.wall_clock = lambda: 5000.0
        link, slot = await opened(engine, visit(user="ann", ip="::1", topics=["b", "a"], patterns=["c/*"]))
        slot.events, slot.skipped = 3, 2
        slot.opened_at = engine.now() - 10
        connection = connection_of(link)
        described = describe(connection)
        assert connection.token not in msgspec.json.encode(described).decode()
        assert msgspec.structs.replace(described, data=msgspec.Raw(b"")) == ConnectionInfo(
            id=connection.id,
            state="open",
            user="ann",
            ip="::1",
            topics=("a", "b"),
            patterns=("c/*",),
            data=msgspec.Raw(b""),
            opened_at=4990.0,
            events_sent=3,
            bytes_sent=len(link.written),
            events_skipped=2,
        )


def page(*ids: str, more: bool = False) -> Page:
    found = [ConnectionInfo(id, "open", None, None, (), (), msgspec.Raw(b"null"), 0.0, 0, 0, 0) for id in ids]
    return Page(found, more)


MERGED: dict[str, tuple[dict[str, Page], int, list[str], bool]] = {
    "no nodes": ({}, 5, [], False),
    "nodes in the order of their names": ({"b": page("b1"), "a": page("a1", "a2")}, 5, ["a1", "a2", "b1"], False),
    "exactly as many as fit": ({"a": page("a1"), "b": page("b1")}, 2, ["a1", "b1"], False),
    "more than fit": ({"a": page("a1", "a2"), "b": page("b1", "b2")}, 3, ["a1", "a2", "b1"], True),
    "none fits of the second": ({"a": page("a1", "a2"), "b": page("b1")}, 2, ["a1", "a2"], True),
    "the first has more": ({"a": page("a1", more=True), "b": page("b1")}, 5, ["a1"], True),
    "the last has more": ({"a": page("a1"), "b": page("b1", more=True)}, 5, ["a1", "b1"], True),
    "an empty page": ({"a": page(), "b": page("b1")}, 5, ["b1"], False),
}


@pytest.mark.parametrize(("pages", "limit", "expected", "more"), MERGED.values(), ids=MERGED)
def test_the_pages_of_nodes_are_merged(pages: dict[str, Page], limit: int, expected: list[str], more: bool) -> None:
    merged = merge(pages, limit)
    assert ([found.id for found in merged.connections], merged.more) == (expected, more)
