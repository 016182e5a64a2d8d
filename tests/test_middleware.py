"""Streams behind the middleware of an application, which must see them as any other response, detached or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from live import PATHS, LiveServer, Stream, serve_app

FRIEND = {"Origin": "https://friend.example"}


@pytest.fixture(scope="module", params=PATHS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("middleware_app:app", request.param, size=5, retry=0.05) as server:
        yield server


def listen(server: LiveServer, topic: str, **options: Any) -> Stream:
    return Stream(server, path=f"/topics/{topic}", **options)


def test_headers_of_all_middleware_are_on_a_streams_head(server: LiveServer) -> None:
    with listen(server, "headers", headers={**FRIEND, "Accept-Encoding": "gzip"}).opened() as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["access-control-allow-origin"] == FRIEND["Origin"]
        assert stream.headers["access-control-allow-credentials"] == "true"
        assert stream.headers["access-control-expose-headers"] == "x-seen"
        assert "Origin" in stream.headers["vary"]
        assert stream.headers["x-seen"] == "/topics/headers"
        assert stream.headers["set-cookie"].startswith("visited=yes")
        assert "content-encoding" not in stream.headers
        assert "content-length" not in stream.headers


def test_a_page_of_another_site_gets_no_leave_to_read(server: LiveServer) -> None:
    with listen(server, "headers", headers={"Origin": "https://stranger.example"}).opened() as stream:
        assert "access-control-allow-origin" not in stream.headers


def test_a_preflight_for_last_event_id_is_answered(server: LiveServer) -> None:
    asked = {**FRIEND, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "last-event-id"}
    assert server.request("OPTIONS", "/topics/a", headers=asked)[0] == 200


def test_events_come_through_at_once_in_order_and_whole(server: LiveServer) -> None:
    with listen(server, "many").opened() as stream:
        for number in range(3):
            server.publish("many", f"alone {number}")
            stream.until(lambda s, n=number: s.data[-1:] == [f"alone {n}"])
        server.request("POST", "/events", [{"topic": "many", "data": "x" * number} for number in range(1000)])
        stream.until(lambda s: len(s.data) == 1003)
        assert stream.data[3:] == ["x" * number for number in range(1000)]


def test_a_client_that_leaves_is_seen_at_once(server: LiveServer) -> None:
    for reset in (False, True):
        stream = listen(server, "leaving").opened()
        server.wait_pool(open=1)
        stream.close(reset=reset)
        server.wait_pool(free=5)


def test_a_waiting_client_that_leaves_is_out_of_the_queue_and_who_stays_is_served(server: LiveServer) -> None:
    streams = [listen(server, "full").opened() for _ in range(5)]
    leaves = listen(server, "full")
    server.wait_pool(waiting=1)
    stays = listen(server, "full")
    server.wait_pool(waiting=2)
    leaves.close()
    server.wait_pool(waiting=1)
    assert not stays.read(0)
    streams[0].close()
    with stays.opened():
        server.publish("full", "hello")
        stays.wait_data("hello")
    for stream in streams[1:]:
        stream.close()
    server.wait_pool(free=5)


def test_a_kicked_client_is_told_why(server: LiveServer) -> None:
    with listen(server, "kicked").opened() as stream:
        assert server.request("DELETE", f"/connections/{stream.connection}")[0] in (200, 204)
        assert stream.to_end().of_type("ssepool.close") == [{"reason": "kicked"}]
    with listen(server, "kicked") as back:
        assert back.to_end().of_type("ssepool.close") == [{"reason": "kicked"}]
        assert back.headers["x-seen"] == "/topics/kicked"


def test_a_generators_stream_ends_by_itself(server: LiveServer) -> None:
    with Stream(server, path="/count") as stream:
        assert stream.to_end().data == ["0", "1", "2", "3", "4"]
        assert stream.of_type("ssepool.close") == [{"reason": "completed"}]


def test_middleware_may_refuse(server: LiveServer) -> None:
    with listen(server, "refused", headers={"X-Stop": "1"}) as stream:
        assert stream.until(lambda s: s.status).status == 403
    server.wait_pool(reserved=0, waiting=0)


@pytest.mark.parametrize("asked", ["/topics/replaced", "/count", "/fails/replaced"])
def test_middleware_may_put_another_response_in_a_streams_place(server: LiveServer, asked: str) -> None:
    assert server.request("GET", asked, headers={"X-Replace": "1"}) == (418, "something else")
    server.wait_pool(free=5)
    if "fails" in asked:
        assert server.request("GET", "/ended")[1].count("replaced") == 1


@pytest.mark.parametrize("name", ["events", "own"])
def test_a_cut_stream_does_not_look_complete_and_a_complete_one_not_cut(server: LiveServer, name: str) -> None:
    assert ends_whole(server, "/count")
    # A client that has the hub's own events is told of the failure in one; any other has nothing but the cut.
    assert ends_whole(server, f"/fails/{name}") is (name == "events")


def ends_whole(server: LiveServer, path: str) -> bool:
    with httpx.stream("GET", server.url + path) as response:
        try:
            return bool(response.read())
        except httpx.RemoteProtocolError:
            return False


@pytest.mark.parametrize("path", PATHS)
def test_the_server_ends_while_streams_are_open_and_nothing_but_cuts_is_logged_as_an_error(path: str) -> None:
    with serve_app("middleware_app:app", path) as server:
        streams = [listen(server, "ending").opened() for _ in range(3)]
        with listen(server, "left").opened():
            pass
        server.wait_pool(open=3)
        server.stop(seconds=8)
        for stream in streams:
            with stream.to_end():
                assert stream.of_type("ssepool.close") == [{"reason": "shutdown"}]
    log = "".join(server.log)
    # On plain ASGI an error of the server's is what tells clients of a cut, where middleware has a response of its own.
    cuts = log.count("http.response.pathsend")
    assert cuts == (0 if path == "detached" else 3), log
    assert log.count("ERROR") == cuts, log
