"""The HTTP surface on real sockets: publishers that leave half-way, bodies and queries without end, other sites."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from live import PATHS, LiveServer, serve, wait_for

MAX_BODY_BYTES = 10_000


@pytest.fixture(scope="module", params=PATHS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, max_body=MAX_BODY_BYTES) as server:
        yield server


class Client:
    """A connection to the server on which a test writes what it likes."""

    def __init__(self, server: LiveServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.received = b""

    def send(self, head: str, body: bytes = b"") -> None:
        lines = [*head.splitlines(), "Host: 127.0.0.1"]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer that is final: some servers say `100 Continue` unasked."""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.received) < length:
            self._receive()
        body, self.received = self.received[:length], self.received[length:]
        status = int(first.split()[1])
        return (status, headers, body) if status >= 200 else self.answer()

    def error(self) -> tuple[int, str]:
        """Status and code of the next answer, a refusal."""
        status, _, body = self.answer()
        return status, msgspec.json.decode(body)["error"]["code"]

    def is_closed(self) -> bool:
        """Whether the server ends the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the server ended the connection after {self.received!r}"
        self.received += data

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


LINE = b'{"topic": "a", "data": 1}\n'
HALVES = {
    "a declared length": ("Content-Length: 1000", LINE * 5),
    "chunks": ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(LINE), LINE)),
    "half a chunk": ("Transfer-Encoding: chunked", b"%x\r\n%s" % (len(LINE), LINE[:10])),
    "nothing yet": ("Content-Length: 1000", b""),
}


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("half", HALVES)
def test_a_publisher_that_leaves_half_way_publishes_nothing_and_leaves_nothing(
    server: LiveServer, half: str, reset: bool
) -> None:
    before = server.request("GET", "/pool")[1]["events"]["published"]
    descriptors, log = wait_for(server.descriptors), len(server.log)
    header, body = HALVES[half]
    for _ in range(20):
        client = Client(server)
        client.send(f"POST /events HTTP/1.1\nContent-Type: application/x-ndjson\n{header}", body)
        client.close(reset=reset)
    wait_for(lambda: server.descriptors() <= descriptors, what="descriptors are given back")
    server.pool()
    assert server.request("GET", "/pool")[1]["events"]["published"] == before
    assert [line for line in server.log[log:] if "Traceback" in line or "ERROR" in line] == []


def test_a_declared_length_over_the_bound_is_refused_before_the_body_comes(server: LiveServer) -> None:
    with Client(server) as client:
        client.send(
            "POST /events HTTP/1.1\nContent-Type: application/json\nExpect: 100-continue\n"
            f"Content-Length: {MAX_BODY_BYTES + 1}"
        )
        assert client.error() == (413, "body_too_large")
        assert client.is_closed()


def test_a_body_without_end_is_refused_and_cut_off(server: LiveServer) -> None:
    with Client(server) as client:
        client.send("POST /events HTTP/1.1\nContent-Type: application/x-ndjson\nTransfer-Encoding: chunked")
        sent = 0
        try:
            while sent < 100 * 2**20:
                client.socket.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                sent += 4096
        except (ConnectionError, TimeoutError):
            pass  # the point: nobody takes all of it
        assert sent < 100 * 2**20
    server.pool()


def test_a_body_at_the_bound_is_taken(server: LiveServer) -> None:
    body = LINE + b" " * (MAX_BODY_BYTES - len(LINE))
    with Client(server) as client:
        client.send(f"POST /events HTTP/1.1\nContent-Type: application/x-ndjson\nContent-Length: {len(body)}", body)
        assert client.answer()[0] == 201


def test_a_connection_goes_on_after_a_refusal_that_read_all(server: LiveServer) -> None:
    with Client(server) as client:
        for body, status in ((b"{", 400), (LINE, 201)):
            client.send(f"POST /events HTTP/1.1\nContent-Type: application/json\nContent-Length: {len(body)}", body)
            assert client.answer()[0] == status


@pytest.mark.parametrize(
    "path", ["/events", "/connections", "/connections/a", "/pool", "/metrics", "/health/live", "/openapi.json", "/no"]
)
def test_a_query_string_over_the_bound_is_refused_everywhere(server: LiveServer, path: str) -> None:
    with Client(server) as client:
        client.send(f"GET {path}?topic={'x' * 8192} HTTP/1.1")
        assert client.error() == (414, "query_too_long")


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        ("GET /nowhere", (404, "not_found")),
        ("GET /../etc/passwd", (404, "not_found")),
        ("PUT /pool", (405, "method_not_allowed")),
        ("DELETE /events", (405, "method_not_allowed")),
        ("GET /events?topic=a&colour=red", (400, "unknown_parameter")),
        ("GET /connections?limit=-1", (400, "invalid_parameter")),
    ],
)
def test_what_is_wrong_is_said_in_json(server: LiveServer, request_line: str, error: tuple[int, str]) -> None:
    with Client(server) as client:
        client.send(f"{request_line} HTTP/1.1\nContent-Length: 0")
        assert client.error() == error


@pytest.mark.parametrize("path", ["/events", "/pool", "/connections", "/metrics", "/health/ready"])
def test_options_and_head_are_answered(server: LiveServer, path: str) -> None:
    with Client(server) as client:
        client.send(f"OPTIONS {path} HTTP/1.1")
        status, headers, _ = client.answer()
        assert status == 204
        assert {"GET", "HEAD", "OPTIONS"} <= set(headers["allow"].split(", "))
    with Client(server) as client:
        client.send(f"HEAD {path}{'?topic=a' if path == '/events' else ''} HTTP/1.1\nConnection: close")
        head = b""
        while data := client.socket.recv(65536):
            head += data
        assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")
    server.wait_pool(open=0)


def test_a_form_on_a_page_of_another_site_publishes_nothing(server: LiveServer) -> None:
    body = b"topic=a&data=gotcha"
    head = f"POST /events HTTP/1.1\nContent-Type: application/x-www-form-urlencoded\nContent-Length: {len(body)}\n"
    with Client(server) as client:
        client.send(f"{head}Origin: https://evil.example", body)
        assert client.error() == (403, "forbidden_origin")
    with Client(server) as client:
        client.send(f"{head}Origin: http://127.0.0.1", body)
        assert client.answer()[0] == 201
