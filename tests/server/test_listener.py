"""Listener: what it recognises, and that everything else is served all the same."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from live import LiveServer, Stream, serve, wait_for
from ssepool.core.pool import Pool
from ssepool.runtime.handover import AVAILABLE
from ssepool.server.listener import Listener, subscription_scope
from ssepool.server.proxies import TrustedProxies

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="sockets are detached on Linux only")

HOST = b"Host: x\r\n"
PLAIN = b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n"

NOT_RECOGNISED = {
    "unfinished": PLAIN[:-2],
    "another method": PLAIN.replace(b"GET", b"HEAD", 1),
    "HTTP/1.0": PLAIN.replace(b"1.1", b"1.0", 1),
    "two requests": PLAIN + PLAIN,
    "with a body": PLAIN.replace(HOST, HOST + b"Content-Length: 0\r\n"),
    "chunked": PLAIN.replace(HOST, HOST + b"Transfer-Encoding: chunked\r\n"),
    "an upgrade": PLAIN.replace(HOST, HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
    "expecting 100": PLAIN.replace(HOST, HOST + b"Expect: 100-continue\r\n"),
    "not HTTP": b"GET\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01",
}


def test_a_plain_get_is_recognised() -> None:
    scope = subscription_scope(PLAIN, ("127.0.0.1", 5))
    assert scope is not None
    assert (scope["path"], scope["query_string"], scope["client"]) == ("/events", b"topic=a", ("127.0.0.1", 5))
    assert (b"accept", b"text/event-stream") in scope["headers"]


@pytest.mark.parametrize("data", NOT_RECOGNISED.values(), ids=NOT_RECOGNISED)
def test_all_else_is_not(data: bytes) -> None:
    assert subscription_scope(data, ("127.0.0.1", 5)) is None


@pytest.fixture(scope="module")
def server() -> Any:
    with serve("detached", size=20) as server:
        yield server


ODD = {
    "absolute form": (b"GET http://x/events?topic=a HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "HTTP/1.0": (NOT_RECOGNISED["HTTP/1.0"], 200),
    "no host": (b"GET /events?topic=a HTTP/1.1\r\n\r\n", 200),
    "empty lines first": (b"\r\n\r\n" + PLAIN, 200),
    "two requests": (PLAIN + PLAIN, 200),
    "bytes in the path": (PLAIN.replace(b"/events", b"/\xc3\xa9vents"), 400),
    "bytes that are not UTF-8": (PLAIN.replace(b"topic=a", b"topic=%ff"), 400),
    "no topic": (PLAIN.replace(b"?topic=a", b""), 400),
    "data without end": (PLAIN.replace(b"topic=a", b"topic=a&data=" + b"[" * 2000), 400),
    "another path": (PLAIN.replace(b"/events", b"/nothing"), 404),
}


@pytest.mark.parametrize(("request_", "status"), ODD.values(), ids=ODD)
def test_odd_requests_are_answered(server: LiveServer, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as client:
        client.sendall(request_)
        assert client.recv(12) == b"HTTP/1.1 %d" % status
    server.wait_pool(open=0)


def test_a_request_in_single_bytes_is_served(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PLAIN:
            client.sendall(bytes([byte]))
        assert client.recv(12) == b"HTTP/1.1 200"
    server.wait_pool(open=0)


def test_clients_that_say_nothing_and_leave_cost_nothing(server: LiveServer) -> None:
    before = server.descriptors()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    with Stream(server, "a") as stream:
        stream.opened()
    for client in silent:
        client.close()
    server.wait_pool(open=0)
    wait_for(lambda: server.descriptors() <= before, what=f"{before} descriptors")


@pytest.fixture
async def broken() -> AsyncIterator[tuple[str, int]]:
    """The address of a listener that fails at every request that it is to admit."""

    def fail(scope: Any, take: Any) -> bool:
        raise RuntimeError("on purpose")

    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    address = sock.getsockname()
    listener = Listener(
        sock,
        admit=fail,
        hand_on=lambda conn, data: conn.close(),
        head_timeout=5.0,
        proxies=TrustedProxies(()),
        pool=Pool(),
        now=time.monotonic,
    )
    yield address
    listener.close()


async def test_a_defect_costs_one_client_and_not_the_listener(
    broken: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "ssepool"):
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*broken)
            writer.write(PLAIN)
            assert await asyncio.wait_for(reader.read(), 15) == b""
            writer.close()
            await writer.wait_closed()
    assert len(caplog.records) == 2
