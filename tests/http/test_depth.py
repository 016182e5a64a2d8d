"""How deep JSON is nested, however it is written, and that nothing deeper comes in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssepool import Hub
from ssepool.http.depth import LONG_BYTES, MAX_DEPTH, count_items, is_too_deep

Subscribe = Callable[..., Awaitable[Any]]


def nested(depth: int, inside: str = "") -> str:
    """JSON with arrays and objects in turn."""
    opening = ["[" if level % 2 else '{"a":' for level in range(depth - 1)]
    return "".join(opening) + f"[{inside}]" + "".join("]" if "[" in text else "}" for text in reversed(opening))


def measured(value: Any) -> int:
    """The depth of a value, the plain way."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(measured, value), default=0) if isinstance(value, list) else 0


texts = st.text(alphabet='[]{}"\\\\ab\\n', max_size=8)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=40,
)


@given(values, st.sampled_from([None, 1]))
def test_the_depth_is_that_of_the_value_whatever_its_texts_hold(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent).encode()
    depth = measured(value)
    for levels in range(MAX_DEPTH - depth - 1, MAX_DEPTH - depth + 2):
        # Around something that is too long for a first glance.
        wrapped = b"[" * levels + b"[" + text + b"," + b" " * LONG_BYTES + b"[],[],[],[],[]]" + b"]" * levels
        assert is_too_deep(wrapped) == (levels + 1 + max(depth, 1) > MAX_DEPTH)


@given(st.lists(values, max_size=8), st.sampled_from([None, 1]), st.integers(1, 10))
def test_the_arrays_and_objects_of_an_array_are_counted(items: list[Any], indent: int | None, most: int) -> None:
    count = sum(isinstance(item, (list, dict)) for item in items)
    assert count_items(json.dumps(items, indent=indent).encode(), most) == min(count, most)


@pytest.mark.parametrize(
    "text", [b"[" * 1_000_000, b'{"a":' * 100_000, b"[" * 40 + b"]" * 1_000_000, b"[{" * 40 + b"}]"]
)
def test_what_does_not_end_well_is_too_deep_as_well(text: bytes) -> None:
    assert is_too_deep(text)


@pytest.mark.parametrize(
    "text", [b"]" * 1_000_000, b"[" * 20 + b"]" * 1000, b'"' + b"[" * 1000, b"[{" * 16 + b" " * 99]
)
def test_what_is_not_well_formed_and_not_deep_is_left_to_the_parser(text: bytes) -> None:
    assert not is_too_deep(text)


FILLINGS = {
    "nothing": "",
    "brackets in a text": '"' + "[{" * 50 + '"',
    "escapes": json.dumps('\\"[' * 40),
    "many texts": ",".join(['"["'] * 50),
    "many shallow ones": ",".join(["0", *["0"] * 50]),
    "a long text": '"' + "x" * LONG_BYTES + '"',
}


@pytest.mark.parametrize("inside", FILLINGS.values(), ids=FILLINGS)
def test_what_is_nested_deeper_than_allowed_is_found(inside: str) -> None:
    for depth in (1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2, 200):
        text = nested(depth, inside)
        json.loads(text)
        assert is_too_deep(text.encode()) == (depth > MAX_DEPTH), depth


def test_what_is_wide_is_not_deep() -> None:
    assert not is_too_deep(b"[" + b",".join([b"[[],{}]"] * 10_000) + b"]")
    assert is_too_deep(b"[" + b",".join([b"[[],{}]"] * 10_000) + b"," + nested(MAX_DEPTH).encode() + b"]")


@pytest.mark.parametrize("form", ["one", "batch", "lines"])
@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 900, 40_000])
async def test_an_event_has_data_of_some_depth_at_most(
    http: httpx.AsyncClient, hub: Hub, form: str, depth: int
) -> None:
    good, event = '{"topic":"a","data":[]}', f'{{"topic":"a","data":{"[" * depth + "]" * depth}}}'
    body = {"one": event, "batch": f"[{good},{event}]", "lines": f"{good}\n{event}"}[form]
    kind = "application/x-ndjson" if form == "lines" else "application/json"
    headers = [(b"content-type", kind.encode())]
    if depth > MAX_DEPTH:
        assert hub.dev_app.shortcuts.publication(b"/events", headers, body.encode()) is None
    answer = await http.post("/events", content=body, headers={"Content-Type": kind})
    if depth == MAX_DEPTH:
        assert answer.status_code == 201
        return
    assert answer.status_code == 400
    assert hub.stats().events_published == 0
    error = answer.json()["error"]
    assert "is nested too deep; it takes 32 arrays and objects" in error["message"]
    if depth == MAX_DEPTH + 1:
        assert error["message"].startswith(
            {"one": "event.data", "batch": "events[1].data", "lines": "events[1].data"}[form]
        )


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 500, 965, 1000])
async def test_a_client_has_data_of_some_depth_at_most(
    http: httpx.AsyncClient, hub: Hub, subscribe: Subscribe, depth: int
) -> None:
    query = "topic=a&data=" + "[" * depth + "]" * depth
    if depth > MAX_DEPTH:
        answer = await http.get(f"/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_json"
        assert "data is nested too deep; it takes 32" in answer.json()["error"]["message"]
        return
    stream = await subscribe(query)
    assert (await http.get("/connections")).json()["connections"][0]["data"] == json.loads("[" * depth + "]" * depth)
    assert (await http.delete(f"/connections/{stream.id}")).status_code == 204


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 20_000])
async def test_a_message_has_some_depth_at_most(
    http: httpx.AsyncClient, hub: Hub, subscribe: Subscribe, depth: int
) -> None:
    heard: list[Any] = []
    hub.on_message(lambda connection, data: heard.append(data))
    stream = await subscribe("topic=a&data=" + quote("{}"))
    answer = await http.post(
        f"/connections/{stream.id}/messages?token={quote(stream.token)}",
        content="[" * depth + "]" * depth,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == (202 if depth == MAX_DEPTH else 400)
    assert len(heard) == (depth == MAX_DEPTH)
    if depth > MAX_DEPTH:
        assert "the body is nested too deep; it takes 32" in answer.json()["error"]["message"]
