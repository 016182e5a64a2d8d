"""Request bodies, read straight from an ASGI `receive` so that every chunk is the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from ssepool.http.body import MIN_BYTES_PER_SECOND, decode, media_type, seconds_for
from ssepool.http.body import read_body as reading
from ssepool.http.budget import Budget
from ssepool.http.depth import MAX_CONTAINERS
from ssepool.http.errors import APIError
from virtual import in_virtual_time


class Source:
    """What a server would hand to `receive`: chunks, then nothing, a disconnect or the end of the body."""

    def __init__(self, chunks: Iterable[bytes], then: str = "end") -> None:
        self.chunks = list(chunks)
        self.then = then
        self.taken = 0

    async def __call__(self) -> Message:
        if self.taken < len(self.chunks):
            self.taken += 1
            more = self.taken < len(self.chunks) or self.then != "end"
            return {"type": "http.request", "body": self.chunks[self.taken - 1], "more_body": more}
        if self.then == "disconnect":
            return {"type": "http.disconnect"}
        return await asyncio.Future()


def request(source: Source, http_version: str = "1.1", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/events", "query_string": b"", "headers": raw}
    return Request({**scope, "http_version": http_version}, source)


async def read_body(request: Request, max_bytes: int, budget: Budget | None = None) -> bytes:
    async with reading(request, max_bytes, budget or Budget()) as body:
        return body


async def test_a_body_in_chunks_is_put_together() -> None:
    assert await read_body(request(Source([b"ab", b"", b"c"])), 3) == b"abc"


async def test_a_declared_length_over_the_bound_is_refused_before_anything_is_read() -> None:
    source = Source([b"x" * 11])
    with pytest.raises(APIError) as caught:
        await read_body(request(source, content_length="11"), 10)
    assert (caught.value.status_code, caught.value.code, source.taken) == (413, "body_too_large", 0)
    assert "10 bytes" in caught.value.detail


@pytest.mark.parametrize("declared", ["9" * 5000, "1" + "0" * 30])
async def test_an_absurd_declared_length_is_refused(declared: str) -> None:
    with pytest.raises(APIError, match="exceeds 10 bytes"):
        await read_body(request(Source([]), content_length=declared), 10)


@pytest.mark.parametrize("declared", ["", "abc", "-5", "\u00b2"])
async def test_a_declared_length_that_is_no_number_is_not_relied_on(declared: str) -> None:
    assert await read_body(request(Source([b"abc"]), content_length=declared), 10) == b"abc"


async def test_received_bytes_over_the_bound_are_refused_at_once() -> None:
    source = Source([b"x" * 6] * 100)
    with pytest.raises(APIError) as caught:
        await read_body(request(source), 10)
    assert (caught.value.status_code, source.taken) == (413, 2)


async def test_a_refused_upload_ends_the_connection_where_the_protocol_can_say_so() -> None:
    for version, headers in (("1.1", {"Connection": "close"}), ("2", {})):
        with pytest.raises(APIError) as caught:
            await read_body(request(Source([b"xx"]), version), 1)
        assert dict(caught.value.headers or {}) == headers


async def test_a_client_that_leaves_half_way_is_told_apart_from_one_that_is_done() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(request(Source([b"ab"], then="disconnect"), content_length="4"), 10)


class Slow:
    """A client that sends `size` bytes, `chunk` of them every `pause` seconds, and then nothing."""

    def __init__(self, size: int, *, chunk: int = 1, pause: float) -> None:
        self.left = size
        self.chunk = chunk
        self.pause = pause

    async def __call__(self) -> Message:
        await asyncio.sleep(self.pause)
        if not self.left:
            return await asyncio.Future()
        part = min(self.chunk, self.left)
        self.left -= part
        return {"type": "http.request", "body": b"x" * part, "more_body": True}


async def refused_after(source: Slow, max_bytes: int, **headers: str) -> tuple[float, str]:
    """The seconds after which a client that is too slow is refused, and why."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(APIError) as caught:
        await read_body(request(source, **headers), max_bytes)
    assert (caught.value.status_code, caught.value.code) == (408, "request_timeout")
    assert dict(caught.value.headers or {}) == {"Connection": "close"}
    return loop.time() - began, caught.value.detail


