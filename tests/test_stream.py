"""`Hub.stream`, `Hub.response`, connections and hooks in an application, on every path that a stream can take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.requests import Request

from live import PATHS, LiveServer, Stream, serve_app, wait_for
from source import END, FAIL, Source
from ssepool import Hub, InvalidTopic

COMPLETED, ERROR = [{"reason": "completed"}], [{"reason": "error"}]
COMPLETED_ID, FAILED_ID = "ssepool.completed", "ssepool.failed"


@pytest.fixture(scope="module", params=PATHS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("stream_app:app", request.param, send_timeout=1) as server:
        yield server


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# A generator without a topic.


def test_a_generators_events_come_in_order_and_then_the_end(server: LiveServer) -> None:
    source = Source(server)
    with source.ask().opened() as stream:
        source.feed("plain", {"data": {"n": 1}, "type": "step", "id": "step-1"}, {"data": "two\nlines"}, END)
        stream.to_end()
        assert stream.data == ["plain", '{"n":1}', "two\nlines"]
        assert [(event.type, event.id) for event in stream.events[1:]] == [
            ("message", ""),
            ("step", "step-1"),
            ("message", "step-1"),
            ("ssepool.close", COMPLETED_ID),
        ]
        assert stream.of_type("ssepool.close") == COMPLETED
    assert source.counts == {"made": 1, "begun": 1, "pulled": 3, "closed": 1}


def test_who_comes_back_after_the_end_is_told_to_stay_away_and_no_generator_runs(server: LiveServer) -> None:
    source = Source(server)
    assert source.refused(last_event_id=COMPLETED_ID) == 204
    source.wait(made=1, begun=0, closed=1)


def test_each_client_has_a_generator_of_its_own(server: LiveServer) -> None:
    source = Source(server)
    with source.ask().opened(), source.ask().opened():
        source.wait(made=2, begun=2)


def test_a_client_that_leaves_ends_its_generator(server: LiveServer) -> None:
    source = Source(server)
    with source.ask() as stream:
        source.feed("one")
        stream.wait_data("one")
        assert source.counts["closed"] == 0
    source.wait(closed=1, pulled=1)


def test_a_kicked_client_ends_its_generator(server: LiveServer) -> None:
    source = Source(server)
    with source.ask().opened() as stream:
        server.request("POST", f"/kick/{stream.connection}")
        assert stream.to_end().of_type("ssepool.close") == [{"reason": "kicked"}]
    source.wait(begun=1, closed=1)


def test_a_generator_that_fails_ends_the_stream_with_an_error_and_what_came_before(server: LiveServer) -> None:
    source = Source(server)
    with source.ask().opened() as stream:
        source.feed("one", "two", FAIL)
        stream.to_end()
        assert stream.data == ["one", "two"]
        assert stream.of_type("ssepool.close") == ERROR
        assert stream.last_event_id == FAILED_ID
    assert source.refused(last_event_id=FAILED_ID) == 204
    server.said(f"the source {source.name} failed")
    source.wait(begun=1, closed=2)


def test_an_item_that_is_no_event_ends_the_stream_with_an_error(server: LiveServer) -> None:
    source = Source(server)
    with source.ask().opened() as stream:
        source.feed("one", {"data": "two", "id": "no spaces"})
        assert stream.to_end().data == ["one"]
        assert stream.of_type("ssepool.close") == ERROR


def test_head_is_answered_and_runs_no_generator(server: LiveServer) -> None:
    source = Source(server)
    assert server.request("HEAD", source.path)[0] == 200
    source.wait(made=1, begun=0, closed=1)


def test_a_generator_is_not_pulled_far_ahead_of_a_client_that_does_not_read(server: LiveServer) -> None:
    source = Source(server, "flood")
    with source.ask(receive_buffer=4096).opened():
        source.wait(closed=1)  # because of send_timeout
    # The kernel's buffers take some megabytes, the server's a few; without bounds it would be hundreds.
    assert source.counts["pulled"] * 65_536 < 16 << 20


@pytest.mark.parametrize("named", [False, True])
def test_a_generator_that_never_pauses_leaves_time_for_others(server: LiveServer, named: bool) -> None:
    source = Source(server, "busy", named=named)
    with source.ask() as stream:
        stream.to_end()
    assert len(stream.data) == source.counts["pulled"] == 20_000
    assert source.counts["turns"] > 20  # of the event loop


# A generator with a topic.


def test_a_named_generator_goes_on_when_its_client_leaves_which_then_resumes_with_exactly_the_rest(
    server: LiveServer,
) -> None:
    source = Source(server, named=True)
    with source.ask() as first:
        source.feed("one", "two")
        first.wait_data("one", "two")
    source.feed("three", "four")
    source.wait(pulled=4)
    with source.ask(last_event_id=first.last_event_id) as second:
        second.wait_data("three", "four")
        source.feed("five", END)
        second.to_end()
        assert second.data == ["three", "four", "five"]
        assert second.of_type("ssepool.close") == COMPLETED
        assert second.of_type("ssepool.gap") == []
    source.wait(made=2, begun=1, pulled=5, closed=2)


def test_all_viewers_of_a_named_generator_see_all_of_it(server: LiveServer) -> None:
    source = Source(server, named=True)
    with source.ask() as early:
        source.feed("one", "two")
        early.wait_data("one", "two")
        with source.ask() as late:
            late.wait_data("one", "two")
            source.feed("three", END)
            for viewer in (early, late):
                assert viewer.to_end().data == ["one", "two", "three"]
                assert viewer.of_type("ssepool.close") == COMPLETED
            assert [event.id for event in early.events[1:]] == [event.id for event in late.events[1:]]
    source.wait(made=2, begun=1, closed=2)


def test_who_comes_after_the_end_of_a_named_generator_gets_everything_and_the_end(server: LiveServer) -> None:
    source = Source(server, named=True)
    with source.ask() as first:
        source.feed("one", "two", END)
        first.to_end()
    with source.ask() as second:
        second.to_end()
        assert second.data == first.data == ["one", "two"]
        assert second.of_type("ssepool.close") == COMPLETED
    source.wait(made=2, begun=1, closed=2)


def test_who_has_all_of_a_named_generator_is_told_to_stay_away(server: LiveServer) -> None:
    source = Source(server, named=True)
    with source.ask() as stream:
        source.feed("one", "two")
        stream.wait_data("one", "two")
        server.publish("others", "what is published elsewhere makes no difference")
        source.feed(END)
        stream.to_end()
    one, two = (event.id for event in stream.events if event.type == "message")
    assert source.refused(last_event_id=two) == 204
    assert source.refused(last_event_id=COMPLETED_ID) == 204
    with source.ask(last_event_id=one) as rest:
        assert rest.to_end().data == ["two"]


def test_a_named_generator_that_fails_ends_with_an_error_for_all_now_and_later(server: LiveServer) -> None:
    source = Source(server, named=True)
    with source.ask().opened() as now:
        source.feed("one", FAIL)
        now.to_end()
    with source.ask() as later:
        later.to_end()
    for viewer in (now, later):
        assert viewer.data == ["one"]
        assert viewer.of_type("ssepool.close") == ERROR
        assert viewer.whole  # it has been told, and is not to come back
    assert source.refused(last_event_id=now.last_event_id) == 204
    source.wait(begun=1)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("item", ["RELEASED", "CANCELLED"])
def test_a_generator_that_fails_in_an_unusual_way_fails_all_the_same(
    server: LiveServer, item: str, named: bool
) -> None:
    source = Source(server, named=named)
    with source.ask().opened() as stream:
        source.feed("one", item)
        assert stream.to_end().data == ["one"]
        assert stream.of_type("ssepool.close") == ERROR
    source.wait(closed=1)


def test_a_topic_may_be_used_anew_once_its_events_are_kept_no_longer(path: str) -> None:
    with serve_app("stream_app:app", path, history_age=0.2, reap_interval=0.05) as server:
        source = Source(server, named=True)
        source.feed("one", END, "two", END)
        with source.ask() as first:
            assert first.to_end().data == ["one"]

        def again() -> list[str]:
            with source.ask() as stream:
                return stream.to_end().data

        wait_for(lambda: again() == ["two"])
        source.wait(begun=2)


def test_a_named_generators_private_events_go_to_its_viewers_and_to_nobody_else_outside(server: LiveServer) -> None:
    source = Source(server, named=True)
    topic = f"answers/{source.name}"
    with source.ask().opened() as viewer, Stream(server, topic).opened() as outsider:
        source.feed({"data": "for you", "private": True}, {"data": "for all"}, END)
        assert viewer.to_end().data == ["for you", "for all"]
        outsider.wait_data("for all")


def test_viewers_of_a_named_generator_also_get_what_others_publish_there(server: LiveServer) -> None:
    source = Source(server, named=True)
    with source.ask().opened() as viewer:
        server.publish(f"answers/{source.name}", "by the way")
        viewer.wait_data("by the way")


# What is refused at once.


async def numbers() -> AsyncIterator[int]:
    yield 1


REQUEST = Request({"type": "http", "method": "GET", "headers": [], "query_string": b"", "path": "/"})


@pytest.mark.parametrize("source", [numbers, [1, 2], iter("ab"), None])
def test_a_source_that_is_not_asynchronous_is_refused_at_once(source: Any) -> None:
    with pytest.raises(TypeError, match="async for"):
        Hub().stream(REQUEST, source)


@pytest.mark.parametrize("topic", ["", "a\nb"])
def test_a_topic_that_is_none_is_refused_at_once(topic: str) -> None:
    with pytest.raises(InvalidTopic):
        Hub().stream(REQUEST, numbers(), topic=topic)


# A full pool.


def test_who_is_turned_away_has_its_generator_closed_unused_and_the_topic_is_free(path: str) -> None:
    with serve_app("stream_app:app", path, size=1, max_waiting=0, on_full="reject") as server:
        unnamed, named = Source(server), Source(server, named=True)
        with Stream(server, "topic").opened():
            for source in (unnamed, named):
                assert source.refused() == 503
                source.wait(made=1, begun=0, closed=1)
        server.wait_pool(free=1)
        with named.ask() as stream:
            named.feed("one", END)
            assert stream.to_end().data == ["one"]
        named.wait(made=2, begun=1, closed=2)


def test_who_leaves_the_queue_has_its_generator_closed_unused(path: str) -> None:
    with serve_app("stream_app:app", path, size=1) as server, Stream(server, "topic").opened():
        for source in (Source(server), Source(server, named=True)):
            with source.ask():
                server.wait_pool(waiting=1)
            server.wait_pool(waiting=0)
            source.wait(made=1, begun=0, closed=1)


def test_a_generator_begins_when_its_client_gets_a_slot(path: str) -> None:
    with serve_app("stream_app:app", path, size=1) as server, Stream(server, "topic").opened() as first:
        source = Source(server)
        source.feed("one", END)
        with source.ask() as stream:
            server.wait_pool(waiting=1)
            assert source.counts["begun"] == 0
            first.close()
            assert stream.to_end().data == ["one"]


def test_generators_are_closed_when_the_server_ends(path: str) -> None:
    with serve_app("stream_app:app", path) as server:
        watched, left = Source(server, "watched", named=True), Source(server, "left", named=True)
        alone = Source(server, "alone")
        with left.ask().opened():
            pass
        server.wait_pool(free=server.pool()["size"])
        with watched.ask().opened() as viewer, alone.ask().opened() as client:
            server.stop()
            assert viewer.to_end().of_type("ssepool.close")[0]["reason"] == "shutdown"
            assert client.to_end().of_type("ssepool.close")[0]["reason"] == "shutdown"
    log = "".join(server.log)
    for source in (watched, left, alone):
        assert f"closed {source.name}" in log
    assert "Traceback" not in log


# A response of the application's own, and what it keeps on a connection.


def test_a_response_keeps_user_and_data_on_its_connection(server: LiveServer) -> None:
    with Stream(server, path="/listen/mine?as=ann").opened() as stream:
        status, answer = server.request("GET", f"/connections/{stream.connection}")
        assert status == 200
        assert (answer["user"], answer["data"], answer["topics"]) == ("ann", {"page": 3}, ["mine"])


def test_a_response_resumes_from_an_id_of_the_applications_choice(server: LiveServer) -> None:
    first, *_ = [server.publish("chosen", text) for text in ("one", "two", "three")]
    with Stream(server, path=f"/listen/chosen?since={first}").opened() as stream:
        stream.wait_data("two", "three")


def test_a_response_gets_private_events_and_get_events_does_not(server: LiveServer) -> None:
    with Stream(server, path="/listen/secrets").opened() as inside, Stream(server, "secrets").opened() as outside:
        server.publish("secrets", "private", private=True)
        server.publish("secrets", "public")
        inside.wait_data("private", "public")
        outside.wait_data("public")


def test_what_is_sent_to_one_client_keeps_its_place_among_what_is_published(server: LiveServer) -> None:
    with Stream(server, path="/listen/order").opened() as stream, Stream(server, "order").opened() as other:
        steps: list[list[str]] = []
        for number in range(200):
            steps += [["publish", "order", f"to all {number}"], ["send", f"to one {number}"]]
            if number % 3 == 0:
                steps.append(["send", f"to one again {number}"])
        server.request("POST", f"/send/{stream.connection}", steps)
        stream.wait_data(*[step[-1] for step in steps])
        other.wait_data(*[step[-1] for step in steps if step[0] == "publish"])


# Hooks and handles.


def calls(server: LiveServer, connection: str) -> list[list[Any]]:
    """The calls of hooks for one connection, without its id."""
    return [[call[0], *call[2:]] for call in server.request("GET", "/calls")[1] if call[1] == connection]


def test_hooks_are_told_who_comes_what_it_sends_and_why_it_goes(server: LiveServer) -> None:
    with Stream(server, path="/listen/hooks?as=ann").opened() as stream:
        id, token = stream.connection, stream.of_type("ssepool.open")[0]["token"]
        assert server.request("POST", f"/connections/{id}/messages?token={token}", {"typing": True})[0] == 202
        wait_for(lambda: calls(server, id) == [["connect", "ann"], ["message", {"typing": True}]])
    wait_for(lambda: calls(server, id)[2:] == [["disconnect", "client_closed"]])


def test_on_disconnect_is_told_the_reason(server: LiveServer) -> None:
    with Stream(server, path="/listen/hooks").opened() as kicked:
        server.request("POST", f"/kick/{kicked.connection}")
        kicked.to_end()
    source = Source(server)
    with source.ask().opened() as completed:
        source.feed(END)
        completed.to_end()
    for stream, reason in (kicked, "kicked"), (completed, "completed"):
        wait_for(lambda s=stream, r=reason: calls(server, s.connection)[1:] == [["disconnect", r]])


def test_what_on_connect_sends_comes_after_the_opening_and_before_everything_else(server: LiveServer) -> None:
    first, _ = (server.publish("greetings", text) for text in ("one", "two"))
    with Stream(server, path=f"/listen/greetings?as=greeted&since={first}") as stream:
        stream.wait_data("welcome", "two")
        assert [event.type for event in stream.events] == ["ssepool.open", "greeting", "message"]
        assert stream.events[1].id == "greeting-1"


def test_on_connect_may_send_a_client_away(server: LiveServer) -> None:
    with Stream(server, path="/listen/hooks?as=unwanted") as stream:
        stream.to_end()
        assert [event.type for event in stream.events] == ["ssepool.open", "ssepool.close"]
        assert stream.of_type("ssepool.close") == [{"reason": "kicked"}]
        wait_for(lambda: calls(server, stream.connection)[1:] == [["disconnect", "kicked"]])


def test_a_hook_that_fails_is_logged_and_disturbs_nobody(server: LiveServer) -> None:
    with Stream(server, path="/listen/unlucky?as=unlucky").opened() as stream:
        server.publish("unlucky", "all the same")
        stream.wait_data("all the same")
    server.said("this hook fails")


def test_a_handle_tells_of_its_client_and_raises_once_that_has_left(server: LiveServer) -> None:
    with Stream(server, path="/listen/handles?as=ann").opened() as stream:
        id = stream.connection
        server.publish("handles", "x")
        stream.wait_data("x")
        found = server.request("GET", f"/handles/{id}")[1]
        assert found.pop("opened_at") > 1e9
        assert found.pop("bytes_sent") > 0
        assert found == {
            "id": id,
            "is_open": True,
            "user": "ann",
            "ip": "127.0.0.1",
            "data": {"page": 3},
            "topics": ["handles"],
            "patterns": [],
            "events_sent": 1,
            "events_skipped": 0,
        }
    wait_for(lambda: not server.request("GET", f"/handles/{id}")[1]["is_open"])
    with Stream(server, path="/listen/handles?as=ben").opened() as successor:
        assert successor.connection != id
        found = server.request("GET", f"/handles/{id}")[1]
        assert (found.pop("id"), found.pop("is_open")) == (id, False)
        assert set(found.values()) == {"ConnectionReleased"}
        assert {"send", "close", "user", "data"} <= found.keys()
        server.publish("handles", "y")
        successor.wait_data("y")


# What an application yields, and what it adds to answers.


@pytest.mark.parametrize("named", [False, True])
def test_a_generator_yields_events_of_other_packages_and_what_the_hook_knows(server: LiveServer, named: bool) -> None:
    source = Source(server, named=named)
    with source.ask().opened() as stream:
        source.feed("UNKNOWN", "FASTAPI", "STARLETTE", "FRAME", END)
        stream.to_end()
    unknown = '{"unknown":"Unknown"}'
    assert stream.data == [f'[{unknown},{{"inside":{unknown}}}]', '{"n":1}', "plain", "a\nb"]
    told = [(event.type, event.id) for event in stream.events if event.type in ("fast", "star", "patch")]
    assert told == [("fast", "fast-1"), ("star", "star-1"), ("patch", "frame-1")]
    assert stream.comments == [" note", " note"]


def test_the_id_of_a_client_that_comes_back_wins_over_the_application_s(server: LiveServer) -> None:
    first, second, third = (server.publish("wins", text) for text in ("one", "two", "three"))
    path = f"/listen/wins?since={first}"
    with Stream(server, path=path).opened() as stream:
        stream.wait_data("two", "three")
    with Stream(server, path=path, last_event_id=second).opened() as stream:
        stream.wait_data("three")
    with Stream(server, path=path, last_event_id=third).opened() as stream:
        last = server.publish("wins", "four")
        stream.wait_data("four")
        assert stream.last_event_id == last


def test_an_application_s_header_fields_are_on_every_answer(path: str) -> None:
    page = {"Origin": "https://page.example"}
    with serve_app("stream_app:app", path, size=1, max_waiting=0) as server:
        with Stream(server, path="/listen/cors", headers=page).opened() as stream:
            assert own_fields(stream) == ("https://page.example", "1")
            with Stream(server, path="/listen/cors", headers=page) as late:  # is told when to come back
                late.to_end()
                assert (late.status, own_fields(late)) == (200, ("https://page.example", "1"))
            with Stream(server, path="/listen/cors?own_events=false", headers=page) as refused:
                refused.until(lambda s: s.status)
                assert (refused.status, own_fields(refused)) == (503, ("https://page.example", "1"))
        with Stream(server, path=Source(server).path, headers=page, last_event_id=COMPLETED_ID) as done:
            done.until(lambda s: s.status)
            assert (done.status, own_fields(done)) == (204, ("https://page.example", "1"))


def own_fields(stream: Stream) -> tuple[str | None, str | None]:
    return stream.headers.get("access-control-allow-origin"), stream.headers.get("x-own")


def test_on_disconnect_is_told_who_has_left(server: LiveServer) -> None:
    with Stream(server, path="/listen/who?as=ann").opened() as stream:
        id = stream.connection
    told = wait_for(lambda: server.request("GET", f"/departed/{id}")[1])
    assert told == {"user": "ann", "topics": ["who"], "data": {"page": 3}}
