"""What the clients publish, and how they read the answers."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.scripted import ScriptedServer
from ssepool import Event, InvalidEvent, InvalidTopic
from ssepool.client import AsyncClient, Client, ClientError, Refused, Unreachable, batches
from ssepool.client.calls import body, encode

Call = Callable[[Any], Any]


def ask_sync(url: str, call: Call) -> Any:
    with Client(url, headers={"X-Test": "1"}, timeout=5) as client:
        return call(client)


def ask_async(url: str, call: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, headers={"X-Test": "1"}, timeout=5) as client:
            return await call(client)

    return asyncio.run(run())


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[[str, Call], Any]:
    """Makes a call with one of the two clients."""
    return request.param  # type: ignore[no-any-return]


def answer(status: str, content: bytes, fields: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{fields}\r\n"
    return head.encode() + content


def test_an_event_is_published_with_all_its_fields(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(answer("201 Created", b'{"ids": ["x-1"]}'))
    given = {"type": "update", "id": "x-1", "retry": 5000, "private": True}
    assert ask(server.url, lambda client: client.publish(["a", "b"], {"n": 1}, **given)) == "x-1"
    request = server.requests[0]
    assert (request.method, request.target) == (b"POST", b"/events")
    assert request.headers[b"content-type"] == b"application/x-ndjson"
    assert request.headers[b"x-test"] == b"1"
    assert json.loads(request.body) == {"topics": ["a", "b"], "data": '{"n":1}', **given}


def test_an_event_replaces_and_removes(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    published = answer("201 Created", b'{"ids": ["x-1"]}')
    server.play(published, published)
    ask(server.url, lambda client: client.publish("a", 1, key="7"))
    ask(server.url, lambda client: client.remove("a", "7", type="left"))
    assert [json.loads(request.body) for request in server.requests] == [
        {"topics": ["a"], "data": "1", "key": "7"},
        {"topics": ["a"], "data": "7", "type": "left", "key": "7", "removed": True},
    ]


def test_a_token_goes_with_each_request(server: ScriptedServer) -> None:
    made = iter(["a", "b"])
    published = answer("201 Created", b'{"ids": ["1"]}')
    server.play(published, published, published)
    with Client(server.url, token=lambda: next(made)) as client:
        client.publish("t", 1)
        client.publish("t", 1)

    async def run() -> None:
        async with AsyncClient(server.url, token="c") as client:
            await client.publish("t", 1)

    asyncio.run(run())
    assert [request.headers[b"authorization"] for request in server.requests] == [b"Bearer a", b"Bearer b", b"Bearer c"]


def test_several_events_go_in_one_request(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(answer("201 Created", b'{"ids": ["1", "2"]}'))
    events = [Event("one", ("t",)), Event("t\nwo", ("t",))]
    assert ask(server.url, lambda client: client.publish_many(events)) == ["1", "2"]
    lines = server.requests[0].body.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"topics": ["t"], "data": "one"},
        {"topics": ["t"], "data": "t\nwo"},
    ]


def test_statistics_are_what_the_hub_says(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(answer("200 OK", b'{"pool": {"size": 2}, "uptime": 1.5}'))
    assert ask(server.url, lambda client: client.stats()) == {"pool": {"size": 2}, "uptime": 1.5}
    assert server.requests[0].target == b"/pool"


def test_topics_are_asked_for_page_by_page(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    page = {"topics": [{"topic": "a"}], "next": "a", "missing": []}
    server.play(answer("200 OK", json.dumps(page).encode()))
    assert ask(server.url, lambda client: client.topics(limit=1, after="0&1")) == page
    assert server.requests[0].target == b"/topics?limit=1&after=0%261"


def test_a_drain_is_ordered(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(answer("202 Accepted", b'{"draining": true, "seconds": 2.5}'))
    assert ask(server.url, lambda client: client.drain(2.5)) is None
    request = server.requests[0]
    assert (request.method, request.target) == (b"POST", b"/pool/drain")
    assert request.headers[b"content-type"] == b"application/json"
    assert json.loads(request.body) == {"seconds": 2.5}


def test_a_drain_that_is_refused_is_an_error(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(answer("503 No", b'{"error": {"code": "pool_closed", "message": "draining"}}'))
    with pytest.raises(Refused, match=r"^draining$") as refused:
        ask(server.url, lambda client: client.drain())
    assert refused.value.code == "pool_closed"


def test_a_refusal_carries_the_hubs_message(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(answer("413 Too Large", b'{"error": {"code": "event_too_large", "message": "2 MiB"}}'))
    with pytest.raises(Refused, match=r"^2 MiB$") as refused:
        ask(server.url, lambda client: client.publish("t", "x"))
    assert (refused.value.status, refused.value.code) == (413, "event_too_large")


def test_a_publication_is_not_redirected(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    # A 301 would make a GET of it, and that is a stream without end.
    server.play(answer("301 Moved", b"", "Location: /there\r\n"), b"")
    with pytest.raises(Refused, match="answered 301 Moved Permanently"):
        ask(server.url, lambda client: client.publish("t", "x"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"{}", b'{"ids": [1]}', b"\xff"])
def test_the_answer_of_somebody_else_is_an_error(
    server: ScriptedServer, ask: Callable[[str, Call], Any], content: bytes
) -> None:
    server.play(answer("201 Created", content))
    with pytest.raises(ClientError, match="is not that of a hub"):
        ask(server.url, lambda client: client.publish("t", "x"))


def test_a_broken_connection_is_an_error(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.play(b"")
    with pytest.raises(Unreachable, match=f"the connection to {server.url} broke"):
        ask(server.url, lambda client: client.publish("t", "x"))


def test_nobody_there_is_an_error_with_the_url(server: ScriptedServer, ask: Callable[[str, Call], Any]) -> None:
    server.stop()
    with pytest.raises(Unreachable, match=f"no hub answers at {server.url}: "):
        ask(server.url, lambda client: client.stats())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda client: client.publish("t", "x", id="a b"), InvalidEvent),
        (lambda client: client.publish("t", "x", type="ssepool.x"), InvalidEvent),
        (lambda client: client.publish("", "x"), InvalidTopic),
    ],
)
def test_a_bad_event_is_not_even_sent(
    server: ScriptedServer, ask: Callable[[str, Call], Any], call: Call, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(server.url, call)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "localhost:8000", "ftp://x", "http://", "http://x:y"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_bad_url_is_an_error_that_shows_it(url: str, kind: Callable[[str], object]) -> None:
    with pytest.raises(
        ClientError, match=f"^{re.escape(repr(url))} is not the URL of a hub; it takes one like http://"
    ):
        kind(url)


def test_a_missing_library_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ClientError, match=re.escape("pip install 'ssepool[client]'")):
        Client()


@given(sizes=st.lists(st.integers(0, 300), max_size=40), most_events=st.integers(1, 10), most_bytes=st.integers(1, 700))
def test_batches_keep_order_and_bounds_and_are_as_few_as_can_be(
    sizes: list[int], most_events: int, most_bytes: int
) -> None:
    events = [Event("x" * size, ("t",), id=f"e-{index}") for index, size in enumerate(sizes)]
    made = list(batches(events, most_events, most_bytes))
    assert [event for batch in made for event in batch] == events
    for batch, after in zip_longest(made, made[1:]):
        assert batch
        assert len(batch) <= most_events
        assert len(batch) == 1 or len(body(batch)) <= most_bytes
        if after:
            assert len(batch) == most_events or len(body([*batch, after[0]])) > most_bytes


def test_a_batch_is_made_as_soon_as_it_is_full() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield Event("x", ("t",))

    assert len(next(batches(endless(), 3))) == 3
    assert taken == 4


def test_an_encoded_event_is_one_line() -> None:
    assert encode(Event("a\nb\r\u2028", ("t",))).count(b"\n") == 1
