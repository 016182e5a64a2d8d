"""`curl -N` and the stand-alone hub, whose pool is too small for all who come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from live import LiveServer, serve_command, wait_for
from tools import require

Curl = Callable[..., Any]


@pytest.fixture(params=["--detach", "--no-detach"])
def detach(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(detach: str) -> Iterator[LiveServer]:
    with serve_command("--pool-size", "2", "--max-waiting", "2", detach) as server:
        yield server


@pytest.fixture
def curl(start: Callable[..., Any]) -> Curl:
    program = require("curl")
    return lambda server, *options, topic="news": start(program, "-sNi", *options, f"{server.url}/events?topic={topic}")


def test_curl_prints_events_as_they_are_published(server: LiveServer, curl: Curl) -> None:
    client = curl(server)
    client.wait_line("event: ssepool.open")
    assert client.lines[0] == "HTTP/1.1 200 OK"
    assert "content-type: text/event-stream" in [line.lower() for line in client.lines]
    ids: list[str] = []
    for number in range(3):
        ids.append(server.publish("news", f"number {number}", type="count"))
        wait_for(lambda n=number: client.lines[-4:] == [f"id: {ids[-1]}", "event: count", f"data: number {n}", ""])
    again = curl(server, "-H", f"Last-Event-ID: {ids[0]}")
    again.wait_line("data: number 2")
    assert [line for line in again.lines if line.startswith("data: number")] == ["data: number 1", "data: number 2"]


def test_who_finds_the_pool_full_waits_without_an_answer_and_is_served_when_one_leaves_in_order(
    server: LiveServer, curl: Curl
) -> None:
    first, second = curl(server), curl(server)
    for client in (first, second):
        client.wait_line("event: ssepool.open")
    third = curl(server)
    server.wait_pool(open=2, waiting=1)
    fourth = curl(server)
    server.wait_pool(open=2, waiting=2)
    server.publish("news", "to two")
    for client in (first, second):
        client.wait_line("data: to two")
    assert third.lines == fourth.lines == []

    second.stop()
    left_at = time.monotonic()
    third.wait_line("event: ssepool.open")
    assert time.monotonic() - left_at < 1
    server.wait_pool(open=2, waiting=1)
    assert fourth.lines == []

    first.stop()
    fourth.wait_line("event: ssepool.open")
    server.wait_pool(open=2, waiting=0, requests=4, granted=4, released={"client_closed": 2})
    server.publish("news", "to the others")
    for client in (third, fourth):
        client.wait_line("data: to the others")
        assert "data: to two" not in client.lines


def test_who_finds_the_queue_full_too_is_told_when_to_come_back_and_closed(detach: str, curl: Curl) -> None:
    with serve_command("--pool-size", "2", "--max-waiting", "1", detach) as server:
        for client in (curl(server), curl(server)):
            client.wait_line("event: ssepool.open")
        third = curl(server)
        server.wait_pool(waiting=1)
        fourth = curl(server)
        assert fourth.wait_end() == 18  # the transfer is not whole: it is to come back
        assert fourth.lines[0] == "HTTP/1.1 200 OK"
        assert next(line for line in fourth.lines if line.startswith("retry: ")).removeprefix("retry: ").isdigit()
        assert 'data: {"reason":"pool_full"}' in fourth.lines
        assert third.lines == []
        server.wait_pool(open=2, waiting=1, refused=1)


def test_who_leaves_the_queue_leaves_no_place_behind(server: LiveServer, curl: Curl) -> None:
    first, second = curl(server), curl(server)
    for client in (first, second):
        client.wait_line("event: ssepool.open")
    third = curl(server)
    server.wait_pool(waiting=1)
    fourth = curl(server)
    server.wait_pool(waiting=2)
    third.stop()
    server.wait_pool(waiting=1, cancelled=1)
    first.stop()
    fourth.wait_line("event: ssepool.open")
    server.wait_pool(open=2, waiting=0)
