"""Streams that the hub ends: each client is told why, and when to come back."""

from __future__ import annotations

import time

import pytest

from live import LiveServer, Stream, wait_for
from live_fixtures import Connect, Start, goodbye

pytestmark = pytest.mark.paths("detached", "plain", "hypercorn")


def test_an_idle_client_is_let_go_and_a_busy_one_is_not(start: Start, connect: Connect) -> None:
    server = start(idle_timeout=1.5, reap_interval=0.05, heartbeat_interval=0.2)
    busy = connect(server, "busy").opened()
    idle = connect(server, "idle").opened()
    while not idle.ended:
        server.publish("busy", "work")
        idle.read(0.05)
    assert goodbye(idle) == "idle"
    assert len(idle.comments) > 2  # heartbeats are no activity
    server.wait_pool(open=1, released={"idle": 1})
    busy.until(lambda s: s.data)


def test_a_lifetime_ends_streams_that_are_busy_too(start: Start, connect: Connect) -> None:
    server = start(max_lifetime=0.5, reap_interval=0.05)
    stream = connect(server, "a").opened()
    while not stream.ended:
        server.publish("a", "work")
        stream.read(0.05)
    assert goodbye(stream) == "lifetime"
    server.wait_pool(open=0, released={"lifetime": 1})
    again = connect(server, "a", last_event_id=stream.last_event_id)
    server.publish("a", "the end")
    again.until(lambda s: "the end" in s.data)
    assert not again.of_type("ssepool.gap")


def test_heartbeats_of_many_connections_are_spread(start: Start, connect: Connect) -> None:
    server = start(heartbeat_interval=2, reap_interval=0.05, size=20)
    streams = [connect(server, "quiet").opened() for _ in range(20)]
    came: dict[Stream, float] = {}

    def all_came() -> bool:
        for stream in streams:
            stream.read(0)
            if stream.comments:
                came.setdefault(stream, time.monotonic())
        return len(came) == len(streams)

    wait_for(all_came)
    # All at once they would be within milliseconds of each other; a busy machine only draws them apart.
    assert max(came.values()) - min(came.values()) > 0.5


def test_a_kicked_client_is_told_so_and_kept_away_for_a_while(start: Start, connect: Connect) -> None:
    server = start()
    stream = connect(server, "a", data={"name": "Ann"}).opened()
    other = connect(server, "a", data={"name": "Ben"}).opened()
    assert server.request("DELETE", f"/connections/{stream.connection}?seconds=600")[0] == 204
    assert goodbye(stream) == "kicked"
    server.wait_pool(open=1, released={"kicked": 1})

    # Another behind the same address may look like this; it is to come back, if only after the ban or 5 minutes.
    back = connect(server, "a", data={"name": "Ann"}).to_end()
    assert (back.status, goodbye(back)) == (200, "kicked")
    assert 300_000 + 3000 <= (back.retry or 0) <= 300_000 + 6000
    assert server.pool()["requests"] == 2  # which took no slot
    connect(server, "a", data={"name": "Cy"}).opened()
    server.publish("a", "x")
    other.wait_data("x")


def test_a_kicked_client_may_come_back_later(start: Start, connect: Connect) -> None:
    server = start()
    stream = connect(server, "a").opened()
    assert server.request("DELETE", f"/connections/{stream.connection}?seconds=1")[0] == 204
    stream.to_end()

    def returns() -> bool:
        again = connect(server, "a").until(lambda s: s.events)
        return again.events[0].type == "ssepool.open"

    early = connect(server, "a").to_end()
    assert goodbye(early) == "kicked"
    assert 3000 <= (early.retry or 0) <= 7000
    wait_for(returns)


def test_a_drain_sends_everybody_away_over_its_time(start: Start, connect: Connect) -> None:
    server = start(size=20, reap_interval=0.05, max_waiting=5)
    streams = [connect(server, "a").opened() for _ in range(20)]
    waiting = connect(server, "a")
    server.wait_pool(waiting=1)
    assert server.request("POST", "/pool/drain", {"seconds": 1.5})[0] == 202
    # Waiters are answered at once, newcomers too.
    assert [data["reason"] for data in waiting.to_end().of_type("ssepool.close")] == ["pool_closed"]
    late = connect(server, "a").to_end()
    assert (late.status, [data["reason"] for data in late.of_type("ssepool.close")]) == (200, ["pool_closed"])
    assert not waiting.whole and not late.whole  # fetch-event-source and Datastar would not come back

    left: list[int] = []

    def all_left() -> bool:
        left.append(server.pool()["open"])
        return left[-1] == 0

    wait_for(all_left)
    assert {goodbye(stream) for stream in streams} == {"drained"}
    assert len({stream.retry for stream in streams}) > 5  # so that they do not come back together
    assert len(set(left)) > 2  # nor did they leave so
    assert server.wait_pool(open=0, released={"drained": 20})["state"] == "draining"


def test_on_drain_reject_answers_503_so_that_a_proxy_asks_another_node(start: Start, connect: Connect) -> None:
    server = start(size=1, on_drain="reject")
    connect(server, "a").opened()
    waiting = connect(server, "a")
    server.wait_pool(waiting=1)
    assert server.request("POST", "/pool/drain", {"seconds": 60})[0] == 202
    assert waiting.until(lambda s: s.status and s.raw).status == 503
    status, answer = server.request("GET", "/events?topic=a")
    assert (status, answer["error"]["code"]) == (503, "pool_closed")


def test_on_drain_says_nothing_about_a_full_pool(start: Start, connect: Connect) -> None:
    server = start(size=1, max_waiting=0, on_drain="reject")
    connect(server, "a").opened()
    assert connect(server, "a").to_end().status == 200


def test_a_client_that_is_sent_away_while_it_does_not_read_is_cut_off(start: Start, connect: Connect) -> None:
    server = start(send_timeout=1, reap_interval=0.05, heartbeat_interval=3600)
    stream = connect(server, "a", receive_buffer=4096).opened()
    batch = [{"topic": "a", "data": "x" * 16_000} for _ in range(100)]

    def behind() -> bool:
        assert server.request("POST", "/events", batch)[0] == 201
        (connection,) = server.request("GET", "/connections")[1]["connections"]
        return connection["events_sent"] < server.request("GET", "/pool")[1]["events"]["published"]

    wait_for(behind)
    assert server.request("DELETE", f"/connections/{stream.connection}")[0] == 204
    server.wait_pool(open=0, closing=0, released={"kicked": 1})
    stream.to_end()


def test_slots_are_reused_by_who_comes_next(start: Start, connect: Connect) -> None:
    server: LiveServer = start(size=1, acquire_timeout=600)
    seen = set()
    for _ in range(20):
        stream = connect(server, "a").opened()
        seen.add(stream.connection)
        stream.close()
    assert len(seen) == 20
    assert server.wait_pool(open=0)["granted"] == 20
