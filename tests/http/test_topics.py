"""GET /topics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from ssepool import Hub

Subscribe = Callable[..., Awaitable[Any]]


async def test_there_are_no_topics_at_first(http: httpx.AsyncClient) -> None:
    assert (await http.get("/topics")).json() == {"topics": [], "next": None, "missing": []}


async def test_a_topic_tells_all_that_is_known_of_it(http: httpx.AsyncClient, hub: Hub, subscribe: Subscribe) -> None:
    await subscribe("topic=a")
    await subscribe("pattern=*")
    await hub.publish("a", "x")
    [topic] = (await http.get("/topics")).json()["topics"]
    assert topic.pop("bytes") > 0
    assert 0 <= topic.pop("newest") <= topic.pop("oldest")
    assert topic == {"topic": "a", "events": 1, "rate": 0.1, "subscribers": 1, "by_pattern": 1}


async def test_a_page_at_a_time(http: httpx.AsyncClient, hub: Hub) -> None:
    for name in "cab":
        await hub.publish(f"t/{name}", "")
    await hub.publish("other", "")
    seen, after = [], ""
    while after is not None:
        page = (await http.get("/topics", params={"prefix": "t/", "limit": 1, "after": after})).json()
        seen += [topic["topic"] for topic in page["topics"]]
        after = page["next"]
    assert seen == ["t/a", "t/b", "t/c"]


async def test_pages_end_while_topics_come_and_go(http: httpx.AsyncClient, hub: Hub, subscribe: Subscribe) -> None:
    staying = [f"t/{number:02}" for number in range(20)]
    for name in staying:
        await hub.publish(name, "")
    going = [await subscribe(f"topic=t/{number:02}!") for number in range(0, 20, 5)]
    seen: list[str] = []
    after = ""
    while after is not None:
        page = (await http.get("/topics", params={"limit": 3, "after": after})).json()
        seen += [topic["topic"] for topic in page["topics"]]
        after = page["next"]
        await hub.publish("s", "before all others")
        await hub.publish(f"{seen[-1]}-", "the next of all")
        if going:
            await going.pop().leave()  # the last of the names first
        assert len(seen) < 100
    assert seen == sorted(set(seen))  # none twice
    assert set(staying) <= set(seen)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sort=size", "name, subscribers, events, bytes or rate"),
        ("limit=0", "from 1 to 1000"),
        ("limit=1001", "from 1 to 1000"),
        ("sort=bytes&after=a", "by name alone"),
        ("topic=a", "prefix, sort, limit, after"),
    ],
)
async def test_what_is_not_allowed_is_named(http: httpx.AsyncClient, query: str, names: str) -> None:
    answer = await http.get(f"/topics?{query}")
    assert answer.status_code == 400
    assert names in answer.json()["error"]["message"]
