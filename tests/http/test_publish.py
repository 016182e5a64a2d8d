"""POST /events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
from starlette.types import Message

from parts import open_app
from ssepool import Hub

Subscribe = Callable[..., Awaitable[Any]]

JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"


async def post(http: httpx.AsyncClient, body: str | bytes | object, kind: str = JSON) -> httpx.Response:
    content = body if isinstance(body, (str, bytes)) else msgspec.json.encode(body)
    return await http.post("/events", content=content, headers={"Content-Type": kind})


async def refused(
    http: httpx.AsyncClient, hub: Hub, body: str | bytes | object, kind: str = JSON
) -> tuple[int, str, str]:
    """Status, code and message of a refusal, of which nothing may have been published."""
    answer = await post(http, body, kind)
    assert hub.stats().events_published == 0
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


async def test_one_event_gets_one_id(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    answer = await post(http, {"topic": "a", "data": "hello", "type": "greeting"})
    assert answer.status_code == 201
    [id] = answer.json()["ids"]
    event = await stream.next("greeting")
    assert (event.data, event.id) == ("hello", id)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('"two\\nlines"', "two\nlines"),
        ('"\\u00e4 \\ud83d\\ude00"', "\u00e4 \U0001f600"),
        ('{ "a" : [1, 2.5, true, null, "\u00e4"] }', '{ "a" : [1, 2.5, true, null, "\u00e4"] }'),
        ("null", "null"),
        ("12345678901234567890123", "12345678901234567890123"),
        ('""', ""),
    ],
)
async def test_data_is_any_json_and_a_string_goes_as_it_is(
    http: httpx.AsyncClient, subscribe: Subscribe, data: str, text: str
) -> None:
    stream = await subscribe("topic=a")
    assert (await post(http, f'{{"topic": "a", "type": "t", "data": {data}}}')).status_code == 201
    assert (await stream.next("t")).data == text


KEPT = [
    "1.10",
    "123456789.123456789123",
    "-0",
    "-0.0",
    "1E+2",
    "1e999",
    "123456789012345678901234567890",
    '{"z":1,"a":2,"m":{"y":1.0,"b":[]}}',
    '{"a":1,"a":2}',
    r'["\u00e4","\/","\u003c/script\u003e",{"\u0061":"\ud83d\ude00"}]',
    '{ "spaced" : [ 1.50 ,\t2 ] }',
]
"""JSON that comes out as it went in."""


@pytest.mark.parametrize("way", ["plain", "route", "batch", "lines"])
async def test_json_keeps_its_bytes(hub: Hub, http: httpx.AsyncClient, subscribe: Subscribe, way: str) -> None:
    stream = await subscribe("topic=a")
    events = [f'{{"topic":"a","type":"t","data": {data} }}' for data in KEPT]
    if way == "plain":
        for event in events:
            answer = open_app(hub).shortcuts.publication(
                b"/events", [(b"content-type", b"application/json")], event.encode()
            )
            assert answer is not None
    elif way == "route":
        for event in events:
            assert (await post(http, event)).status_code == 201
    else:
        body, kind = (f"[{','.join(events)}]", JSON) if way == "batch" else ("\n".join(events), NDJSON)
        assert (await post(http, body, kind)).status_code == 201
    assert [(await stream.next("t")).data for _ in KEPT] == KEPT


@pytest.mark.parametrize(
    "data", [b'"\xff"', b'["\xff"]', b'{"\xff":1}', b'["\\ud800"]', b"[01]", b'["\t"]', b"NaN", b"[1,]"]
)
async def test_data_that_is_no_json_in_utf_8_is_refused(http: httpx.AsyncClient, hub: Hub, data: bytes) -> None:
    status, code, message = await refused(http, hub, b'{"topic":"a","data":' + data + b"}")
    assert (status, code) == (400, "invalid_json")
    assert "is not JSON in UTF-8" in message


async def test_a_batch_keeps_its_order(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    answer = await post(http, [{"topic": "a", "data": str(number)} for number in range(1200)])
    events = [await stream.next() for _ in range(1200)]
    assert [event.data for event in events] == [str(number) for number in range(1200)]
    assert [event.id for event in events] == answer.json()["ids"]


async def test_lines_are_events_and_blank_ones_are_not(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    body = '\n{"topic": "a", "data": 0}\r\n  \n{"topic": "a", "data": 1}\n\r\n{"topic": "a", "data": 2}'
    answer = await post(http, body, NDJSON)
    assert len(answer.json()["ids"]) == 3
    assert [(await stream.next()).data for _ in range(3)] == ["0", "1", "2"]


async def test_a_chosen_id_and_retry_reach_the_client(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    answer = await post(http, {"topic": "a", "data": "", "id": "mine-1", "retry": 2500, "type": "t"})
    assert answer.json() == {"ids": ["mine-1"]}
    assert (await stream.next("t")).id == "mine-1"


async def test_an_event_goes_to_each_of_its_topics_once(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    both, one = await subscribe("topic=a&topic=b"), await subscribe("topic=b")
    await post(http, [{"topics": ["a", "b"], "data": "1"}, {"topic": "b", "data": "2"}])
    for stream in (both, one):
        assert [(await stream.next()).data for _ in range(2)] == ["1", "2"]


async def test_null_counts_as_not_given(http: httpx.AsyncClient) -> None:
    event = {"topic": "a", "topics": None, "data": None, "type": None, "id": None, "retry": None}
    assert (await post(http, event)).status_code == 201


async def test_a_form_publishes(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=b")
    body = "topic=a&topic=b&data=x+%26+y%0Az&type=note&id=&retry=1000&private=off"
    answer = await post(http, body, FORM)
    assert answer.status_code == 201
    assert (await stream.next("note")).data == "x & y\nz"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("topic=a", "invalid_event", "event.data is missing"),
        ("", "invalid_event", "event.data is missing"),
        ("data=x", "invalid_event", "event.topic is missing"),
        ("topic=&data=x", "invalid_topic", "event.topic '' is empty"),
        ("topic=a&data=x&data=y", "invalid_event", "event.data is given more than once"),
        ("topic=a&data=x&colour=red", "unknown_field", "the unknown field 'colour'; it takes topic, data, type"),
        ("topic=a&data=x&private=perhaps", "invalid_event", "event.private is 'perhaps'; it takes true or false"),
        ("topic=a&data=x&retry=soon", "invalid_event", "event.retry is 'soon'; it takes milliseconds"),
        ("topic=a&data=x&retry=%D9%A1", "invalid_event", "event.retry"),
        ("topic=a&data=%FF", "invalid_form", "not a form in UTF-8"),
        (b"topic=a&data=\xff", "invalid_form", "not a form in UTF-8"),
        ("topic=a&data", "invalid_form", "not a form"),
        ("topic=a&" * 1001 + "data=x", "invalid_form", "fields"),
        ('{"topic":"a","data":"x=y"}', "unknown_field", "send Content-Type: application/json"),
        ("topic=a&data=x&id=a+b", "invalid_event", "event.id 'a b'"),
    ],
)
async def test_a_bad_form_is_refused(
    http: httpx.AsyncClient, hub: Hub, body: str | bytes, code: str, message: str
) -> None:
    status, found, text = await refused(http, hub, body, FORM)
    assert (status, found) == (400, code)
    assert message in text


GOOD = {"topic": "a", "data": "x"}


@pytest.mark.parametrize("kind", [JSON, NDJSON])
@pytest.mark.parametrize(
    ("bad", "status", "code", "message"),
    [
        ({**GOOD, "id": "a b"}, 400, "invalid_event", "events[2].id 'a b' is not allowed"),
        ({**GOOD, "id": "x" * 129}, 400, "invalid_event", "events[2].id"),
        ({**GOOD, "id": ""}, 400, "invalid_event", "events[2].id"),
        ({**GOOD, "id": 7}, 400, "invalid_event", "events[2].id is a whole number; it takes a string or null"),
        ({**GOOD, "type": "a\nb"}, 400, "invalid_event", "events[2].type"),
        ({**GOOD, "type": "ssepool.open"}, 400, "invalid_event", "events[2].type 'ssepool.open'"),
        ({**GOOD, "retry": -1}, 400, "invalid_event", "events[2].retry -1"),
        ({**GOOD, "retry": True}, 400, "invalid_event", "events[2].retry is true or false"),
        ({**GOOD, "private": 1}, 400, "invalid_event", "events[2].private is a whole number; it takes true or false"),
        ({**GOOD, "topics": ["b"]}, 400, "invalid_event", "events[2].topics is there beside topic"),
        ({"data": "x"}, 400, "invalid_event", "events[2].topic is missing"),
        ({"topics": [], "data": "x"}, 400, "invalid_event", "events[2].topics is empty"),
        ({"topics": ["a", 1], "data": "x"}, 400, "invalid_event", "events[2].topics[1] is a whole number"),
        ({"topic": "a/../b", "data": "x"}, 400, "invalid_topic", "events[2].topic 'a/../b'"),
        ({"topic": "", "data": "x"}, 400, "invalid_topic", "events[2].topic ''"),
        ({"topic": "ssepool/pool", "data": "x"}, 403, "forbidden_topic", "events[2].topic 'ssepool/pool'"),
        ({"topics": ["a", "ssepool/x"], "data": "x"}, 403, "forbidden_topic", "events[2].topic 'ssepool/x'"),
        ({"topic": "a"}, 400, "invalid_event", "events[2].data is missing"),
        (
            {**GOOD, "event": "x"},
            400,
            "unknown_field",
            "events[2] has the unknown field 'event'; it takes topic, topics",
        ),
        ("x", 400, "invalid_event", "events[2] is a string; it takes an object"),
        ([], 400, "invalid_event", "events[2] is an array; it takes an object"),
        ({**GOOD, "data": "x" * 2000}, 413, "event_too_large", "events[2]"),
    ],
)
async def test_one_bad_event_of_a_batch_is_named_and_nothing_is_published(
    http: httpx.AsyncClient, hub: Hub, kind: str, bad: object, status: int, code: str, message: str
) -> None:
    batch = [GOOD, GOOD, bad, GOOD]
    body = batch if kind == JSON else b"\n".join(msgspec.json.encode(event) for event in batch)
    found_status, found_code, text = await refused(http, hub, body, kind)
    assert (found_status, found_code) == (status, code)
    assert message in text


async def test_the_index_counts_through_a_long_batch(http: httpx.AsyncClient, hub: Hub) -> None:
    batch = [GOOD] * 1234 + [{**GOOD, "id": "a b"}]
    assert "events[1234].id" in (await refused(http, hub, batch))[2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"topic": "a", "data": 1}\n{"topic": "a", "data": \n{"topic": "a", "data": 1}', "events[1] is not JSON"),
        ('{"topic": "a", "data": 1}\n\n{"topic": "a"} {"data": 1}', "events[1]"),
        ('{"topic": "a", "data": 1} {"topic": "a", "data": 2}', "events[0] is not JSON"),
        ('{"topic": "a",\n "data": 1}', "events[0] is not JSON"),
        (b'{"topic": "a", "data": 1}\n{"topic": "a", "data": "\xff"}', "events[1].data is not JSON in UTF-8"),
        ('[{"topic": "a", "data": 1}]', "events[0] is an array; it takes an object"),
    ],
)
async def test_a_line_must_be_one_event(http: httpx.AsyncClient, hub: Hub, body: str | bytes, message: str) -> None:
    status, _, text = await refused(http, hub, body, NDJSON)
    assert status == 400
    assert message in text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ('{"topic": "a", "data": 1}}', "invalid_json"),
        ("[" * 50_000, "invalid_json"),
        ('{"topic": "a", "data": ' + "[" * 50_000, "invalid_json"),
        (b'{"topic": "a", "data": "\xff"}', "invalid_json"),
        ('{"topic": "a", "data": "\\ud800"}', "invalid_json"),
        ('{"topic": "a", "data": NaN}', "invalid_json"),
        ("7", "invalid_event"),
        ("[]", "invalid_event"),
    ],
)
async def test_a_body_that_is_no_json_or_no_event_is_refused(
    http: httpx.AsyncClient, hub: Hub, body: str | bytes, code: str
) -> None:
    status, found, _ = await refused(http, hub, body)
    assert (status, found) == (400, code)


@pytest.mark.parametrize("body", ["", "\n", " \r\n\n"])
async def test_lines_without_an_event_are_refused(http: httpx.AsyncClient, hub: Hub, body: str) -> None:
    status, code, text = await refused(http, hub, body, NDJSON)
    assert (status, code) == (400, "invalid_event")
    assert "at least one event" in text


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "", "application/json; charset=latin-1"]
)
async def test_another_content_type_is_refused(http: httpx.AsyncClient, hub: Hub, kind: str) -> None:
    status, code, text = await refused(http, hub, GOOD, kind)
    assert (status, code) == (415, "unsupported_media_type")
    assert JSON in text and NDJSON in text and FORM in text


async def test_a_body_over_the_bound_is_refused(http: httpx.AsyncClient, hub: Hub) -> None:
    status, code, text = await refused(http, hub, [GOOD] * 5000)
    assert (status, code) == (413, "body_too_large")
    assert "100000 bytes" in text


async def test_query_parameters_are_refused(http: httpx.AsyncClient, hub: Hub) -> None:
    answer = await http.post("/events?topic=a", json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


async def test_a_hub_that_is_closed_publishes_nothing(http: httpx.AsyncClient, hub: Hub) -> None:
    await hub.close()
    assert (await post(http, GOOD)).status_code == 503


async def test_a_publisher_that_leaves_half_way_publishes_nothing(hub: Hub) -> None:
    left: list[Message] = [
        {"type": "http.request", "body": b'{"topic": "a", "data": 1}\n', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return left.pop(0)

    async def send(message: Message) -> None:
        pass  # as servers do with what comes after a disconnect

    scope = {"type": "http", "method": "POST", "path": "/events", "query_string": b"", "http_version": "1.1"}
    await hub.dev_app({**scope, "headers": [(b"content-type", NDJSON.encode())]}, receive, send)
    assert hub.stats().events_published == 0


# Keys.


def form(**fields: str) -> str:
    return urlencode(fields)


@pytest.mark.parametrize(
    ("bodies", "kind"),
    [
        (('{"topic": "t", "key": "7", "data": 1}', '{"topic": "t", "key": "7", "removed": true}'), JSON),
        (('[{"topic": "t", "key": "7", "data": 1}, {"topics": ["t"], "key": "7", "removed": true}]',), JSON),
        (('{"topic": "t", "key": "7", "data": 1}\n{"topic": "t", "key": "7", "removed": true}\n',), NDJSON),
        ((form(topic="t", key="7", data="1", removed=""), form(topic="t", key="7", removed="on")), FORM),
    ],
)
async def test_an_event_replaces_and_removes(
    http: httpx.AsyncClient, hub: Hub, subscribe: Subscribe, bodies: tuple[str, ...], kind: str
) -> None:
    stream = await subscribe("topic=t")
    for body in bodies:
        answer = await post(http, body, kind)
        assert answer.status_code == 201, answer.text
    assert (await stream.next("message")).data == "1"
    assert (await stream.next("removed")).data == "7"
    [left] = hub.parts.engine.log.window.read(0, max_entries=9)
    assert (left.key, left.removed) == ("7", True)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"topic": "t", "key": "", "data": 1}, JSON, "event.key '' is empty; it takes 1 to 256"),
        ([{"topic": "t", "key": "a\n", "data": 1}], JSON, "events[0].key 'a\\n' is not allowed: U+000A"),
        ({"topic": "t", "key": 7, "data": 1}, JSON, "event.key"),
        ({"topic": "t", "key": ["7"], "data": 1}, JSON, "event.key"),
        ([GOOD, {"topic": "t", "key": "k" * 257, "data": 1}], JSON, "events[1].key"),
        ([GOOD, {"topic": "t", "key": "7", "removed": "yes"}], JSON, "events[1].removed"),
        ([GOOD, {"topic": "t", "key": "7", "removed": None}], JSON, "events[1].removed"),
        ([GOOD, {"topic": "t", "removed": True}], JSON, "events[1].removed needs a key"),
        ('{"topic": "t", "data": 1}\n{"topic": "t", "key": "7", "removed": 1}', NDJSON, "events[1].removed"),
        (form(topic="t", key="k" * 257, data="1"), FORM, "event.key"),
        ({"topic": "t", "removed": True}, JSON, "event.removed needs a key"),
        ({"topic": "t", "key": "7", "removed": 1}, JSON, "event.removed"),
        ({"topic": "t", "key": "7"}, JSON, "event.data is missing"),
        (form(topic="t", key="7"), FORM, "event.data is missing"),
        (form(topic="t", key="7", removed="maybe"), FORM, "event.removed is 'maybe'; it takes true or false"),
        (form(topic="t", removed="on"), FORM, "event.removed needs a key"),
    ],
)
async def test_a_bad_key_is_refused(http: httpx.AsyncClient, hub: Hub, body: Any, kind: str, message: str) -> None:
    status, code, found = await refused(http, hub, body, kind)
    assert (status, code) == (400, "invalid_event")
    assert found.startswith(message)
