"""A hub in an application: hooks, messages, streams of routes of its own, behind middleware."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

import wire
from live import LiveServer, Stream, wait_for
from live_fixtures import Connect, Start

SETTINGS = {"app": True, "size": 50}


def message(server: LiveServer, stream: Stream, data: Any, token: str | None = None) -> int:
    opened = stream.of_type("ssepool.open")[0]
    headers = {"Authorization": f"Bearer {token or opened['token']}"}
    return server.request("POST", f"/connections/{opened['connection']}/messages", data, headers)[0]


def counts(server: LiveServer) -> dict[str, dict[str, int]]:
    answer: dict[str, dict[str, int]] = server.request("GET", "/counts")[1]
    return answer


def test_a_message_reaches_the_hook_with_its_connection(server: LiveServer, connect: Connect) -> None:
    ann, ben = connect(server, "rooms/1", "messages").opened(), connect(server, "messages").opened()
    assert message(server, ann, {"text": "Hello!\nÜ"}) == 202
    ben.until(lambda s: s.data)
    assert json.loads(ben.data[0]) == {"from": ann.connection, "data": {"text": "Hello!\nÜ"}}
    ann.until(lambda s: s.of_type("echo"))
    assert ann.of_type("echo") == [{"echo": {"text": "Hello!\nÜ"}, "topics": ["messages", "rooms/1"]}]
    assert not ben.of_type("echo")


def test_a_message_needs_the_token_of_its_own_connection(server: LiveServer, connect: Connect) -> None:
    ann, ben = connect(server, "messages").opened(), connect(server, "messages").opened()
    assert message(server, ann, "x", token=ben.of_type("ssepool.open")[0]["token"]) == 401
    assert message(server, ann, "x", token="wrong") == 401
    ann.close()
    server.wait_pool(open=1)
    assert message(server, ann, "x") == 404
    assert not ben.data


def test_a_hook_may_send_before_anything_else(server: LiveServer, connect: Connect) -> None:
    server.publish("greetings", "published before")
    stream = connect(server, "greetings", data="greet me", query={"last_event_id": "earliest"})
    stream.until(lambda s: "published before" in s.data)
    assert [event.type for event in stream.events] == ["ssepool.open", "greeting", "message"]
    assert stream.of_type("greeting") == [{"hello": stream.connection}]


def test_a_hook_may_send_the_client_away(server: LiveServer, connect: Connect) -> None:
    before = server.pool()["released"]["kicked"]
    stream = connect(server, "a", data="kick me").to_end()
    assert [event.type for event in stream.events] == ["ssepool.open", "ssepool.close"]
    server.wait_pool(open=0, released={"kicked": before + 1})


def test_a_failing_hook_is_logged_and_stops_nobody(
    server: LiveServer, connect: Connect, expected_trouble: list[str]
) -> None:
    expected_trouble += ["Traceback", "on purpose"]
    stream = connect(server, "fails", data="fail").opened()
    server.publish("fails", "x")
    stream.wait_data("x")
    server.said("on purpose")


def test_own_events_of_one_connection_wait_for_room_and_keep_their_order(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, "own", receive_buffer=4096).opened()
    other = connect(server, "own").opened()
    # More than the outbox and the sockets' buffers hold, while published events come too.
    sender = threading.Thread(target=message, args=(server, stream, {"flood": 3000}))
    sender.start()
    for number in range(50):
        server.publish("own", number)
    stream.until(lambda s: len(s.data) == 3050)
    sender.join()
    own = [int(event.data.split()[0]) for event in stream.events if event.type == "own"]
    published = [int(event.data) for event in stream.events if event.type == "message"]
    assert own == list(range(3000))
    assert published == list(range(50))
    wire.check(stream.raw)
    other.wait_data(*[str(number) for number in range(50)])


@pytest.mark.parametrize("prefix", ["", "/wrapped"])
def test_a_route_streams_to_a_user(server: LiveServer, connect: Connect, prefix: str) -> None:
    user = f"ann{len(prefix)}"
    stream = connect(server, path=f"{prefix}/mine/{user}", headers={"Accept-Encoding": "identity"}).opened()
    if prefix:
        assert stream.headers["x-middleware"] == "was here"
    server.publish(f"of/{user}", "open")
    server.publish(f"of/{user}", "private", private=True)
    stream.wait_data("open", "private")
    found = server.request("GET", f"/connections/{stream.connection}")[1]
    assert (found["user"], found["data"], found["topics"]) == (user, {"page": 3}, [f"of/{user}"])
    before = server.pool()["released"]["client_closed"]
    stream.close()
    server.wait_pool(open=0, released={"client_closed": before + 1})


def test_a_wrapped_stream_is_replayed_and_kicked_like_any_other(server: LiveServer, connect: Connect) -> None:
    first = server.publish("of/bob", 0)
    server.publish("of/bob", 1)
    stream = connect(server, path="/wrapped/mine/bob", last_event_id=first)
    stream.wait_data("1")
    server.publish("of/bob", 2)
    stream.wait_data("1", "2")
    assert server.request("DELETE", f"/connections/{stream.connection}?seconds=0")[0] == 204
    assert stream.to_end().of_type("ssepool.close") == [{"reason": "kicked"}]


def test_a_user_who_was_kicked_is_told_to_stay_away_for_good(server: LiveServer, connect: Connect) -> None:
    stream = connect(server, path="/mine/mallory").opened()
    assert server.request("DELETE", f"/connections/{stream.connection}?seconds=60")[0] == 204
    assert stream.to_end().of_type("ssepool.close") == [{"reason": "kicked"}]
    back = connect(server, path="/mine/mallory", headers={"Connection": "close"}).to_end()
    assert (back.status, back.raw) == (204, b"")
    connect(server, path="/mine/nobody").opened()


def test_middleware_that_watches_for_departures_is_told_of_no_wrong_one(start: Start, connect: Connect) -> None:
    server = start(app=True, size=1, acquire_timeout=600)
    first = connect(server, path="/watched/mine/ann").opened()
    leaver, waiting = connect(server, path="/watched/mine/ben"), connect(server, path="/watched/mine/cy")
    server.wait_pool(waiting=2)
    leaver.close()
    server.wait_pool(waiting=1, cancelled=1)
    first.close()
    waiting.opened()
    server.publish("of/cy", "x")
    waiting.wait_data("x")


def test_hooks_see_each_connection_come_and_go_once(start: Start, connect: Connect) -> None:
    server = start(app=True, size=3, acquire_timeout=0.3, reap_interval=0.05)
    streams = [connect(server, "a", data=number).opened() for number in range(3)]
    late = connect(server, "a", data="late").to_end()  # which never gets a connection
    assert late.of_type("ssepool.close") == [{"reason": "timed_out"}]
    streams[0].close()
    server.wait_pool(open=2)
    streams[1].close(reset=True)
    server.wait_pool(open=1)
    server.request("DELETE", f"/connections/{streams[2].connection}")
    streams[2].to_end()
    server.wait_pool(open=0)
    seen = {"connects": {"0": 1, "1": 1, "2": 1}, "disconnects": {"client_closed": 2, "kicked": 1}}
    wait_for(lambda: counts(server) == seen, what=f"{seen}")