@in_virtual_time
async def test_a_client_that_sends_a_byte_now_and_then_does_not_get_more_time_for_each() -> None:
    seconds, why = await refused_after(Slow(1000, pause=25), 1000)
    assert seconds == pytest.approx(30, abs=0.1)
    assert "1 bytes of the body came in 30 s" in why


@in_virtual_time
async def test_a_declared_length_gives_the_time_that_it_takes() -> None:
    size = 10 * MIN_BYTES_PER_SECOND
    seconds, why = await refused_after(Slow(1000, pause=25), size, content_length=str(size))
    assert seconds == seconds_for(size) == 40
    assert "1 bytes of the body came in 40 s" in why


@in_virtual_time
async def test_a_body_without_a_declared_length_has_the_time_for_what_has_come() -> None:
    slow = Slow(1000 * MIN_BYTES_PER_SECOND, chunk=MIN_BYTES_PER_SECOND // 2, pause=1)
    seconds, _ = await refused_after(slow, 1000 * MIN_BYTES_PER_SECOND)
    assert seconds == pytest.approx(60, abs=1)  # which 60 chunks of half a second's bytes take, less 30 s


@in_virtual_time
async def test_a_large_body_at_a_fair_pace_is_taken() -> None:
    pace, size = 2 * MIN_BYTES_PER_SECOND, 200 * MIN_BYTES_PER_SECOND
    for headers in ({}, {"content_length": str(size)}):
        slow = Slow(size, chunk=pace, pause=1)

        async def receive(slow: Slow = slow) -> Message:
            return {**await slow(), "more_body": slow.left > 0}

        async with reading(request(receive, **headers), size, Budget()) as body:  # type: ignore[arg-type]
            assert len(body) == size


async def test_bodies_under_way_share_a_budget() -> None:
    budget = Budget(10)
    async with reading(request(Source([b"x" * 3, b"x" * 3])), 10, budget):
        assert budget.taken == 6
        source = Source([b"x" * 4, b"x", b"x"])
        with pytest.raises(APIError) as caught:
            await read_body(request(source), 10, budget)
        assert (caught.value.status_code, caught.value.code, source.taken) == (503, "too_many_bodies", 2)
        assert caught.value.headers == {"Retry-After": "5", "Connection": "close"}
        assert budget.taken == 6
        assert await read_body(request(Source([b"x" * 4])), 10, budget) == b"xxxx"
    assert budget.taken == 0


async def test_a_declared_length_alone_takes_nothing_of_the_budget() -> None:
    budget = Budget(10)
    waiting = asyncio.ensure_future(read_body(request(Source([], then="silence"), content_length="10"), 10, budget))
    await asyncio.sleep(0)
    assert await read_body(request(Source([b"x" * 10])), 10, budget) == b"x" * 10
    waiting.cancel()


@in_virtual_time
async def test_a_body_gives_its_share_back_however_it_ends() -> None:
    budget = Budget()
    with pytest.raises(ClientDisconnect):
        await read_body(request(Source([b"ab"], then="disconnect")), 10, budget)
    with pytest.raises(APIError, match="exceeds"):
        await read_body(request(Source([b"ab"] * 10)), 10, budget)
    with pytest.raises(APIError, match="2 bytes of the body came"):
        await read_body(request(Source([b"ab"], then="silence")), 10, budget)
    with pytest.raises(ZeroDivisionError):
        async with reading(request(Source([b"ab"])), 10, budget):
            raise ZeroDivisionError
    cut = asyncio.ensure_future(read_body(request(Source([b"ab"], then="silence")), 10, budget))
    await asyncio.sleep(0)
    assert budget.taken == 2
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    assert budget.taken == 0


@pytest.mark.parametrize(
    "given",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_a_media_type_is_known_however_it_is_written(given: str) -> None:
    assert media_type(request(Source([]), content_type=given), "application/json") == "application/json"


@pytest.mark.parametrize("given", ["", "text/plain", "application/json; charset=latin-1", "application/jsonp", ";"])
def test_another_media_type_or_charset_is_refused_with_what_is_taken(given: str) -> None:
    with pytest.raises(APIError, match="it takes application/json, a/b, in UTF-8") as caught:
        media_type(request(Source([]), content_type=given), "application/json", "a/b")
    assert caught.value.status_code == 415


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(APIError, match="'gzip'") as caught:
        media_type(request(Source([]), content_type="a/b", content_encoding="gzip"), "a/b")
    assert caught.value.status_code == 415


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    size: int
    names: tuple[str, ...] = ()
    type: str | None = None


THINGS: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Thing | list[Thing])


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (b"", "invalid_json", "thing is not JSON"),
        (b'{"size": 1', "invalid_json", "thing is not JSON"),
        (b'{"size": 1} 2', "invalid_json", "thing is not JSON"),
        (b'{"type": "\xff", "size": 1}', "invalid_json", "thing is not JSON"),
        (b'{"type": "\\ud800", "size": 1}', "invalid_json", "thing is not JSON"),
        (b"[" * 100_000, "invalid_json", "thing is nested too deep"),
        (b"7", "invalid_value", "thing is a whole number; it takes an object or an array"),
        (b'{"size": true}', "invalid_value", "thing.size is true or false; it takes a whole number"),
        (b'{"size": 1.5}', "invalid_value", "thing.size is a number; it takes a whole number"),
        (b"{}", "invalid_value", "thing.size is missing"),
        (b'[{"size": 1}, {}]', "invalid_value", "things[1].size is missing"),
        (
            b'[{"size": 1, "names": ["a", 1]}]',
            "invalid_value",
            "things[0].names[1] is a whole number; it takes a string",
        ),
        (b'[{"size": 1, "type": []}]', "invalid_value", "things[0].type is an array; it takes a string or null"),
        (b'{"size": 1, "sise": 1}', "unknown_field", "thing has the unknown field 'sise'; it takes size, names, type"),
        (b'[{"a` - at `$[7]": 1}]', "unknown_field", "things[0] has the unknown field 'a` - at `$[7]'"),
        (b'{"size": 1e999}', "invalid_value", "thing.size"),
    ],
)
def test_an_error_of_the_decoder_names_the_place_and_what_is_allowed(text: bytes, code: str, message: str) -> None:
    with pytest.raises(APIError) as caught:
        decode(THINGS, text, root="thing", code="invalid_value", fields=Thing.__struct_fields__)
    assert (caught.value.status_code, caught.value.code) == (400, code)
    assert caught.value.detail.startswith(message)


def test_json_nested_too_deep_is_refused() -> None:
    anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
    with pytest.raises(APIError, match="too deep"):
        decode(anything, b"[" * 100_000, root="it", code="invalid_value")


def test_json_of_too_many_arrays_is_refused_before_they_are_made() -> None:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
    for inside, allowed in (("[]", False), ('"[]"', True)):
        body = b"[" + b",".join([inside.encode()] * MAX_CONTAINERS) + b"]"
        with contextlib.nullcontext() if allowed else pytest.raises(APIError, match="more than 500000 arrays"):
            decode(decoder, body, root="it", code="invalid_value")


def test_a_message_does_not_repeat_a_long_name_whole() -> None:
    with pytest.raises(APIError) as caught:
        decode(THINGS, b'{"' + b"x" * 100_000 + b'": 1}', root="thing", code="invalid_value")
    assert len(caught.value.detail) < 300
