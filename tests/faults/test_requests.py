"""Requests that are broken, too big, too slow, or whose clients vanish half-way. None takes a slot or a descriptor."""

from __future__ import annotations

import re
import signal
import socket
import struct
import threading
from pathlib import Path

import pytest

from live import DEADLINE, LiveServer, wait_for
from live_fixtures import Connect, Start

SETTINGS = {"size": 20, "head_timeout": 600}

HOST = b"Host: localhost\r\n"
MALFORMED = {
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "no target": b"GET\r\n\r\n",
    "unknown version": b"GET /events?topic=a HTTP/9.9\r\n" + HOST + b"\r\n",
    "unknown method": b"FETCH /events?topic=a HTTP/1.1\r\n" + HOST + b"\r\n",
    "broken target": b"GET http://[::1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in target": b"GET /ev\xff\xfe?topic=a HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in query": b"GET /events?topic=\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "no UTF-8 in query": b"GET /events?topic=%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n",
    "line without a colon": b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n",
    "space in a header's name": b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"a b: c\r\n\r\n",
    "NUL in a header": b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"a: \x00\r\n\r\n",
    "negative length": b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "length in words": b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Length: ten\r\n\r\n",
    "two lengths": b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /events HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "broken chunk": b"POST /events HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "unknown coding": b"POST /events HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: rot13\r\n\r\nabc",
}


def talk(server: LiveServer, *parts: bytes) -> bytes:
    """Send bytes and return what comes, until the server closes or has answered once."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        answer = b""
        try:
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            while not is_whole(answer) and (data := client.recv(65536)):
                answer += data
        except OSError as error:
            assert not isinstance(error, TimeoutError)  # else: the server need not read to the end what it refuses
        return answer


def is_whole(answer: bytes) -> bool:
    """Whether this is a response that says its length, in full length."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return length is not None and len(body) >= int(length[1])


def status(answer: bytes) -> int:
    """The status of the first response; 0 if there was none."""
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


LENIENT = {"unknown version": 200, "broken target": 404, "length and chunks": 415}
"""What hypercorn passes on, and what the hub then makes of it."""


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused(server: LiveServer, path: str, name: str) -> None:
    request = MALFORMED[name]
    expected = {0, 400, 405, 415, 501, 505} | ({LENIENT.get(name, 0)} if path == "hypercorn" else set())
    before = server.pool()["open"]
    assert status(talk(server, request)) in expected
    assert status(talk(server, *[request[place : place + 1] for place in range(len(request))])) in expected
    server.wait_pool(open=before)


@pytest.mark.parametrize("name", ["h2c", "websocket"])
def test_an_upgrade_that_is_not_offered_is_passed_over(server: LiveServer, connect: Connect, name: str) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": name, "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    if name == "websocket":
        headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    stream = connect(server, "a", headers=headers)
    stream.until(lambda s: s.status or s.ended)
    assert stream.status in (0, 101, 200, 400, 403)


def too_big(server: LiveServer) -> dict[str, tuple[int, tuple[int, str]]]:
    """Refusals of things that are too big: the status that is due, what came."""
    event = {"topic": "a", "data": "x"}
    return {
        "query": (414, server.request("GET", "/events?topic=" + "x" * 9000)),
        "topic": (400, server.request("GET", "/events?topic=" + "x" * 1025)),
        "topics": (400, server.request("GET", "/events?" + "&".join(f"topic={n}" for n in range(101)))),
        "data": (400, server.request("GET", "/events?topic=a&data=%22" + "x" * 2048 + "%22")),
        "event": (413, server.request("POST", "/events", event | {"data": "x" * 2**20})),
        "batch": (413, server.request("POST", "/events", [event] * 10_001)),
        "id": (400, server.request("POST", "/events", event | {"id": "x" * 129})),
        "published topic": (400, server.request("POST", "/events", event | {"topic": "x" * 1025})),
        "resize": (400, server.request("PATCH", "/pool", {"size": 10**12})),
    }


