"""Requests byte by byte (RFC 9112): what each is answered, and whether its connection is kept for another. The same on
both ways in: the stand-alone server, and uvicorn with the protocol."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest

from live import DEADLINE, LiveServer, serve

HOST = b"Host: 127.0.0.1\r\n"
EVENT = b'{"topic":"a","data":"x"}'
CHUNKED = b"18\r\n" + EVENT + b"\r\n0\r\n\r\n"
LENGTH = b"Content-Length: 24"
CODED = b"Transfer-Encoding: chunked"
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def get(*fields: bytes, target: bytes = b"/health/live", version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    return b"GET %b HTTP/%b\r\n%b%b\r\n" % (target, version, host, b"".join(field + b"\r\n" for field in fields))


def post(*fields: bytes, body: bytes = EVENT, version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    head = b"".join(field + b"\r\n" for field in (b"Content-Type: application/json", *fields))
    return b"POST /events HTTP/%b\r\n%b%b\r\n%b" % (version, host, head, body)


def unread(request: bytes) -> bytes:
    """A request of which most of the body is still to come: what is sent next is a part of it."""
    return request.replace(b"Content-Length: 24", b"Content-Length: 5000")


KEPT: dict[str, tuple[bytes, int]] = {
    "a plain request": (post(LENGTH), 201),
    "a chunked body": (post(CODED, body=CHUNKED), 201),
    "a coding in capitals": (post(b"Transfer-Encoding: CHUNKED", body=CHUNKED), 201),
    "an empty line before": (b"\r\n" + get(), 200),
    "absolute form": (get(target=b"http://127.0.0.1/health/live"), 200),
    "a port": (get(host=b"Host: localhost:8000\r\n"), 200),
    "an address of IPv6": (get(host=b"Host: [::1]:8000\r\n"), 200),
    "another path": (get(target=b"/nothing"), 404),
    "another type, all of it": (post(LENGTH).replace(b"application/json", b"text/plain"), 415),
    "h2c with a body": (post(*H2C, LENGTH), 201),
    "h2c with a chunked body": (post(*H2C, CODED, body=CHUNKED), 201),
    "h2c without a body": (get(*H2C), 200),
    "an upgrade to what nobody knows": (post(b"Connection: upgrade", b"Upgrade: what/1", LENGTH), 201),
}
CLOSED: dict[str, tuple[bytes, int]] = {
    "no Host": (get(host=b""), 400),
    "no Host, for a stream": (get(target=b"/events?topic=a", host=b""), 400),
    "two of them": (get(host=HOST + HOST), 400),
    "a Host with a space": (get(host=b"Host: a b\r\n"), 400),
    "a Host with a path": (get(host=b"Host: a/b\r\n"), 400),
    "a Host with a user, for a stream": (get(target=b"/events?topic=a", host=b"Host: a@b\r\n"), 400),
    "HTTP/1.0": (get(version=b"1.0", host=b""), 200),
    "HTTP/2.0": (get(version=b"2.0"), 505),
    "HTTP/3.0": (get(version=b"3.0"), 505),
    "HTTP/1.2": (get(version=b"1.2"), 505),
    "HTTP/0.9": (get(version=b"0.9"), 505),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another coding below": (post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED), 501),
    "another coding alone": (post(b"Transfer-Encoding: gzip", body=CHUNKED), 501),
    "no coding, with a word": (post(b"Transfer-Encoding: identity", body=CHUNKED), 501),
    "chunked twice": (post(CODED, CODED, body=CHUNKED), 400),
    "chunked in HTTP/1.0": (post(CODED, body=CHUNKED, version=b"1.0"), 400),
    "a coding and a length": (post(CODED, LENGTH, body=CHUNKED), 400),
    "a length and a coding": (post(LENGTH, CODED, body=CHUNKED), 400),
    "two lengths": (post(LENGTH, b"Content-Length: 5"), 400),
    "a length twice": (post(LENGTH, LENGTH), 400),
    "a list of lengths": (post(b"Content-Length: 24, 24"), 400),
    "a negative length": (post(b"Content-Length: -1"), 400),
    "a length with a sign": (post(b"Content-Length: +24"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x18"), 400),
    "no length in the field": (post(b"Content-Length:"), 400),
    "a length of many digits": (post(b"Content-Length: 99999999999999999999999"), 400),
    "a space before a colon": (get(b"X-A : b"), 400),
    "a folded field": (get(b"X-A: b\r\n c"), 400),
    "a field that begins with a space": (get(b" X-A: b"), 400),
    "a bare CR": (get(b"X-A: b\rc"), 400),
    "a NUL": (get(b"X-A: b\0c"), 400),
    "bare LFs": (get().replace(b"\r\n", b"\n"), 400),
    "a field without a name": (get(b": b"), 400),
    "a field without a colon": (get(b"X-A"), 400),
    "a bracket in a name": (get(b"X(A: b"), 400),
    "a method in small letters": (get().replace(b"GET", b"get"), 400),
    "a method that nobody knows": (get().replace(b"GET", b"FOO"), 400),
    "a tunnel": (get(target=b"a:443").replace(b"GET", b"CONNECT"), 501),
    "a target without a slash": (get(target=b"health/live"), 400),
    "a space in the target": (get(target=b"/health live"), 400),
    "a control character in the target": (get(target=b"/health/live\x01"), 400),
    "a chunk of no size": (post(CODED, body=b"zz\r\n"), 400),
    "a chunk of too many digits": (post(CODED, body=b"f" * 17 + b"\r\n"), 400),
    "a chunk that is too long": (post(CODED, body=b"18\r\n" + EVENT + b"X\r\n0\r\n\r\n"), 400),
    "chunks with bare LFs": (post(CODED, body=CHUNKED.replace(b"\r\n", b"\n")), 400),
    "another type, not all of it": (unread(post(LENGTH).replace(b"application/json", b"text/plain")), 415),
    "another path, not all of it": (unread(post(LENGTH).replace(b"/events", b"/nothing")), 404),
    "another method, not all of it": (unread(post(LENGTH).replace(b"POST", b"PUT")), 405),
    "a foreign page, not all of it": (unread(post(b"Origin: https://evil.example", LENGTH)), 403),
    "another path, chunked, not all of it": (post(CODED, body=b"5\r\n").replace(b"/events", b"/nothing"), 404),
    "an unknown parameter, not all of it": (unread(post(LENGTH).replace(b"/events", b"/events?a=b")), 400),
    "too much, not all of it": (post(b"Content-Length: 999999999"), 413),
    "more than any body, not all of it": (post(b"Content-Length: 9223372036854775808"), 413),
}


@pytest.fixture(scope="module", params=["detached", "uvicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=5) as server:
        yield server


def answered(server: LiveServer, request: bytes) -> tuple[int, bool]:
    """The status of the answer, and whether a request behind it has one of its own."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client, client.makefile("rb") as got:
        client.sendall(request)
        status = int(got.readline().split()[1])
        length = 0
        while (line := got.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        got.read(length)
        with contextlib.suppress(ConnectionError):
            client.sendall(get(b"Connection: close"))
            return status, b"live" in got.read()
        return status, False


@pytest.mark.parametrize(("request_", "status"), KEPT.values(), ids=KEPT)
def test_a_connection_is_kept_where_all_was_understood(server: LiveServer, request_: bytes, status: int) -> None:
    assert answered(server, request_) == (status, True)


@pytest.mark.parametrize(("request_", "status"), CLOSED.values(), ids=CLOSED)
def test_a_connection_is_closed_where_not_all_was_understood_or_read(
    server: LiveServer, request_: bytes, status: int
) -> None:
    assert answered(server, request_) == (status, False)


def test_an_answer_reaches_a_client_that_still_sends(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        client.sendall(post(b"Content-Length: 150000", body=b"").replace(b"/events", b"/nothing"))
        client.sendall(b"x" * 100_000)
        with client.makefile("rb") as got:
            assert got.readline().split()[1] == b"404"
            assert b"connection: close" in got.read().lower()


def test_h2c_beside_a_subscription_is_as_though_it_was_not_there(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client, client.makefile("rb") as got:
        client.sendall(get(*H2C, target=b"/events?topic=a"))
        assert got.readline().split()[1] == b"200"
        while not got.readline().startswith(b"event: ssepool.open"):
            pass


def test_requests_with_an_upgrade_may_follow_each_other(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client, client.makefile("rb") as got:
        for part in (post(*H2C, LENGTH)[:-10], post(*H2C, LENGTH)[-10:] + post(*H2C, LENGTH) * 3 + get(*H2C)):
            client.sendall(part)
        client.sendall(get(b"Connection: close", *H2C[1:]))
        assert re.findall(rb"HTTP/1\.1 (\d+)", got.read()) == [b"201"] * 4 + [b"200"] * 2


@pytest.mark.parametrize("path", ["detached", "plain", "uvicorn", "uvicorn, plain"])
def test_a_stream_over_http_1_0_has_no_chunks_and_ends_with_its_connection(path: str) -> None:
    with (
        serve(path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client,
        client.makefile("rb") as got,
    ):
        client.sendall(get(target=b"/events?topic=news", version=b"1.0"))
        head = list(iter(got.readline, b"\r\n"))
        assert head[0].split()[1] == b"200"
        assert not [field for field in head if field.lower().startswith(b"transfer-encoding")]
        opening = list(iter(got.readline, b"\n"))
        assert opening[0].startswith(b"id: ")  # and no size before it
        assert opening[1] == b"event: ssepool.open\n"
        server.publish("news", "x")
        assert got.readline().startswith(b"id: ")
        assert [got.readline(), got.readline()] == [b"data: x\n", b"\n"]
        server.stop()
        assert got.read().endswith(b'data: {"reason":"shutdown"}\n\n')
