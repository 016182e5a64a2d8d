"""What is published arrives: all of it, once, in order, as it was written, and at nobody else's."""

from __future__ import annotations

import json
import threading

import pytest

import wire
from live import LiveServer, wait_for
from live_fixtures import Connect

# Heartbeats as often as they can be, so that they come between everything.
SETTINGS = {"size": 100, "heartbeat_interval": 0.04, "reap_interval": 0.01}


def test_events_of_one_topic_arrive_in_order(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "one").opened()
    ids = [server.publish("one", f"event {number}") for number in range(20)]
    stream.wait_data(*[f"event {number}" for number in range(20)])
    assert [event.id for event in stream.events if event.type == "message"] == ids


def test_one_stream_has_several_topics_in_the_order_of_publishing(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "first", "second").opened()
    other = connect(server, "third").opened()
    for topic in ("first", "second", "third", "second", "first"):
        server.publish(topic, f"to {topic}")
    stream.wait_data("to first", "to second", "to second", "to first")
    other.wait_data("to third")


def test_an_event_of_several_topics_arrives_once(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "left", "right", patterns=("l:rest",)).opened()
    one = connect(server, "right").opened()
    server.request("POST", "/events", {"topics": ["left", "right"], "data": "both"})
    server.publish("right", "end")
    stream.wait_data("both", "end")
    one.wait_data("both", "end")


def test_patterns_match_topics(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, patterns=("orders/:id",)).opened()
    for topic in ("orders/1", "orders", "orders/1/items", "invoices/1", "orders/two"):
        server.publish(topic, topic)
    stream.wait_data("orders/1", "orders/two")


def test_private_events_are_not_on_open_streams(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "secret", patterns=("secre:rest",)).opened()
    hidden = server.publish("secret", "hidden", private=True)
    server.publish("secret", "shown")
    stream.wait_data("shown")
    again = connect(server, "secret", last_event_id=hidden).opened()
    again.wait_data("shown")


def test_type_id_and_retry_are_written(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "fields").opened()
    server.publish("fields", "x", type="update", id="my-own-1", retry=1234)
    stream.wait_data("x")
    event = stream.events[-1]
    assert (event.type, event.id, stream.retry) == ("update", "my-own-1", 1234)
    assert b"id: my-own-1\nevent: update\nretry: 1234\ndata: x\n\n" in stream.raw


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ("a\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\n\r\n\rb", "a\n\n\nb"),
        ("\n", "\n"),
        ("", ""),
        (" leading space", " leading space"),
        ("data: not a field\n\nid: 7", "data: not a field\n\nid: 7"),
        ("\u2028 \u0085 \u00fc \U0001f600 \0", "\u2028 \u0085 \u00fc \U0001f600 \0"),
    ],
)
def test_any_data_arrives_with_its_lines(server: LiveServer, connect: Connect, data: str, seen: str) -> None:
    stream = connect(server, "lines").opened()
    server.publish("lines", data)
    server.publish("lines", "end")
    stream.wait_data(seen, "end")
    wire.check(stream.raw)


def test_json_arrives_as_json(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "json").opened()
    value = {"a": [1, 2.5, None, True], "ü": "\n"}
    server.publish("json", value)
    stream.until(lambda s: s.data)
    assert json.loads(stream.data[0]) == value


def test_an_event_of_a_megabyte_arrives_whole(server: LiveServer, connect: Connect) -> None:
    streams = [connect(server, "big").opened() for _ in range(3)]
    data = "0123456789abcde\n" * (2**16 - 2**13)  # on the wire `data: ` comes before each line
    data = data[: 700 * 1024]
    server.publish("big", data)
    server.publish("big", "end")
    for stream in streams:
        stream.wait_data(data, "end")
        wire.check(stream.raw)


def test_a_burst_to_many_clients_loses_and_doubles_nothing(server: LiveServer, connect: Connect) -> None:
    total, batch = 5000, 250
    streams = [connect(server, "burst").opened() for _ in range(20)]
    before = server.request("GET", "/pool")[1]["events"]["delivered"]

    def publish() -> None:
        for start in range(0, total, batch):
            events = [{"topic": "burst", "data": number} for number in range(start, start + batch)]
            assert server.request("POST", "/events", events)[0] == 201

    publisher = threading.Thread(target=publish)
    publisher.start()
    expected = [str(number) for number in range(total)]
    for stream in streams:
        stream.wait_data(*expected)
        wire.check(stream.raw)
    publisher.join()
    wait_for(lambda: server.request("GET", "/pool")[1]["events"]["delivered"] == before + 20 * total)


def test_frames_of_a_slow_reader_are_never_broken_by_heartbeats(server: LiveServer, connect: Connect) -> None:
    slow = connect(server, "slow", receive_buffer=4096).opened()
    line = "x" * 1000 + "\n"
    expected = []
    for number in range(40):  # far more than the sockets' buffers hold together
        data = str(number) + line * (1 + number * 5)
        expected.append(data)
        server.publish("slow", data)
    slow.wait_data(*expected)
    slow.until(lambda s: len(s.comments) > 1)
    wire.check(slow.raw)


def test_heartbeats_are_comments_of_one_line(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "quiet").opened()
    stream.until(lambda s: len(s.comments) >= 3)
    server.publish("quiet", "not so quiet")
    stream.wait_data("not so quiet")
    _, comments = wire.check(stream.raw)
    assert set(comments) == {b": heartbeat\n"}


def test_the_head_says_what_streams_need(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "head").opened()
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert "content-length" not in stream.headers
    opened = stream.of_type("ssepool.open")[0]
    assert set(opened) == {"connection", "token", "node"}
    assert stream.events[0].type == "ssepool.open"


def test_head_is_answered_without_a_slot(server: LiveServer, connect: Connect) -> None:
    before = server.pool()["requests"]
    stream = connect(server, "head", method="HEAD", headers={"Connection": "close"}).to_end()
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.raw == b""
    assert server.pool()["requests"] == before


def test_options_is_answered(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "head", method="OPTIONS", headers={"Connection": "close"}).to_end()
    assert stream.status in (200, 204)
    assert {"GET", "HEAD", "POST", "OPTIONS"} <= set(stream.headers["allow"].replace(" ", "").split(","))


def test_a_wrong_subscription_is_refused_before_it_takes_a_slot(server: LiveServer, connect: Connect) -> None:
    before = server.pool()["requests"]
    for path in ("/events", "/events?topic=", "/events?topic=a&colour=red", "/events?topic=a&data={"):
        status, answer = server.request("GET", path)
        assert status == 400, path
        assert answer["error"]["code"] and answer["error"]["message"]
    assert server.pool()["requests"] == before
