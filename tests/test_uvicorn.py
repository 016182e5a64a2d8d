"""The protocol's answers without a task: which requests get one, in what order, and what is left to the application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ssepool.core.callers import Callers, Stage
from ssepool.runtime.entrance import Entrance
from ssepool.runtime.handover import ALONE, AVAILABLE, DETACH, MAX_UNSENT_BYTES
from ssepool.runtime.proxies import TrustedProxies
from ssepool.uvicorn import Protocol, protocol

HOST = b"Host: x\r\n"


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    fields = b"".join(field + b"\r\n" for field in headers)
    return b"POST /p HTTP/%b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (version, HOST, fields, len(body), body)


GET = b"GET /g HTTP/1.1\r\n" + HOST + b"\r\n"


class Side:
    """The two that can be asked. Bodies say who is to answer: `app...` is the application's alone."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        """Target and body of each request that the application was asked about."""
        self.go_on = asyncio.Event()
        """The application answers `app wait` when this is set."""
        self.protocols: list[Protocol] = []
        self.most = 100
        self.callers = Callers(lambda: self.most)

    def answer(self, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes, peer: Any) -> Any:
        assert (b"host", b"x") in headers
        if body == b"fail":
            raise RuntimeError("on purpose")
        return None if body.startswith(b"app") else (201, [(b"x-by", b"answer")], b"at once: " + body)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.asked.append((scope["path"].encode(), body))
        if body == b"app wait":
            await self.go_on.wait()
        content = b"in time: " + body
        length = (b"content-length", b"%d" % len(content))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
async def side() -> Side:
    return Side()


