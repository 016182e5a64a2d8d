"""QUERY and POST of /events: a subscription in a body, and parameters that count for nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from live import DEADLINE, PATHS, LiveServer, serve
from ssepool import Hub, HubConfig
from ssepool.config import IGNORED_PARAMETERS
from ssepool.errors import ConfigError, InvalidTopic
from ssepool.http.errors import APIError
from ssepool.http.query import Ignored
from ssepool.http.wish import MAX_WISH_BYTES, asks_for_stream, read_body_wish, read_subscription

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
STREAM = {"Accept": "text/event-stream"}


def wish_of(body: Any, kind: str = JSON) -> Any:
    given = json.dumps(body) if kind == JSON else urlencode(body, doseq=True)
    return read_body_wish(kind, given.encode(), allow_regexp=False)


def test_both_bodies_ask_for_the_same() -> None:
    given = {"topics": ["a", "b"], "patterns": ["c/*"], "last_event_id": "e-1", "data": {"x": [1]}}
    form = {"topic": ["a", "b"], "pattern": "c/*", "last_event_id": "e-0", "lastEventId": "e-1", "data": '{"x":[1]}'}
    assert wish_of(given) == wish_of(form, FORM)
    assert wish_of(given).last_event_id == "e-1"
    assert wish_of({"topics": ["a"]}).data is None


REFUSED: list[tuple[Any, str, str]] = [
    ({"topic": "a", "data": 1}, JSON, "the subscription has the unknown field 'topic'; it takes topics, patterns"),
    ({"topics": "a"}, JSON, "the subscription.topics is a string; it takes an array"),
    ([], JSON, "the subscription is an array"),
    ({"topics": ["a"], "data": "x" * 3000}, JSON, "data has 3002 bytes"),
    ({"topics": ["a"], "data": json.loads("[" * 33 + "]" * 33)}, JSON, "nested"),
    ({"patterns": ["a"] * 11}, JSON, "11 patterns"),
    ({"patterns": ["(a)"]}, JSON, "allow_regexp is off"),
    ({"topic": "a", "ticket": "x"}, FORM, "no parameter 'ticket'; a form takes topic, pattern"),
]


@pytest.mark.parametrize(("body", "kind", "message"), REFUSED)
def test_a_body_that_is_not_well_formed_is_refused_by_name(body: Any, kind: str, message: str) -> None:
    with pytest.raises(APIError) as caught:
        wish_of(body, kind)
    assert caught.value.status_code == 400
    assert message in caught.value.detail


def test_a_body_without_a_topic_asks_for_nothing() -> None:
    with pytest.raises(InvalidTopic):
        wish_of({})


ACCEPTS = {
    "text/event-stream": True,
    "Text/Event-Stream, */*": True,
    "application/json, text/event-stream;q=0.5": True,
    "*/*": False,
    "": False,
}


@pytest.mark.parametrize(("accept", "stream"), ACCEPTS.items())
def test_a_post_is_for_a_stream_if_it_says_so(accept: str, stream: bool) -> None:
    assert asks_for_stream("POST", [(b"host", b"a"), (b"accept", accept.encode())]) is stream
    assert asks_for_stream("QUERY", [])


# Parameters that count for nothing.


@pytest.mark.parametrize("name", ["_", "datastar", "utm_source", "evs_preamble", "org.htmx.cache-buster", "fbclid"])
def test_what_libraries_add_is_ignored(name: str) -> None:
    ignored = Ignored(IGNORED_PARAMETERS)
    found = read_subscription(f"topic=a&{name}=1".encode(), allow_regexp=False, ignored=ignored)
    assert found["topic"] == ["a"]


@pytest.mark.parametrize("name", ["topik", "__", "utm", "datastar2", "", "_x"])
def test_what_nobody_adds_is_refused_by_name(name: str) -> None:
    with pytest.raises(APIError, match=f"no parameter '{name}'; GET /events takes topic, pattern"):
        read_subscription(f"topic=a&{name}=1".encode(), allow_regexp=False, ignored=Ignored(IGNORED_PARAMETERS))


def test_a_parameter_of_the_hub_is_never_ignored() -> None:
    found = read_subscription(b"topic=a", allow_regexp=False, ignored=Ignored(["topic", "*"]))
    assert found["topic"] == ["a"]


def test_a_star_stands_at_the_end() -> None:
    assert HubConfig(ignore_parameters=("*",))
    with pytest.raises(ConfigError, match="as utm_"):
        HubConfig(ignore_parameters=("a*b",))


async def test_they_are_ignored_wherever_there_is_a_query() -> None:
    async with (
        Hub(HubConfig(ignore_parameters=("extra", "_"))) as hub,
        httpx.AsyncClient(transport=httpx.ASGITransport(hub.dev_app), base_url="http://hub") as http,
    ):
        assert (await http.get("/pool?_=1&extra=2")).status_code == 200
        assert (await http.get("/connections?limit=1&_=1")).status_code == 200
        event = {"topic": "a", "data": "x"}
        assert (await http.post("/events?_=1", json=event)).status_code == 201
        refused = await http.post("/events?utm_source=1", json=event)
        assert (refused.status_code, "'utm_source'; it takes none" in refused.text) == (400, True)


# Streams, on each way.


@pytest.fixture(scope="module", params=[*PATHS, "uvicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=10, allow_origins=["https://page.example"]) as server:
        yield server


@pytest.mark.parametrize("kind", [JSON, FORM])
@pytest.mark.parametrize("method", ["QUERY", "POST"])
def test_a_body_opens_a_stream_with_replay_and_live(server: LiveServer, method: str, kind: str) -> None:
    topic = f"{method}/{kind}"
    old = server.publish(topic, "seen")
    server.publish(topic, "missed")
    # The body is as it was when the page was loaded; the header is of the reconnection.
    wish = {"topics": [topic], "last_event_id": "earliest"}
    body = json.dumps(wish) if kind == JSON else urlencode({"topic": topic, "last_event_id": "earliest"})
    headers = {**STREAM, "Content-Type": kind, "Last-Event-ID": old}
    with (
        httpx.Client(timeout=DEADLINE) as client,
        client.stream(method, f"{server.url}/events?_=1", content=body, headers=headers) as stream,
    ):
        assert stream.status_code == 200
        assert stream.headers["incremental"] == "?1"
        data = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
        assert "connection" in next(data)
        assert next(data) == "missed"
        server.publish(topic, "live")
        assert next(data) == "live"
    server.wait_pool(open=0)


def test_get_takes_the_last_id_of_its_query_and_ignores_what_was_added(server: LiveServer) -> None:
    ids = [server.publish("last", str(number)) for number in range(4)]
    query = f"topic=last&last_event_id={ids[0]}&_=1&lastEventId={ids[2]}&datastar=%7B%7D"
    with (
        httpx.Client(timeout=DEADLINE) as client,
        client.stream("GET", f"{server.url}/events?{query}", headers={"Last-Event-ID": ""}) as stream,
    ):
        data = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
        assert "connection" in next(data)
        assert next(data) == "3"
    server.wait_pool(open=0)


REFUSALS: list[tuple[str, str, dict[str, str], bytes, int]] = [
    ("QUERY", "", {}, b'{"topics":["a"]}', 400),
    ("QUERY", "", {"Content-Type": "text/plain"}, b'{"topics":["a"]}', 415),
    ("QUERY", "", {"Content-Type": JSON}, b"{}", 400),
    ("QUERY", "", {"Content-Type": JSON}, b"[", 400),
    ("QUERY", "?topic=a", {"Content-Type": JSON}, b'{"topics":["a"]}', 400),
    ("QUERY", "", {"Content-Type": JSON}, b" " * (MAX_WISH_BYTES + 1), 413),
    ("POST", "", {"Content-Type": JSON, **STREAM}, b'{"topic":"a","data":1}', 400),
    ("POST", "", {"Content-Type": FORM, "Origin": "https://evil.example", **STREAM}, b"topic=a", 403),
    ("PUT", "", {"Content-Type": JSON}, b"{}", 405),
]


@pytest.mark.parametrize(("method", "query", "headers", "body", "status"), REFUSALS)
def test_a_wrong_request_is_told_what_is_right(
    server: LiveServer, method: str, query: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    answer = httpx.request(method, f"{server.url}/events{query}", headers=headers, content=body)
    assert (answer.status_code, "error" in answer.json()) == (status, True)
    if status in (405, 415) or (status == 400 and not headers):
        assert answer.headers["accept-query"] == f"{JSON}, {FORM}"
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST, QUERY"


def test_options_tells_what_may_be_asked(server: LiveServer) -> None:
    answer = httpx.request("OPTIONS", f"{server.url}/events")
    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST, QUERY"
    assert answer.headers["accept-query"] == f"{JSON}, {FORM}"


@pytest.mark.parametrize("method", ["GET", "QUERY", "POST"])
def test_a_page_of_an_allowed_site_may_ask_in_each_way(server: LiveServer, method: str) -> None:
    page = {"Origin": "https://page.example"}
    asked = "authorization,content-type,last-event-id"
    ask = {**page, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": asked}
    answer = httpx.request("OPTIONS", f"{server.url}/events", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == page["Origin"]
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    assert answer.headers["access-control-allow-headers"] == asked
    body = None if method == "GET" else {"topics": ["a"]}
    query = "?topic=a" if method == "GET" else ""
    with httpx.stream(method, f"{server.url}/events{query}", headers={**page, **STREAM}, json=body) as stream:
        assert stream.status_code == 200
        assert stream.headers["access-control-allow-origin"] == page["Origin"]
    server.wait_pool(open=0)
