"""Clients that read slowly or not at all, under each lag policy. The others do not notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wire
from live import LiveServer, Stream, wait_for
from live_fixtures import Connect, Start

pytestmark = pytest.mark.paths("detached", "plain", "hypercorn")

LINE = "x" * 16_000


class Flood:
    """Publishes numbered events until something shows, while a healthy client reads along."""

    def __init__(self, server: LiveServer, healthy: Stream, *topics: str) -> None:
        self.server, self.healthy, self.topics = server, healthy, topics
        self.published = 0

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.published < 20_000, "a client that reads nothing had no effect"
            batch = [
                {"topic": self.topics[number % len(self.topics)], "data": f"{number} {LINE}"}
                for number in range(self.published, self.published + 8)
            ]
            assert self.server.request("POST", "/events", batch)[0] == 201
            self.published += len(batch)
            self.healthy.until(lambda s: len(s.data) == self.published)

    def check_healthy(self) -> None:
        assert numbers(self.healthy) == list(range(self.published))
        assert not self.healthy.of_type("ssepool.gap")


def numbers(stream: Stream) -> list[int]:
    return [int(data.split()[0]) for data in stream.data]


def skipped(server: LiveServer) -> int:
    count: int = server.request("GET", "/pool")[1]["events"]["skipped"]
    return count


def stalled(server: LiveServer) -> bool:
    """Whether some client has not been sent everything that another one has."""
    sent = [connection["events_sent"] for connection in server.request("GET", "/connections")[1]["connections"]]
    return min(sent) + 30 < max(sent)


def around_gap(stream: Stream) -> tuple[list[int], list[int]]:
    """The numbers before and after the one gap of a stream."""
    kinds = [event.type for event in stream.events]
    assert kinds.count("ssepool.gap") == 1
    place = kinds.index("ssepool.gap")
    number = [int(event.data.split()[0]) for event in stream.events if event.type == "message"]
    return number[: place - 1], number[place - 1 :]  # the first event is ssepool.open


def test_skip_tells_the_gap_and_goes_on_with_the_newest(start: Start, connect: Connect) -> None:
    server = start(lag_policy="skip", lag_events=20, send_timeout=600)
    healthy = connect(server, "flood").opened()
    slow = connect(server, "flood", receive_buffer=4096).opened()
    flood = Flood(server, healthy, "flood")
    flood.until(lambda: stalled(server))

    slow.until(lambda s: s.of_type("ssepool.gap"))
    server.publish("flood", f"{flood.published} the end")
    slow.until(lambda s: s.data and s.data[-1].endswith("the end"))
    wire.check(slow.raw)

    (gap,) = slow.of_type("ssepool.gap")
    before, after = around_gap(slow)
    assert before == list(range(len(before)))
    assert after == list(range(after[0], flood.published + 1))
    assert gap["reason"] == "lagged"
    assert gap["skipped"] == after[0] - len(before) == skipped(server)
    assert gap["resumed"] == slow.events[1 + len(before) + 1].id
    flood.check_healthy()


def test_latest_sends_the_newest_event_of_each_topic(start: Start, connect: Connect) -> None:
    server = start(lag_policy="latest", lag_events=20, send_timeout=600)
    topics = ("flood/1", "flood/2")
    healthy = connect(server, patterns=("flood/:topic",)).opened()
    slow = connect(server, patterns=("flood/:topic",), receive_buffer=4096).opened()
    flood = Flood(server, healthy, *topics)
    flood.until(lambda: stalled(server))
    rare = flood.published
    server.publish("flood/rare", f"{rare} rare")
    flood.published += 1
    flood.until(lambda: flood.published > rare + 60)

    slow.until(lambda s: s.of_type("ssepool.gap"))
    end = flood.published
    server.publish("flood/1", f"{end} the end")
    slow.until(lambda s: s.data and s.data[-1].endswith("the end"))
    wire.check(slow.raw)

    (gap,) = slow.of_type("ssepool.gap")
    before, after = around_gap(slow)
    assert before == list(range(len(before)))
    assert after[0] == rare  # nothing newer has come to that topic
    assert after[1:] == list(range(after[1], end + 1)) and after[1] >= end - 2
    missed = end + 1 - len(before) - len(after)
    assert gap["skipped"] == missed == skipped(server)
    flood.check_healthy()


def test_disconnect_sends_the_laggard_away(start: Start, connect: Connect) -> None:
    server = start(lag_policy="disconnect", lag_events=20, send_timeout=1, reap_interval=0.05)
    healthy = connect(server, "flood").opened()
    slow = connect(server, "flood", receive_buffer=4096).opened()
    flood = Flood(server, healthy, "flood")
    flood.until(lambda: server.pool()["open"] == 1)
    # It does not even read the goodbye: it is cut off when its time is up.
    server.wait_pool(closing=0, open=1, released={"lagged": 1})
    flood.check_healthy()
    slow.to_end()
    assert numbers(slow) == list(range(len(numbers(slow))))


def test_disconnect_says_goodbye_to_a_laggard_that_reads_again(start: Start, connect: Connect) -> None:
    server = start(lag_policy="disconnect", lag_events=20, send_timeout=600)
    healthy = connect(server, "flood").opened()
    slow = connect(server, "flood", receive_buffer=4096).opened()
    flood = Flood(server, healthy, "flood")
    flood.until(lambda: server.pool()["closing"] == 1)
    slow.to_end()
    assert slow.of_type("ssepool.close") == [{"reason": "lagged"}]
    assert slow.retry
    wire.check(slow.raw)
    server.wait_pool(closing=0, open=1, released={"lagged": 1})
    # With the id of its last event it gets the rest from the broker.
    again = connect(server, "flood", last_event_id=slow.last_event_id)
    again.until(lambda s: len(s.data) + len(slow.data) == flood.published)
    assert numbers(slow) + numbers(again) == list(range(flood.published))
    assert not again.of_type("ssepool.gap")
    flood.check_healthy()


def test_a_client_that_stops_reading_is_cut_off(path: str, start: Start, connect: Connect) -> None:
    server = start(send_timeout=1, reap_interval=0.05, heartbeat_interval=0.5)
    healthy = connect(server, "flood").opened()
    slow = connect(server, "flood", receive_buffer=4096).opened()
    flood = Flood(server, healthy, "flood")
    flood.until(lambda: server.pool()["open"] == 1)
    server.wait_pool(closing=0, open=1, released={"send_timeout": 1})
    if path != "hypercorn":  # which has no way to drop a connection, and waits for the client to take its buffer
        wait_for(lambda: server.descriptors() <= server.descriptors_at_rest + 1)
    slow.to_end()
    assert numbers(slow) == list(range(len(numbers(slow))))
    flood.check_healthy()


def test_a_slow_client_is_no_reason_to_lose_anything_within_the_bounds(start: Start, connect: Connect) -> None:
    server = start(lag_events=20_000, lag_bytes=2**30, send_timeout=600)
    healthy = connect(server, "flood").opened()
    slow = connect(server, "flood", receive_buffer=4096).opened()
    flood = Flood(server, healthy, "flood")
    flood.until(lambda: stalled(server))
    slow.until(lambda s: len(s.data) == flood.published)
    assert numbers(slow) == list(range(flood.published))
    wire.check(slow.raw)
    flood.check_healthy()
    assert skipped(server) == 0
