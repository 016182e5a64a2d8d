"""A client that leaves is noticed at once, however it leaves and whatever it leaves behind."""

from __future__ import annotations

import socket

import pytest

from live import DEADLINE, LiveServer
from live_fixtures import Connect

# Nothing but the departure itself can free a slot within a test.
SETTINGS = {
    "size": 50,
    "heartbeat_interval": 3600,
    "ack_timeout": 3600,
    "send_timeout": 3600,
    "idle_timeout": 0,
    "reap_interval": 3600,
}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_departure_frees_the_slot_at_once(server: LiveServer, connect: Connect, reset: bool) -> None:
    before = server.pool()["released"]["client_closed"]
    streams = [connect(server, "leaving").opened() for _ in range(10)]
    server.wait_pool(open=10)
    for stream in streams[:6]:
        stream.close(reset=reset)
    server.wait_pool(open=4, released={"client_closed": before + 6})


def test_a_client_that_only_stops_sending_has_left(server: LiveServer, connect: Connect) -> None:
    # A browser's FIN cannot be told from a half-closed connection, and nobody half-closes a stream to read on.
    before = server.pool()["released"]["client_closed"]
    stream = connect(server, "leaving").opened()
    stream.socket.shutdown(socket.SHUT_WR)
    server.wait_pool(open=0, released={"client_closed": before + 1})
    stream.to_end()


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_departure_in_the_middle_of_a_burst(server: LiveServer, connect: Connect, reset: bool) -> None:
    before = server.pool()["released"]["client_closed"]
    staying = connect(server, "burst").opened()
    leaving = [connect(server, "burst", receive_buffer=4096).opened() for _ in range(5)]
    batch = [{"topic": "burst", "data": f"{number} " + "x" * 10_000} for number in range(200)]
    for stream in leaving:
        assert server.request("POST", "/events", batch)[0] == 201
        stream.read()
        stream.close(reset=reset)
    staying.until(lambda s: len(s.data) == 1000)
    assert [int(data.split()[0]) for data in staying.data] == list(range(200)) * 5
    server.wait_pool(open=1, released={"client_closed": before + 5})


@pytest.mark.paths("detached", "plain")  # hypercorn reads no further while a request is under way
def test_what_a_client_still_sends_on_its_stream_is_dropped(server: LiveServer, connect: Connect) -> None:
    more = "GET /events?topic=chatty HTTP/1.1\r\nHost: localhost\r\n\r\n"
    stream = connect(server, "chatty", headers={"X-Last": "header\r\n\r\n" + more}).opened()
    for _ in range(20):
        stream.socket.sendall(more.encode())
    server.publish("chatty", "x")
    stream.wait_data("x")
    assert server.pool()["open"] == 1
    stream.close()  # which is seen, although there was so much before it
    server.wait_pool(open=0)


@pytest.mark.paths("protocol", "plain")
def test_a_body_that_nobody_wants_may_come_late(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "chatty", headers={"Content-Length": "1000000"}).opened()
    stream.socket.sendall(b"x" * 100_000)
    server.publish("chatty", "x")
    stream.wait_data("x")
    stream.close()
    server.wait_pool(open=0)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_stream_may_follow_other_requests_on_its_connection(server: LiveServer, pipelined: bool) -> None:
    question = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    subscription = b"GET /events?topic=late HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
        answer = b""
        for part in [question + question + subscription] if pipelined else [question, question, subscription]:
            client.sendall(part)
            while not answer.endswith((b'{"status":"live"}', b"\n\n", b"\n\n\r\n")):
                answer += client.recv(65536)
        while b"ssepool.open" not in answer:
            answer += client.recv(65536)
        assert answer.count(b"HTTP/1.1 200") == 3
        server.publish("late", "x")
        while b"data: x\n\n" not in answer:
            answer += client.recv(65536)
    server.wait_pool(open=0)


def test_a_departed_connection_is_not_found_any_more(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "known").opened()
    assert server.request("GET", f"/connections/{stream.connection}")[0] == 200
    stream.close()
    server.wait_pool(open=0)
    assert server.request("GET", f"/connections/{stream.connection}")[0] == 404
    again = connect(server, "known").opened()
    assert again.connection != stream.connection
