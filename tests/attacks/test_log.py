"""What a stranger can have the server log: a few lines a second, and nothing as it was written."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from live import LiveServer, serve, wait_for

REQUESTS = 1000
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
SEVERAL = 100
"""Times that each of `SHAPES` is sent."""


def get(target: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n"


def post(path: bytes, fields: bytes, body: bytes, method: bytes = b"POST") -> bytes:
    return get(path, fields + b"Content-Length: %d\r\n" % len(body), method) + body


SHAPES: dict[str, bytes] = {
    "no HTTP": b"\x00 bad\r\n\r\n",
    "an escape in the target": get(b"/events?topic=\x1b[2J"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": get(b"a:1", method=b"CONNECT"),
    "a URL that is none": get(b"http://["),
    "a path that is no UTF-8": get(b"/%ff%fe?%ff"),
    "a path with line ends": get(b"/%0d%0aWARNING:%20forged%1b[2J"),
    "a WebSocket": get(b"/events", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n"),
    "h2c": get(b"/pool", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n"),
    "an unknown coding": get(b"/events", JSON + b"Transfer-Encoding: gzip, chunked\r\n", b"POST") + b"zz\r\n",
    "two lengths": get(b"/events", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"POST"),
    "fields that are no UTF-8": get(b"/pool", b"X-Forwarded-For: \xff\r\nAccept: \xff\r\nLast-Event-ID: \xff\r\n"),
    "an origin that is none": post(b"/events", JSON + b"Origin: http://[\r\n", b"{}"),
    "no host": b"GET /pool HTTP/1.1\r\n\r\n",
    "another's host": b"GET /pool HTTP/1.1\r\nHost: \x9b.example\r\n\r\n",
    "a range that is none": get(b"/ssepool.js", b"Range: bytes=9-1,-,x\r\n"),
    "a date that is none": get(b"/ssepool.js", b"If-Modified-Since: \xff\r\n"),
    "a way out of the folder": get(b"/web/../../../etc/passwd"),
    "numbers that are none": get(b"/connections?after=%00-9-9&limit=99999999999999999999"),
    "a kick": get(b"/connections/%ff-0-0?seconds=1e9", method=b"DELETE"),
    "a token": post(b"/connections/a-0-0/messages?token=%ff", JSON + b"Authorization: Bearer \xff\r\n", b"1"),
    "a media type": post(b"/events", b"Content-Type: \xff;charset=\xff\r\n", b"1"),
    "surrogates": post(b"/events", JSON, rb'{"topic":"\ud800","data":["\ud800"],"type":"\ud800"}'),
    "many digits": post(b"/events", JSON, b'{"topic":"a","data":' + b"9" * 5000 + b"}"),
    "infinity": post(b"/pool", JSON, b'{"size":1e400}', b"PATCH"),
    "no number": post(b"/pool/drain", JSON, b'{"seconds":NaN}'),
    "patterns that are none": get(b"/events?pattern=http://[&pattern=%00"),
    "a group twice": get(b"/events?pattern=:a:a"),
    "a form that is none": post(b"/events", b"Content-Type: application/x-www-form-urlencoded\r\n", b"a=%ff&\xff"),
    "what metrics are wanted as": get(
        b"/metrics", b"Accept: \xff;q=x, application/openmetrics-text;version=9;q=1e9\r\n"
    ),
    "half a body": get(b"/events", JSON + b"Content-Length: 10\r\n", b"POST") + b"{",
}


@pytest.fixture(scope="module", params=["detached", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=10) as server:
        yield server


def send(server: LiveServer, data: bytes, *, wait: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data)
        return client.recv(12) if wait else b""


def test_a_flood_of_bad_requests_is_a_few_lines(server: LiveServer) -> None:
    before, began = len(server.log), time.monotonic()

    def told() -> list[str]:
        # Another test may have had this second's line: then it comes with a request of the next one.
        assert send(server, SHAPES["no HTTP"]) == b"HTTP/1.1 400"
        return [line for line in server.log[before:] if "Invalid HTTP" in line]

    for _ in range(REQUESTS):
        told()
    lines = wait_for(told)
    assert len(lines) <= 2 + time.monotonic() - began


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_shape_is_a_few_lines_and_no_traceback(server: LiveServer, shape: bytes) -> None:
    before, began = len(server.log), time.monotonic()
    wait = shape != SHAPES["half a body"]
    for _ in range(SEVERAL):
        answer = send(server, shape, wait=wait)
        assert not wait or (answer.startswith(b"HTTP/1.1 ") and not answer.endswith(b"500")), answer
    seconds = time.monotonic() - began
    assert server.request("GET", "/health/live")[0] == 200
    lines = server.log[before:]
    assert len(lines) <= 4 + 2 * seconds, lines  # two texts at most, each once a second
    assert not any("Traceback" in line or "forged" in line for line in lines)
    assert "".join(lines).replace("\n", "").isprintable()
