"""Rates and shares of one address, over real sockets: on each way in, and for a client behind a proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket

import pytest

from live import DEADLINE, Stream, serve_command, wait_for
from live_fixtures import Connect, Start

GREEDY = "127.0.0.2"
HONEST = "127.0.0.3"
SLOWLY = 0.01
"""A rate by which a bucket of one does not fill while a test runs."""

TO_ALL = ("--host", "0.0.0.0", "--public-topics", "a")


def closing(stream: Stream) -> list[str]:
    """The reasons that a stream gave before it ended."""
    return [data["reason"] for data in stream.to_end().of_type("ssepool.close")]


def test_who_connects_too_often_is_told_to_come_back_and_the_others_are_let_in(start: Start, connect: Connect) -> None:
    server = start(size=10, subscribe_rate=SLOWLY * 3, retry=1)
    connect(server, "a", source=GREEDY).opened()
    for _ in range(3):
        again = connect(server, "a", source=GREEDY)
        assert closing(again) == ["too_many_requests"]
        assert (again.retry or 0) > 20_000
    connect(server, "a", source=HONEST).opened()
    report = server.request("GET", "/pool")[1]
    assert (report["rate_refused"]["subscribe"], report["pool"]["requests"]) == (3, 2)


def test_who_waits_for_a_slot_has_been_counted_once(start: Start, connect: Connect) -> None:
    server = start(size=1, subscribe_rate=0.2, acquire_timeout=600)  # two at once
    first = connect(server, "a", source=GREEDY).opened()
    waits = connect(server, "a", source=GREEDY)  # looked at in its first packet, and then by the application
    server.wait_pool(waiting=1)
    assert closing(connect(server, "a", source=GREEDY)) == ["too_many_requests"]
    first.close()
    waits.opened()


def test_one_address_has_its_share_of_the_queue(start: Start, connect: Connect) -> None:
    server = start(size=1, max_waiting=10, max_waiting_per_ip=1, acquire_timeout=600)
    first = connect(server, "a", source=GREEDY).opened()
    waits = connect(server, "a", source=GREEDY)
    server.wait_pool(waiting=1)
    assert closing(connect(server, "a", source=GREEDY)) == ["pool_full"]
    honest = connect(server, "a", source=HONEST)
    server.wait_pool(waiting=2)
    first.close()
    waits.opened()
    behind = connect(server, "a", source=GREEDY)  # the place is free again, although who had it is still here
    server.wait_pool(waiting=2)
    waits.close()
    honest.opened()
    honest.close()
    behind.opened()


def test_a_publish_counts_its_events_for_the_client_behind_a_proxy(start: Start, path: str) -> None:
    server = start(publish_rate=0.5)  # five at once
    forwarded = {} if path == "hypercorn" else {"X-Forwarded-For": "203.0.113.7"}
    event = {"topic": "a", "data": "x"}
    # On a connection that is kept, so that some are answered without the application.
    publisher = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    with contextlib.closing(publisher):
        statuses = []
        for _ in range(4):
            body = json.dumps([event] * 2)
            publisher.request("POST", "/events", body, {"Content-Type": "application/json", **forwarded})
            with publisher.getresponse() as answer:
                statuses.append(answer.status)
                assert (answer.headers["Retry-After"] is not None) is (answer.status == 429)
                answer.read()
        assert statuses == [201, 201, 429, 429]
    status, answer = server.request("POST", "/events", [event] * 6, forwarded)
    assert (status, answer["error"]["code"]) == (413, "batch_too_large")
    if forwarded:
        assert server.request("POST", "/events", [event] * 5, {"X-Forwarded-For": "203.0.113.8"})[0] == 201
        assert server.request("POST", "/events", [event] * 5)[0] == 201
    assert server.request("GET", "/pool")[1]["rate_refused"]["publish"] == 2


def test_who_asks_for_what_is_not_there_is_refused_for_a_while_but_not_its_streams(
    start: Start, connect: Connect, path: str
) -> None:
    server = start(size=10, failure_rate=SLOWLY * 25)  # two at once
    forwarded = {} if path == "hypercorn" else {"X-Forwarded-For": "203.0.113.7"}
    statuses = [server.request("GET", f"/{number}.php", headers=forwarded)[0] for number in range(4)]
    assert statuses == [404, 404, 429, 429]
    event = {"topic": "a", "data": "x"}
    assert server.request("POST", "/events", event, forwarded)[0] == 429  # not even by the shortcut
    assert server.request("GET", "/health/live", headers=forwarded)[0] == 200
    connect(server, "a", headers=forwarded).opened()
    if path == "hypercorn":
        server.process.kill()  # it has no other address to ask for the pool from
        server.process.wait()


@pytest.mark.paths("detached")
@pytest.mark.parametrize("workers", [1, 2])
def test_where_others_reach_the_hub_one_address_has_a_share_by_default(
    path: str, workers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broker = f"sqlite:///{tmp_path_factory.mktemp('share')}/events.db"
    flags = (
        "--host",
        "0.0.0.0",
        "--public-topics",
        "a",
        "--pool-size",
        "60",
        "--broker",
        broker,
        "--workers",
        str(workers),
    )
    with serve_command(*flags) as server:
        streams: list[Stream] = []
        try:
            for number in range(20 * workers + 3):
                streams.append(Stream(server, "a", source=GREEDY).until(lambda s: s.events))
                if number < 20:
                    assert streams[-1].events[0].type == "ssepool.open"
            opened = sum(stream.events[0].type == "ssepool.open" for stream in streams)
            assert 20 <= opened <= 20 * workers  # in each worker
            streams.append(Stream(server, "a", source=HONEST).opened())
        finally:
            for stream in streams:
                stream.close()


@pytest.mark.paths("detached")
def test_a_share_may_be_taken_away(path: str) -> None:
    flags = (
        "--host",
        "0.0.0.0",
        "--public-topics",
        "a",
        "--pool-size",
        "30",
        "--max-per-ip",
        "0",
        "--subscribe-rate",
        "0",
    )
    with serve_command(*flags) as server:
        streams = [Stream(server, "a", source=GREEDY).opened() for _ in range(25)]
        for stream in streams:
            stream.close()


@pytest.mark.paths("detached", "plain")
def test_bodies_that_never_end_leave_room_for_those_of_other_addresses(start: Start) -> None:
    server = start()
    head = (
        b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 8388608\r\n\r\n"
    )
    greedy: list[socket.socket] = []
    try:
        for _ in range(12):
            greedy.append(socket.create_connection(("127.0.0.1", server.port), DEADLINE, (GREEDY, 0)))
            with contextlib.suppress(ConnectionError):  # a refusal ends the connection
                greedy[-1].sendall(head + b" " * (8 * 1024 * 1024 - 1))
        wait_for(lambda: len(select.select(greedy, [], [], 0)[0]) >= 10, what="ten that were refused")
        assert server.request("POST", "/events", {"topic": "a", "data": "x" * 1_000_000})[0] == 201
    finally:
        for client in greedy:
            client.close()
