"""Clients that never stop sending: into their stream, or one request behind the other."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from attacking import suffer
from live import DEADLINE, LiveServer, Stream, serve

STREAMED = 30 * 2**20
PIPELINED = 10_000
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b'{"topic":"b","data":""}'
POST = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


@pytest.fixture(scope="module", params=["detached", "plain", "uvicorn", "uvicorn plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=20) as server:
        yield server


def test_what_is_sent_into_a_stream_is_dropped(server: LiveServer) -> None:
    with Stream(server, "a") as stream:
        stream.opened()

        def attack(server: LiveServer) -> None:
            stream.socket.settimeout(DEADLINE)
            stream.socket.sendall(b"x" * STREAMED)

        worst = suffer(server, attack)
        print(worst)
        assert worst.grown <= 10.0
        server.publish("a", "still here")
        stream.wait_data("still here")
        stream.socket.sendall(b"and more")
    server.wait_pool(open=0)


@pytest.mark.parametrize("reads", [True, False])
def test_ten_thousand_requests_in_one_breath_harm_nobody(server: LiveServer, reads: bool) -> None:
    def attack(server: LiveServer) -> None:
        # The server may end the connection, or stop reading: both are fine.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(2.0)
            client.sendall((GET + POST) * (PIPELINED // 2))
            while reads and client.recv(2**20):
                pass

    worst = suffer(server, attack)
    print(worst)
    assert worst.held <= 50.0
    assert worst.grown <= 10.0
    assert server.process.poll() is None
