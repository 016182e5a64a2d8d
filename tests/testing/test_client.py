"""The client of `ssepool.testing`: applications with a hub and without, through ASGI and over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar
from litestar import get as litestar_get
from litestar.response import ServerSentEvent
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from ssepool import AccessConfig, Hub, HubConfig
from ssepool.testing import ANY, Received, Stream, assert_all_slots_free, stream, virtual_clock

WAYS = pytest.mark.parametrize("way", ["asgi", "socket"])


async def three() -> AsyncIterator[bytes]:
    for number in range(3):
        yield f"id: {number}\nevent: tick\ndata: {number}\n\n".encode()
        await asyncio.sleep(0)


async def for_ever(request: Any) -> StreamingResponse:
    async def numbers() -> AsyncIterator[bytes]:
        number = int(request.headers.get("last-event-id", -1))
        while True:
            number += 1
            yield f"id: {number}\ndata: {number}\n\n".encode()
            await asyncio.sleep(0.001)

    return StreamingResponse(numbers(), media_type="text/event-stream")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    async for frame in three():
        await send({"type": "http.response.body", "body": frame, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def starlette_stream(request: Any) -> StreamingResponse:
    return StreamingResponse(three(), media_type="text/event-stream")


async def starlette_sse(request: Any) -> EventSourceResponse:
    async def ticks() -> AsyncIterator[dict[str, str]]:
        for number in range(3):
            yield {"id": str(number), "event": "tick", "data": str(number)}

    return EventSourceResponse(ticks())


@litestar_get("/")
async def litestar_stream() -> ServerSentEvent:
    async def ticks() -> AsyncIterator[dict[str, str]]:
        for number in range(3):
            yield {"id": str(number), "event": "tick", "data": str(number)}

    return ServerSentEvent(ticks())


KINDS: dict[str, Any] = {
    "function": lambda: plain,
    "starlette": lambda: Starlette(routes=[Route("/", starlette_stream)]),
    "sse-starlette": lambda: Starlette(routes=[Route("/", starlette_sse)]),
    "litestar": lambda: Litestar([litestar_stream]),
}


@pytest.mark.parametrize("kind", KINDS)
@WAYS
async def test_any_application_that_streams(kind: str, way: Any) -> None:
    async with stream(KINDS[kind](), "/", way=way) as s:
        assert s.status == 200
        assert s.headers["content-type"].startswith("text/event-stream")
        for number in range(3):
            event = await s.expect("tick", number, id=str(number))
            assert (event.type, event.data, event.json) == ("tick", str(number), number)
        assert await s.expect_end() == "complete"
        assert s.event_id == "2"


@WAYS
async def test_each_event_is_there_when_it_is_sent_and_not_with_the_end(way: Any) -> None:
    async with stream(Starlette(routes=[Route("/", for_ever)]), "/", way=way) as s:
        assert [(await s.next()).data for _ in range(5)] == ["0", "1", "2", "3", "4"]
        await s.drop()
        last = int(s.event_id)  # also what came and was not read
        await s.resume()
        while int((await s.next()).data) <= last:
            pass
        assert isinstance(s.came[-1], Received)
        assert s.came[-1].data == str(last + 1)


def hub_for_all() -> Hub:
    return Hub(HubConfig(access=AccessConfig(public_topics=("*",))))


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with hub_for_all() as hub:
        yield hub
        await assert_all_slots_free(hub)


async def failing(s: Stream, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        await s.expect(*arguments, **options)
    return str(caught.value)


async def test_what_is_wrong_is_told(hub: Hub) -> None:
    async with virtual_clock(), stream(hub.app, "/events?topic=a") as s:
        await hub.publish("a", {"euro": 1}, type="price", id="first")
        await hub.publish("a", {"euro": 2}, type="price", id="second")
        await s.expect("price", {"euro": ANY}, id="first")
        said = await failing(s, "cost", {"euro": 2})
        assert said.startswith("expected the event 'cost' with the data {'euro': 2}, but what came is\n")
        assert '    price {"euro":2} (id second)\nbefore came:\n    ssepool.open {' in said
        assert said.endswith('\n    price {"euro":1} (id first)')
        assert "has not come within 5 virtual s; before came:" in await failing(s, "price")
        with pytest.raises(AssertionError, match="expected the end of the stream, but it has not come"):
            await s.expect_end()
        await hub.publish("a", "late")
        with pytest.raises(AssertionError, match="expected nothing, but what came is\n    message late"):
            await s.expect_nothing()
        hub.drain(1)
        with pytest.raises(AssertionError, match="with the reason 'kicked', but its reason is 'drained'"):
            await s.expect_end("kicked")
        assert "the stream has ended (cut, reason 'drained')" in await failing(s)


async def test_the_hubs_own_events_are_passed_over_unless_one_is_asked_for(hub: Hub) -> None:
    async with stream(hub.app, "/events?topic=a") as s:
        opened = await s.expect("ssepool.open")
        assert opened.json["connection"] == await s.connection_id()
    async with stream(hub.app, "/events?topic=a") as s:
        await hub.publish("a", "x")
        assert (await s.next()).data == "x"
        assert [str(item).partition(" ")[0] for item in s.came] == ["ssepool.open", "message"]


async def test_an_answer_that_is_no_stream_is_told_with_what_it_says(hub: Hub) -> None:
    async with stream(hub.app, "/nothing") as s:
        assert s.status == 404
        assert "not_found" in await s.text()
        assert "/nothing answered 404 with application/json: " in await failing(s)
        with pytest.raises(AssertionError, match="answered 404: a browser does not come back"):
            await s.resume()


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("a broken view")


async def fails_later(request: Any) -> StreamingResponse:
    async def broken() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        raise LookupError("a broken generator")

    return StreamingResponse(broken(), media_type="text/event-stream")


@WAYS
async def test_what_the_application_raises_is_raised_in_the_test(way: Any) -> None:
    app = Starlette(routes=[Route("/", fails_later), Route("/500", fails)])
    with pytest.raises(LookupError, match="a broken generator"):
        async with stream(app, "/", way=way) as s:
            await s.expect(data="1")
            await s.next()
    with pytest.raises(LookupError, match="a broken generator"):
        async with stream(app, "/", way=way) as s:
            await s.expect(data="1")  # and looks no further
    async with stream(app, "/500", way=way, raise_errors=False) as s:
        assert s.status == 500


async def test_an_application_without_an_answer_is_told() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    with pytest.raises(AssertionError, match="/x: the application returned without an answer"):
        async with stream(silent, "/x"):
            pass


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_application_that_does_not_see_its_client_leave_is_cancelled(
    stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssepool.testing.asgi.CANCEL_SECONDS", 0.02)
    cancelled = asyncio.Event()
    free = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()
            if stubborn:
                await free.wait()

    async def visit() -> None:
        async with stream(app, "/"):
            pass

    if stubborn:
        with pytest.raises(AssertionError, match=r"goes on 0\.02 s after its client left"):
            await visit()
        free.set()
    else:
        await visit()
    assert cancelled.is_set()


@WAYS
async def test_requests_are_sent_as_they_are_asked_for(way: Any) -> None:
    async def echo(request: Any) -> PlainTextResponse:
        fields = [request.headers.get(name) for name in ("x-own", "last-event-id", "accept")]
        asked, body = f"{request.method} {request.scope['path']} {request.url.query}", await request.body()
        return PlainTextResponse(f"{asked} {fields} {body!r}")

    app = Starlette(routes=[Route("/a b/{c}", echo, methods=["GET", "POST", "QUERY"])])
    async with stream(app, "/a%20b/%C3%BC?x=1&x=2", headers={"X-Own": "1"}, last_event_id="é", way=way) as s:
        assert await s.text() == "GET /a b/ü x=1&x=2 ['1', 'Ã©', 'text/event-stream'] b''"
    async with stream(app, "/a%20b/c", json={"a": 1}, way=way) as s:
        assert await s.text() == "POST /a b/c  [None, None, 'text/event-stream'] b'{\"a\": 1}'"
    async with stream(app, "/a%20b/c", method="QUERY", body=b"topics", way=way) as s:
        assert (await s.text()).startswith("QUERY /a b/c")


@WAYS
async def test_iteration_ends_with_the_stream(way: Any) -> None:
    async with stream(plain, "/", way=way) as s:
        assert [event.data async for event in s] == ["0", "1", "2"]


async def test_who_does_not_read_holds_an_endless_application_up() -> None:
    async with stream(Starlette(routes=[Route("/", for_ever)]), "/") as s:
        s.pause()
        before = s.event_id
        for _ in range(100):
            await asyncio.sleep(0)
        assert s.event_id == before
        s.go_on()
        while s.event_id == before:
            await asyncio.sleep(0)