def test_what_is_too_big_is_refused_with_a_reason(server: LiveServer) -> None:
    published = server.request("GET", "/pool")[1]["events"]["published"]
    head = b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        client.sendall(head + b"Content-Length: 9000000\r\n\r\n")
        assert status(client.recv(65536)) == 413
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    assert status(talk(server, head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 20)) in (413, 0)
    for name, (due, (came, answer)) in too_big(server).items():
        assert came == due, f"{name}: {answer}"
        assert answer["error"]["code"] and answer["error"]["message"], name
    assert server.request("GET", "/pool")[1]["events"]["published"] == published


HUGE = {
    "target": [b"GET /events?topic=", *[b"x" * 65536] * 160, b" HTTP/1.1\r\n\r\n"],
    "header": [b"GET /events?topic=a HTTP/1.1\r\nX-Long: ", *[b"x" * 65536] * 160, b"\r\n\r\n"],
    "headers": [b"GET /events?topic=a HTTP/1.1\r\n", *[b"X-Many: of them\r\n" * 4096] * 160, b"\r\n"],
    "header's name": [b"GET /events?topic=a HTTP/1.1\r\n", *[b"x" * 65536] * 160, b": x\r\n\r\n"],
    "empty lines": [b"\r\n" * 65536] * 160,
}


@pytest.mark.parametrize("parts", HUGE.values(), ids=HUGE)
def test_a_head_without_end_is_refused(server: LiveServer, parts: list[bytes]) -> None:
    # The bound is far below the 10 MB that are sent; a client that is refused in the middle may see only a reset.
    assert status(talk(server, *parts)) in (0, 400, 414, 431)


