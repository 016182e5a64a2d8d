"""File descriptors that run out: the server says so, serves those it has, and takes new clients when some are free."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from live import DEADLINE, LiveServer, Stream, wait_for
from live_fixtures import Connect, Start

LIMIT = 60

SAID = {
    "detached": "cannot accept a connection",
    "protocol": "cannot accept a connection",
    "plain": "no file descriptor is left",
    "hypercorn": "no file descriptor is left",
}


class LatePublisher:
    """A publisher whose connection is open, and whose request has begun, before there is no descriptor left."""

    def __init__(self, server: LiveServer, data: str) -> None:
        self._body = json.dumps({"topic": "a", "data": data}).encode()
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
        head = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(self._body)}\r\n\r\n".encode())

    def publish(self) -> bool:
        """Whether the event is published; not if the connection has had to give way to newer ones."""
        with self._socket, contextlib.suppress(ConnectionError):
            self._socket.sendall(self._body)
            return self._socket.recv(65536).startswith(b"HTTP/1.1 201")
        return False


def exhaust(server: LiveServer, connect: Connect, said: str) -> list[Stream]:
    """Connect until the server says that it has no descriptor left; the streams that have opened.

    The others leave: some servers drop them, with some they are next.
    """
    streams = [connect(server, "a") for _ in range(LIMIT)]
    server.said(said)
    opened = [stream for stream in streams if read_open(stream)]
    assert LIMIT // 3 < len(opened) < LIMIT
    for stream in streams:
        if stream not in opened:
            stream.close()
    return opened


def read_open(stream: Stream) -> bool:
    """Whether the stream has opened; one that was not accepted has nothing to read."""
    while not stream.events and stream.read(0.2):
        pass
    return bool(stream.events)


def test_the_server_goes_on_and_says_so(path: str, start: Start, connect: Connect, expected_trouble: list[str]) -> None:
    expected_trouble += ["cannot accept", "no file descriptor", "out of system resource", "Too many open files"]
    if path == "hypercorn":
        expected_trouble += ["Traceback"]  # asyncio's own words about its accept
    server = start(limit_files=LIMIT, size=200, reap_interval=0.05)
    publisher = LatePublisher(server, "in need")
    opened = exhaust(server, connect, SAID[path])

    # Those who are in notice nothing.
    if not publisher.publish():
        assert path == "protocol"  # where every connection is a caller first
        opened.pop().close()
        wait_for(lambda: answers(server))
        server.publish("a", "in need")
    for stream in opened:
        stream.until(lambda s: "in need" in s.data)

    # Once some have left there is room again, for a question and for a new stream.
    for stream in opened[:10]:
        stream.close()
    wait_for(lambda: answers(server))
    late = connect(server, "a").opened()
    server.publish("a", "afterwards")
    for stream in [late, *opened[10:]]:
        stream.until(lambda s: s.data and s.data[-1] == "afterwards")


def answers(server: LiveServer) -> bool:
    try:
        server.pool()
    except OSError:
        return False  # dropped: there was still none left
    return True


@pytest.mark.paths("protocol")
def test_a_stream_that_cannot_be_detached_stays_with_the_server(
    start: Start, connect: Connect, expected_trouble: list[str]
) -> None:
    # Detaching needs a second descriptor for a moment, the last one is the connection's own.
    expected_trouble += ["cannot accept", "no file descriptor"]
    server = start(limit_files=LIMIT, size=200, reap_interval=0.05)
    opened = exhaust(server, connect, "stays with the server")
    server.said("costs more memory")
    for stream in opened[:-1]:
        stream.close()
    wait_for(lambda: answers(server))
    server.publish("a", "x")
    opened[-1].until(lambda s: "x" in s.data)
