"""No single request of 64 KiB or less holds the hub for more than 50 ms, or makes it grow by more than 10 MB."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from attacking import sent, suffer
from live import LiveServer, serve

SIZE = 64 * 1024
MAX_HELD_MILLISECONDS = 50.0
MAX_GROWN_MEGABYTES = 10.0

HOST = b"Host: 127.0.0.1\r\n"


def post(body: bytes, kind: bytes = b"application/json", path: bytes = b"/events") -> bytes:
    fields = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + fields + body


def get(target: str, *headers: bytes) -> bytes:
    return b"GET " + target.encode() + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


def filled(unit: bytes, size: int = SIZE - 1024) -> bytes:
    return unit * (size // len(unit))


CHUNKED = b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
NDJSON = b"application/x-ndjson"
FORM = b"application/x-www-form-urlencoded"

ATTACKS: dict[str, bytes] = {
    "trailers": CHUNKED + b"0\r\n" + filled(b"a:\r\n"),
    "one trailer without end": CHUNKED + b"0\r\na: " + filled(b"x"),
    "an extension of a chunk": CHUNKED + b"1;" + filled(b"x"),
    "chunks of a byte": CHUNKED + filled(b"1\r\n \r\n") + b"0\r\n\r\n",
    "pipelined requests": filled(b"GET / HTTP/1.1\r\n\r\n"),
    "pipelined subscriptions": filled(get("/events?topic=a")),
    "pipelined publishes": filled(post(b'{"topic":"a","data":""}')),
    "headers": b"GET /health/live HTTP/1.1\r\n" + HOST + filled(b"a: b\r\n") + b"\r\n",
    "one header": b"GET /health/live HTTP/1.1\r\n" + HOST + b"a: " + filled(b"x") + b"\r\n\r\n",
    "a long target": get("/" + "x" * (SIZE - 1024)),
    "a long query": get("/events?" + "topic=a&" * 7000),
    "many topics": get("/events?" + "&".join(f"topic={number}" for number in range(700))),
    "escapes": get("/events?topic=" + "%41" * 2600),
    "ten regular expressions": get("/events?" + "&".join(f"pattern=({'%5Cw' * 30}){number}" for number in range(10))),
    "ten patterns of many groups": get(
        "/events?" + "&".join("pattern=" + "/".join(f":g{number}x{n}" for n in range(30)) for number in range(10))
    ),
    "patterns of a client that has everything": get(
        "/events?" + "&".join(f"pattern=:x{number}/*" for number in range(10)), b"Last-Event-ID: ssepool.completed"
    ),
    "a million slots": post(b'{"size":1000000}', path=b"/pool").replace(b"POST", b"PATCH", 1),
    "data nested deep": get("/events?topic=a&data=" + quote("[" * 2000)),
    "a last id": get("/events?topic=a", b"Last-Event-ID: " + filled(b"9")),
    "topics of an event": post(b'{"data":"","topics":[' + filled(b'"a",') + b'"a"]}'),
    "different topics of an event": post(
        b'{"data":"","topics":[' + b",".join(b'"%d"' % number for number in range(8000)) + b"]}"
    ),
    "empty events": post(filled(b'{"topic":"a","data":""}\n'), NDJSON),
    "events of new topics": post(b"\n".join(b'{"topic":"%d","data":""}' % n for n in range(2300)), NDJSON),
    "an array of nothing": post(b"[" + filled(b"0,") + b"0]"),
    "arrays nested deep": post(filled(b"[")),
    "objects nested deep": post(filled(b'{"a":')),
    "data nested deep in an event": post(
        b'{"topic":"a","data":' + filled(b"[", SIZE // 2 - 1024) + filled(b"]", SIZE // 2 - 1024) + b"}"
    ),
    "a number of many digits": post(b'{"topic":"a","data":' + filled(b"9") + b"}"),
    "unknown fields": post(b"{" + filled(b'"a":1,') + b'"b":1}'),
    "a form of many fields": post(filled(b"a=b&"), FORM),
    "a form of many topics": post(filled(b"topic=a&") + b"data=x", FORM),
    "a form of escapes": post(b"topic=a&data=" + filled(b"%41"), FORM),
    "blank lines": post(filled(b"\n"), NDJSON),
    "a media type": post(b"{}", b"application/" + filled(b"x")),
    "a drain of many digits": post(b'{"seconds":' + filled(b"9", 1000) + b"}", path=b"/pool/drain"),
    "a token": post(b"{}", path=b"/connections/a-0-0/messages?token=" + filled(b"x", 7000)),
    "an id of a connection": get("/connections/" + "9" * 60_000),
    "a job": post(b'{"tab":"' + filled(b"x", 900) + b'"}', path=b"/demo/jobs"),
}


@pytest.fixture(scope="module", params=["detached", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=100, max_size=10_000) as server:
        yield server


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_one_request_harms_nobody(server: LiveServer, attack: bytes) -> None:
    assert len(attack) <= SIZE
    worst = suffer(server, sent(attack))
    print(worst)
    assert worst.held <= MAX_HELD_MILLISECONDS
    assert worst.grown <= MAX_GROWN_MEGABYTES
    assert server.process.poll() is None