@pytest.mark.paths("detached", "plain")  # the others' servers have their own idea of a refusal
def test_a_head_that_is_too_large_is_told_so(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        client.sendall(b"GET /events?topic=a HTTP/1.1\r\nX-Long: ")
        for _ in range(65):
            client.sendall(b"x" * 1024)
        assert status(client.recv(65536)) == 431


@pytest.mark.paths("detached", "plain", "protocol")  # hypercorn has no such deadline
class TestSlowHeads:
    def test_a_client_that_sends_nothing_is_let_go(self, start: Start) -> None:
        server = start(head_timeout=0.3)
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
            assert status(client.recv(65536)) in (0, 408)

    def test_half_a_head_is_not_waited_for(self, start: Start) -> None:
        server = start(head_timeout=0.3)
        for half in (b"G", b"GET /events?topic=a HTTP/1.1\r\n", b"POST /events HTTP/1.1\r\nContent-Len", b"\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
                client.sendall(half)
                assert status(client.recv(65536)) == 408

    def test_a_trickle_does_not_win_time(self, start: Start) -> None:
        server = start(head_timeout=0.5)
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as client:
            client.sendall(b"GET /events?topic=a HTTP/1.1\r\n")

            def answered() -> bytes:
                client.sendall(b"x: y\r\n")
                try:
                    return client.recv(65536)
                except TimeoutError:
                    return b""

            assert status(wait_for(answered)) == 408

    def test_neither_does_it_after_a_first_request(self, start: Start) -> None:
        server = start(head_timeout=0.5)
        for rest in (b"GET /po", b"\r\n", b"\r\n" * 100):
            with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
                client.sendall(b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += client.recv(65536)
                client.sendall(rest)
                assert status(client.recv(65536)) == 408

    def test_streams_and_bodies_have_no_such_deadline(self, start: Start, connect: Connect) -> None:
        server = start(head_timeout=0.3, size=1)
        stream = connect(server, "a").opened()
        waiting = connect(server, "a")
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
            body = b'{"topic": "a", "data": "x"}'
            client.sendall(b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n")
            client.sendall(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            # Another one's deadline passes meanwhile, and then some.
            for _ in range(2):
                talk_late(server)
            client.sendall(body)
            assert status(client.recv(65536)) == 201
        stream.wait_data("x")
        assert waiting.quiet()
        stream.close()
        waiting.opened()


def talk_late(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        client.sendall(b"GET ")
        assert status(client.recv(65536)) == 408


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /events?top",
        b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /pool HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "a subscription", "a question", "half a body"],
)
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_clients_that_vanish_leave_nothing(server: LiveServer, sent: bytes, how: str) -> None:
    for _ in range(30):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
        client.sendall(sent)
        reset(client) if how == "RST" else client.close()
    server.wait_pool(open=0, reserved=0)


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_publisher_that_leaves_half_way_publishes_nothing(server: LiveServer, connect: Connect, how: str) -> None:
    stream = connect(server, "half").opened()
    head = b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-ndjson\r\n"
    line = b'{"topic": "half", "data": "of it"}\n'
    for framing in (b"Content-Length: 100000\r\n\r\n" + line * 100, b"Transfer-Encoding: chunked\r\n\r\n23\r\n" + line):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
        client.sendall(head + framing)
        server.pool()  # what was sent before this is with the server
        reset(client) if how == "RST" else client.close()
    server.publish("half", "all of it")
    stream.wait_data("all of it")


def test_many_connections_at_once_that_never_say_anything(start: Start, connect: Connect) -> None:
    server = start()
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) for _ in range(300)]
    stream = connect(server, "a").opened()
    server.publish("a", "x")
    stream.wait_data("x")
    for client in silent:
        client.close()


@pytest.mark.timeout(120)
@pytest.mark.paths("detached", "plain", "protocol")  # where the queue is the server's to set
def test_a_full_listen_queue_serves_everybody_in_the_end(start: Start, path: str) -> None:
    server = start(backlog=1, size=100)
    request = b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n" * (path == "protocol") + b"\r\n"
    served: list[int] = []
    before = listen_overflows()

    def visit() -> None:
        # What does not fit the kernel drops, and this side's kernel tries again after 1, 3, 7 and 15 seconds.
        with socket.create_connection(("127.0.0.1", server.port), timeout=100) as client:
            client.sendall(request)
            served.append(status(client.recv(65536)))

    server.process.send_signal(signal.SIGSTOP)  # so that nothing is accepted while they come
    visitors = [threading.Thread(target=visit) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    wait_for(lambda: listen_overflows() > before)
    server.process.send_signal(signal.SIGCONT)
    for visitor in visitors:
        visitor.join()
    assert served == [200] * 8
    assert server.wait_pool(open=0)["granted"] == 8


def listen_overflows() -> int:
    """How often this machine's kernel has dropped a connection because a listen queue was full."""
    names, values = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()[:2]]
    return int(values[names.index("ListenOverflows")])


def answer_to(server: LiveServer, request: bytes) -> int:
    """The status of the answer to a client that stays until it has it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        client.sendall(request)
        answer = b""
        while not is_whole(answer) and (data := client.recv(65536)):
            answer += data
        return status(answer)


@pytest.mark.paths("detached", "plain")  # where another server serves the application, nobody has asked for this
@pytest.mark.parametrize(
    ("fields", "due"),
    [
        (b"Host: evil.example\r\n", 421),
        (b"Host: localhost.evil.example:80\r\n", 421),
        (b"", 400),
        (HOST + HOST, 400),
        (b"Host: LOCALHOST:1\r\n", 0),
        (b"Host: [::1]:1\r\n", 0),
    ],
)
def test_a_name_that_is_not_the_hubs_gets_nothing(server: LiveServer, fields: bytes, due: int) -> None:
    event = b'{"topic":"a","data":"x"}'
    kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(event)
    before = server.request("GET", "/pool")[1]["events"]["published"]
    assert answer_to(server, b"GET /events?topic= HTTP/1.1\r\n" + fields + b"\r\n") == (due or 400)
    if due:
        assert answer_to(server, b"GET /events?topic=a HTTP/1.1\r\n" + fields + b"\r\n") == due
    assert answer_to(server, b"GET /pool HTTP/1.1\r\n" + fields + b"\r\n") == (due or 200)
    assert answer_to(server, b"POST /events HTTP/1.1\r\n" + fields + kind + event) == (due or 201)
    assert server.request("GET", "/pool")[1]["events"]["published"] == before + (not due)
