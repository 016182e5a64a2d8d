from __future__ import annotations

from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ssepool.http.errors import APIError
from ssepool.http.query import MAX_QUERY_BYTES, QueryLimit, number, pairs_of, read_query, seconds


def request(query: str) -> Request:
    return Request({"type": "http", "method": "GET", "query_string": query.encode(), "headers": []})


def test_parameters_come_by_name_and_empty_values_count() -> None:
    assert read_query(request("b=2&a="), "a", "b", "c") == {"a": "", "b": "2"}


def test_a_repeatable_parameter_may_come_again() -> None:
    assert read_query(request("a=1&a=2"), repeatable=("a",)) == {"a": "1"}


@pytest.mark.parametrize(
    ("query", "allowed", "message"),
    [
        ("x=1", (), "unknown query parameter 'x'; it takes none"),
        ("a=1&topik=1", ("a", "topic"), "unknown query parameter 'topik'; it takes a, topic"),
        ("a=1&a=1", ("a",), "'a' is given more than once"),
    ],
)
def test_an_unknown_or_doubled_parameter_is_refused(query: str, allowed: tuple[str, ...], message: str) -> None:
    with pytest.raises(APIError) as caught:
        read_query(request(query), *allowed)
    assert caught.value.status_code == 400
    assert message in caught.value.detail


@pytest.mark.parametrize("text", ["1", "10", "007"])
def test_a_whole_number_in_range_is_taken(text: str) -> None:
    assert number("n", text, minimum=1, maximum=10) == int(text)


@pytest.mark.parametrize("text", ["", "0", "11", "-1", "+1", "1.0", "1e1", " 1", "1\n", "\u0661", "9" * 5000])
def test_anything_but_a_whole_number_in_range_is_refused(text: str) -> None:
    with pytest.raises(APIError, match="it takes a whole number from 1 to 10"):
        number("n", text, minimum=1, maximum=10)


@pytest.mark.parametrize("text", ["", "10.1", "-1", "nan", "inf", "1e1", ".5", "1_0", "9" * 5000])
def test_anything_but_seconds_in_range_is_refused(text: str) -> None:
    with pytest.raises(APIError, match="it takes seconds from 0 to 10"):
        seconds("n", text, maximum=10)


def test_seconds_may_have_a_fraction() -> None:
    assert [seconds("n", text, maximum=10) for text in ("0", "1.5", "10")] == [0, 1.5, 10]


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.mark.parametrize(("size", "status"), [(MAX_QUERY_BYTES, 200), (MAX_QUERY_BYTES + 1, 414)])
async def test_a_query_string_is_bounded(size: int, status: int) -> None:
    app = QueryLimit(Starlette(routes=[Route("/", hello)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as http:
        answer = await http.get("/?a=" + "x" * (size - 2))
    assert answer.status_code == status
    if status == 414:
        assert answer.json()["error"]["code"] == "query_too_long"
        assert str(MAX_QUERY_BYTES) in answer.json()["error"]["message"]


async def test_what_is_within_bounds_is_passed_on_untouched() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, receive, send])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    for scope in ({"type": "http", "query_string": b"a=1"}, {"type": "lifespan"}):
        seen.clear()
        await QueryLimit(app)(scope, receive, send)
        assert [id(item) for item in seen] == [id(scope), id(receive), id(send)]


@given(st.text(st.sampled_from("ab=&;+%2F-_~.")))
def test_pairs_are_those_of_the_standard_library(text: str) -> None:
    try:
        expected = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        with pytest.raises(ValueError):
            pairs_of(text)
    else:
        assert pairs_of(text) == expected
