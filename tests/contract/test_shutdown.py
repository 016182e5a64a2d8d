"""SIGTERM and SIGINT end the server within seconds, whoever is connected; everybody is told."""

from __future__ import annotations

import signal
import socket

import pytest

import wire
from live import LiveServer, Stream, wait_for
from live_fixtures import Connect, Start

MANY = 1000
FEWER = 300
"""On hypercorn, whose connections take three times as long."""
pytestmark = pytest.mark.paths("detached", "plain", "hypercorn")
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def ends(server: LiveServer, number: int) -> None:
    """The process ends by the signal or, as some servers do, in peace."""
    assert server.stop(number, seconds=10) in (0, -number)


def reasons(stream: Stream) -> list[str]:
    wire.check(stream.to_end().raw)
    return [data["reason"] for data in stream.of_type("ssepool.close")]


@SIGNALS
def test_a_thousand_streams_and_those_who_wait_are_told(path: str, start: Start, connect: Connect, number: int) -> None:
    many = FEWER if path == "hypercorn" else MANY
    server = start(size=many, acquire_timeout=600, reap_interval=60)
    streams = [connect(server, "a") for _ in range(many)]
    for stream in streams:
        stream.opened()
    waiting = []
    for position in (1, 2, 3):
        waiting.append(connect(server, "a"))
        server.wait_pool(waiting=position)
    ends(server, number)
    for stream in streams:
        assert reasons(stream) == ["shutdown"]
        assert stream.retry and stream.retry >= 1000
    for stream in waiting:
        assert reasons(stream) == ["pool_closed"]
        assert stream.status == 200 and stream.retry and not stream.whole


@SIGNALS
def test_a_stalled_client_holds_nobody_up(
    path: str, start: Start, connect: Connect, expected_trouble: list[str], number: int
) -> None:
    if path == "hypercorn":  # which says so when it has to cancel something
        expected_trouble += ["Traceback"]
    server = start(size=10, send_timeout=600, announce_queue=True)
    stalled = connect(server, "flood", receive_buffer=4096).opened()
    healthy = connect(server, "a").opened()
    batch = [{"topic": "flood", "data": "x" * 16_000} for _ in range(100)]

    def behind() -> bool:
        assert server.request("POST", "/events", batch)[0] == 201
        found = server.request("GET", f"/connections/{stalled.connection}")[1]
        return bool(found["events_sent"] < server.request("GET", "/pool")[1]["events"]["published"])

    wait_for(behind)
    ends(server, number)
    assert reasons(healthy) == ["shutdown"]


def test_announced_waiters_are_told_on_their_streams(start: Start, connect: Connect) -> None:
    server = start(size=1, announce_queue=True, acquire_timeout=600)
    stream = connect(server, "a").opened()
    waiting = connect(server, "a").until(lambda s: s.of_type("ssepool.queued"))
    ends(server, signal.SIGTERM)
    assert reasons(stream) == ["shutdown"]
    assert reasons(waiting) == ["pool_closed"]


def test_a_silent_connection_and_half_a_request_hold_nobody_up(start: Start, connect: Connect) -> None:
    server = start(head_timeout=600)
    connect(server, "a").opened()
    silent = socket.create_connection(("127.0.0.1", server.port))
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(b"GET /events?topic=a HTTP/1.1\r\nHos")
    server.pool()  # both have been accepted before this was answered
    with silent, half:
        ends(server, signal.SIGTERM)