@pytest.fixture
async def address(side: Side) -> AsyncIterator[tuple[str, int]]:
    made = protocol(600.0, side.answer, Entrance(side.app, TrustedProxies(("127.0.0.1",)), side.callers))
    config = uvicorn.Config(
        side.app,
        interface="asgi3",
        http=made,
        lifespan="off",
        access_log=False,
        log_level="error",
        timeout_keep_alive=600,
    )
    config.load()
    state = ServerState()

    def make() -> Protocol:
        side.protocols.append(made(config=config, server_state=state, app_state={}))
        return side.protocols[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()
    for one in side.protocols:
        one.transport.close()


async def talk(side: Side, address: tuple[str, int], *packets: bytes, answers: int = 1) -> list[bytes]:
    """Have the protocol receive these packets, and return the bodies of so many answers."""
    reader, writer = await asyncio.open_connection(*address)
    port = writer.get_extra_info("sockname")[1]
    await until(lambda: any(one.client and one.client[1] == port for one in side.protocols))
    [made] = [one for one in side.protocols if one.client and one.client[1] == port]
    for packet in packets:
        made.data_received(packet)
    found = [await read_answer(reader) for _ in range(answers)]
    writer.close()
    return found


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(15):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return await reader.readexactly(int(length.partition(b":")[2]))


async def test_a_whole_request_is_answered_without_the_application(side: Side, address: tuple[str, int]) -> None:
    assert await talk(side, address, post(b"1"), post(b"2"), answers=2) == [b"at once: 1", b"at once: 2"]
    assert side.asked == []


async def test_what_gets_no_answer_goes_to_the_application(side: Side, address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    found = []
    for request in (post(b"app"), post(b"1"), GET, post(b"2")):
        writer.write(request)
        found.append(await read_answer(reader))
    writer.close()
    assert found == [b"in time: app", b"at once: 1", b"in time: ", b"at once: 2"]
    assert side.asked == [(b"/p", b"app"), (b"/g", b"")]


LEFT = {
    "HTTP/1.0": post(b"1", version=b"1.0"),
    "the last of a connection": post(b"1", b"Connection: close"),
    "waiting for 100": post(b"1", b"Expect: 100-continue"),
    "another method": post(b"1").replace(b"POST", b"PATCH"),
}


@pytest.mark.parametrize("request_", LEFT.values(), ids=LEFT)
async def test_unusual_requests_go_to_the_application(side: Side, address: tuple[str, int], request_: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request_)
    async with asyncio.timeout(15):
        assert await reader.readuntil(b"in time: 1")
    writer.close()
    assert side.asked == [(b"/p", b"1")]


async def test_a_request_in_pieces_is_one(side: Side, address: tuple[str, int]) -> None:
    whole = post(b"12345")
    head = whole.index(b"\r\n\r\n") + 4
    assert await talk(side, address, whole[:10], whole[10:]) == [b"at once: 12345"]
    assert await talk(side, address, whole[:head], whole[head:]) == [b"in time: 12345"]
    assert await talk(side, address, whole[:-2], whole[-2:]) == [b"in time: 12345"]
    assert await talk(side, address, *[whole[i : i + 1] for i in range(len(whole))]) == [b"in time: 12345"]


async def test_chunks_are_a_body_like_any_other(side: Side, address: tuple[str, int]) -> None:
    request = b"POST /p HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert await talk(side, address, request) == [b"at once: abc"]
    assert await talk(side, address, request.replace(b"ab", b"ap").replace(b"c\r\n0", b"p\r\n0")) == [b"in time: app"]


async def test_answers_to_pipelined_requests_keep_their_order(side: Side, address: tuple[str, int]) -> None:
    packet = post(b"1") + post(b"2") + GET + post(b"app") + post(b"3")
    expected = [b"at once: 1", b"in time: 2", b"in time: ", b"in time: app", b"in time: 3"]
    assert await talk(side, address, packet, answers=5) == expected


async def test_nobody_overtakes_a_request_that_waits(side: Side, address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(post(b"app wait"))
    await until(lambda: side.asked)
    writer.write(post(b"1"))
    await until(lambda: side.protocols[0].pipeline)
    side.go_on.set()
    assert [await read_answer(reader) for _ in range(2)] == [b"in time: app wait", b"in time: 1"]
    writer.write(post(b"2"))
    assert await read_answer(reader) == b"at once: 2"
    writer.close()


async def test_a_connection_is_kept_for_the_next_request_and_not_longer(side: Side, address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(post(b"1"))
    await read_answer(reader)
    [made] = side.protocols
    assert made.timeout_keep_alive_task is not None
    # A request behind it in the same packet must not be cut off by the time limit for idle connections.
    writer.write(post(b"2") + post(b"app wait"))
    await read_answer(reader)
    await until(lambda: side.asked)
    assert made.timeout_keep_alive_task is None
    side.go_on.set()
    await read_answer(reader)
    assert made.timeout_keep_alive_task is not None
    writer.close()


async def test_after_a_defect_nobody_is_asked_again(
    side: Side, address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    with caplog.at_level(logging.ERROR, "ssepool"):
        writer.write(post(b"fail"))
        async with asyncio.timeout(15):
            assert await reader.read() == b""
    assert "could not be answered" in caplog.text
    assert side.asked == []
    writer.close()


CHUNKED = b"POST /p HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

BLOATED = {
    "trailers": [CHUNKED + b"3\r\napp\r\n0\r\n" + b"a:\r\n" * 3000],
    "a trailer without end": [CHUNKED + b"3\r\napp\r\n0\r\na: ", *[b"x" * 1000] * 10],
    "an extension of a chunk without end": [CHUNKED + b"3;", *[b"x" * 1000] * 10],
}


@pytest.mark.parametrize("packets", BLOATED.values(), ids=BLOATED)
async def test_a_connection_that_sends_too_much_beside_its_bodies_is_ended(
    side: Side, address: tuple[str, int], packets: list[bytes]
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    for packet in packets:
        writer.write(packet)
        await asyncio.sleep(0)
    async with asyncio.timeout(15):
        answer = await reader.read()
    assert answer.split()[1] in (b"400", b"431")
    side.go_on.set()
    writer.close()


@pytest.mark.parametrize("rest", [GET * 200, b"GET / HTTP/3.0\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_a_refusal_is_not_taken_for_the_answer_to_the_request_before(
    side: Side, address: tuple[str, int], rest: bytes
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(post(b"app wait") + rest)
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    side.go_on.set()
    writer.close()


async def test_a_body_in_many_small_parts_is_taken(side: Side, address: tuple[str, int]) -> None:
    parts = [b"1;why=not\r\nx\r\n"] * 3000
    [answer] = await talk(side, address, CHUNKED + b"3\r\napp\r\n", *parts, b"0\r\n\r\n")
    assert answer == b"in time: app" + b"x" * 3000


async def test_a_trailer_does_not_get_among_the_headers(side: Side, address: tuple[str, int]) -> None:
    trailer = b"X-Forwarded-For: 10.9.9.9\r\nExpect: 100-continue\r\n"
    assert await talk(side, address, CHUNKED + b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n") == [b"at once: abc"]
    made = side.protocols[-1]
    assert b"x-forwarded-for" not in [name for name, _ in made.headers]
    assert not made.expect_100_continue


@pytest.mark.skipif(not AVAILABLE, reason="sockets cannot be taken over here")
@pytest.mark.parametrize("extension", [DETACH, ALONE])
async def test_a_socket_that_streams_has_the_kernels_bounds(
    side: Side, address: tuple[str, int], extension: str
) -> None:
    bounds: list[tuple[int, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sock = side.protocols[-1].transport.get_extra_info("socket")
        await receive()
        handover = scope["extensions"][extension](7.5)
        with socket.socket(fileno=os.dup(handover.fd if handover else sock.fileno())) as taken:
            options = (socket.TCP_USER_TIMEOUT, socket.TCP_NOTSENT_LOWAT)
            bounds.append(tuple(taken.getsockopt(socket.IPPROTO_TCP, option) for option in options))  # type: ignore[arg-type]
        if handover:
            os.close(handover.fd)
        else:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    side.protocols.clear()
    _, writer = await asyncio.open_connection(*address)
    await until(lambda: side.protocols)
    side.protocols[-1]._app = app
    writer.write(GET)
    await until(lambda: bounds)
    assert bounds == [(7500, MAX_UNSENT_BYTES)]
    writer.close()
    await writer.wait_closed()


# Room for others.

PARTS = {
    Stage.HEAD: [b"POST /p HTTP/1.1\r\nHost: x\r\nContent-"],
    Stage.BODY: [post(b"12345")[:-3]],
    Stage.ANSWER: [post(b"app wait")],
    Stage.IDLE: [post(b"1")],
}
"""What a connection sends to come to each stage."""
LAST_WORDS = {Stage.HEAD: b"503", Stage.BODY: b"503", Stage.ANSWER: b"", Stage.IDLE: b""}


async def staying(side: Side, address: tuple[str, int], stage: Stage) -> tuple[asyncio.StreamReader, Any]:
    """A connection that has come to a stage and sends no more."""
    before = len(side.protocols)
    reader, writer = await asyncio.open_connection(*address)
    for part in PARTS[stage]:
        writer.write(part)
    if stage is Stage.IDLE:
        await read_answer(reader)
    await until(lambda: len(side.protocols) > before and side.protocols[before].place.stage is stage)
    if stage is Stage.ANSWER:
        await until(lambda: side.asked)
    return reader, writer


@pytest.mark.parametrize("stage", Stage)
async def test_whoever_is_in_the_way_is_cut_off_with_a_word_where_nothing_was_done(
    side: Side, address: tuple[str, int], stage: Stage
) -> None:
    side.most = 1
    reader, writer = await staying(side, address, stage)
    _, other = await asyncio.open_connection(*address)
    async with asyncio.timeout(15):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    assert answer.split(b" ")[1:2] == ([LAST_WORDS[stage]] if LAST_WORDS[stage] else [])
    assert len(side.callers) == 1
    side.go_on.set()
    other.close()
    writer.close()
    await until(lambda: len(side.callers) == 0)


async def test_the_next_request_of_a_connection_counts_anew(side: Side, address: tuple[str, int]) -> None:
    side.most = 2
    first, writer = await staying(side, address, Stage.IDLE)
    second, other = await staying(side, address, Stage.IDLE)
    for one in side.protocols:
        one.place.is_fresh = False  # type: ignore[union-attr]
    writer.write(post(b"2"))
    assert await read_answer(first) == b"at once: 2"
    _, third = await asyncio.open_connection(*address)
    async with asyncio.timeout(15):
        assert await second.read() == b""
    for end in (writer, other, third):
        end.close()


async def test_a_body_that_comes_in_bytes_gets_no_younger(side: Side, address: tuple[str, int]) -> None:
    side.most = 2
    slow, writer = await staying(side, address, Stage.BODY)
    _, other = await staying(side, address, Stage.BODY)
    side.protocols[0].data_received(b"3")
    _, third = await asyncio.open_connection(*address)
    async with asyncio.timeout(15):
        assert (await slow.read()).split(b" ")[1] == b"503"
    for end in (writer, other, third):
        end.close()


ENDINGS = {
    "a refusal": b"\x00 bad\r\n\r\n",
    "an answer that closes": post(b"1", b"Connection: close"),
    "many requests in one packet": post(b"1") + GET + post(b"2", b"Connection: close"),
    "nothing": b"",
    "half a head": b"GET / HT",
}


@pytest.mark.parametrize("data", ENDINGS.values(), ids=ENDINGS)
async def test_who_has_left_counts_no_more_however_it_went(side: Side, address: tuple[str, int], data: bytes) -> None:
    _, writer = await asyncio.open_connection(*address)
    writer.write(data)
    await until(lambda: side.protocols)
    writer.close()
    await until(lambda: side.protocols[0].transport.is_closing() and len(side.callers) == 0)


@pytest.mark.skipif(not AVAILABLE, reason="sockets cannot be taken over here")
@pytest.mark.parametrize("extension", [DETACH, ALONE])
async def test_a_stream_is_no_caller(side: Side, address: tuple[str, int], extension: str) -> None:
    counts: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        counts.append(len(side.callers))
        handover = scope["extensions"][extension](7.5)
        counts.append(len(side.callers))
        await side.go_on.wait()
        if handover:
            os.close(handover.fd)
        else:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    _, writer = await asyncio.open_connection(*address)
    await until(lambda: side.protocols)
    side.protocols[-1]._app = app
    writer.write(GET)
    await until(lambda: len(counts) == 2)
    side.most = 1
    _, other = await asyncio.open_connection(*address)
    await until(lambda: len(side.protocols) == 2)
    assert (counts, side.callers.cut) == ([1, 0], 0)
    side.go_on.set()
    writer.close()
    other.close()
    await until(lambda: len(side.callers) == 0)


async def test_a_peer_that_is_gone_is_not_taken_for_a_proxy_without_an_address(
    side: Side, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.protocols.http.httptools_impl.get_remote_addr", lambda transport: None)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(post(b"1"))
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert side.asked == []
    writer.close()
