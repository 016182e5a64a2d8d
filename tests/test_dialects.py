"""The wire as an application's clients want it: streams without the hub's own events, last events, heartbeats as
events, on every path that a stream can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from live import PATHS, LiveServer, Stream, serve_app
from source import END, FAIL, Source
from ssepool import Hub, InvalidEvent

COMPLETED_ID = "ssepool.completed"
BARE = {"own_events": "false"}
DONE = {**BARE, "final": "[DONE]"}
NAMED = pytest.mark.parametrize("named", [False, True], ids=["without a topic", "with a topic"])


@pytest.fixture(scope="module", params=PATHS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("stream_app:app", request.param, heartbeat_interval=0.3) as server:
        yield server


def listening(server: LiveServer, topic: str, **wire: str) -> Stream:
    """A stream of `Hub.response`."""
    return Stream(server, path=f"/listen/{topic}?{urlencode(wire)}").until(lambda stream: stream.comments)


def connection_of(stream: Stream) -> str:
    """The id of a connection that is told it in a comment."""
    [opening] = [comment for comment in stream.comments if "ssepool.open" in comment]
    return opening.partition('"connection":"')[2].partition('"')[0]


def seen(stream: Stream) -> list[tuple[str, str, str]]:
    return [(event.type, event.data, event.id) for event in stream.events]


@NAMED
def test_without_the_hubs_own_events_nothing_but_the_applications_is_an_event(server: LiveServer, named: bool) -> None:
    source = Source(server, named=named, **BARE)
    with source.ask() as stream:
        source.feed("one", {"data": "two", "type": "step"}, END)
        stream.to_end()
        assert [(event.type, event.data) for event in stream.events] == [("message", "one"), ("step", "two")]
        told = [comment for comment in stream.comments if comment.startswith(" ssepool.")]
        assert [comment.split()[0] for comment in told] == ["ssepool.open", "ssepool.close"]
        assert stream.retry is not None  # it counts without an event
        assert not stream.raw.startswith(b"\n") and b"\n\n\n" not in stream.raw


@NAMED
def test_the_last_event_is_sent_when_the_generator_has_completed(server: LiveServer, named: bool) -> None:
    source = Source(server, named=named, **DONE)
    with source.ask() as stream:
        source.feed("one", END)
        stream.to_end()
        assert stream.data == ["one", "[DONE]"]
        assert seen(stream)[-1] == ("message", "[DONE]", COMPLETED_ID)
    assert source.refused(last_event_id=COMPLETED_ID) == 204


@NAMED
@pytest.mark.parametrize("own_events", ["true", "false"])
@pytest.mark.parametrize(("final", "data"), [({"final": "bye"}, "bye"), ({}, "")])
def test_it_has_the_type_that_is_asked_for_and_stands_before_the_hubs_own(
    server: LiveServer, named: bool, own_events: str, final: dict[str, str], data: str
) -> None:
    source = Source(server, named=named, end_event="done", own_events=own_events, **final)
    with source.ask() as stream:
        source.feed(END)
        stream.to_end()
        opening, closing = ["ssepool.open"], [("ssepool.close", '{"reason":"completed"}', COMPLETED_ID)]
        types = [event.type for event in stream.events]
        own = own_events == "true"
        assert types == [*opening * own, "done", *["ssepool.close"] * own]
        assert seen(stream)[1 * own :] == [("done", data, COMPLETED_ID), *closing * own]


@NAMED
def test_there_is_no_last_event_if_the_generator_failed(server: LiveServer, named: bool) -> None:
    source = Source(server, named=named, **DONE)
    with source.ask() as stream:
        source.feed("one", FAIL)
        assert stream.to_end().data == ["one"]
        assert not stream.whole  # nothing else tells a client that it failed
    if named:
        assert source.refused(last_event_id=stream.last_event_id) == 204


def test_who_comes_back_gets_the_rest_and_the_last_event_during_the_run_and_after_it(server: LiveServer) -> None:
    source = Source(server, named=True, **DONE)
    with source.ask() as first:
        source.feed("one", "two")
        first.wait_data("one", "two")
    one, two = (event.id for event in first.events)
    with source.ask(last_event_id=one) as second:
        second.wait_data("two")
        source.feed("three", END)
        assert second.to_end().data == ["two", "three", "[DONE]"]
    three = second.events[-2].id
    for last_event_id, rest in [(None, ["one", "two", "three"]), (two, ["three"]), (three, [])]:
        with source.ask(last_event_id=last_event_id) as late:
            assert late.to_end().data == [*rest, "[DONE]"]
    assert source.refused(last_event_id=COMPLETED_ID) == 204
    source.wait(begun=1)


def test_viewers_of_one_run_may_be_spoken_to_in_different_dialects(server: LiveServer) -> None:
    bare = Source(server, named=True, **DONE)
    with bare.ask() as one, Stream(server, path=bare.path.partition("&")[0]).opened() as other:
        one.until(lambda stream: stream.comments)
        bare.feed("x", END)
        assert seen(one.to_end())[-1] == ("message", "[DONE]", COMPLETED_ID)
        assert other.to_end().data == ["x"]
        assert [event.type for event in other.events] == ["ssepool.open", "message", "ssepool.close"]


def test_a_stream_of_topics_has_neither_and_ends_when_the_application_says_so(server: LiveServer) -> None:
    with listening(server, "wire-topics", own_events="false", end_event="done") as stream:
        server.publish("wire-topics", "one")
        stream.wait_data("one")
        server.request("POST", "/complete/wire-topics")
        assert seen(stream.to_end())[1:] == [("done", "", COMPLETED_ID)]
    path = "/listen/wire-topics?own_events=false"
    with Stream(server, path=path, last_event_id=COMPLETED_ID) as again:
        assert again.until(lambda s: s.status).status == 204


def test_a_gap_is_a_comment(server: LiveServer) -> None:
    with listening(server, "wire-gaps", own_events="false", since="no-such-id") as stream:
        stream.until(lambda s: any(comment.startswith(" ssepool.gap") for comment in s.comments))
        server.publish("wire-gaps", "live")
        stream.wait_data("live")
        assert [event.type for event in stream.events] == ["message"]


def test_a_refusal_has_an_honest_status(server: LiveServer) -> None:
    with Stream(server, path="/listen/wire-kicked?own_events=false").until(lambda s: s.comments) as stream:
        server.request("POST", f"/kick/{connection_of(stream)}?seconds=30")
        stream.to_end()
        assert stream.events == []
    status, answer = server.request("GET", "/listen/wire-kicked?own_events=false")
    assert (status, answer["error"]["code"]) == (503, "kicked")


# Heartbeats.


@pytest.mark.parametrize("own_events", ["true", "false"])
def test_heartbeats_are_events_for_who_asks_for_them_and_for_nobody_else(server: LiveServer, own_events: str) -> None:
    with (
        listening(server, "wire-quiet", own_events="false") as other,
        Stream(server, path=f"/listen/wire-quiet?heartbeat_event=ping&own_events={own_events}") as stream,
    ):
        stream.until(lambda s: len(s.of_type("ping")) == 2)
        assert stream.of_type("ping") == [{}, {}]
        assert " heartbeat" not in stream.comments
        assert (stream.last_event_id == "") is (own_events == "false")  # none but that of ssepool.open
        other.until(lambda s: s.comments.count(" heartbeat") == 2)
        assert other.events == []


def test_a_client_of_the_hubs_own_endpoint_asks_in_its_query(server: LiveServer) -> None:
    with Stream(server, "wire-quiet", query={"heartbeat": "event"}).opened() as stream:
        stream.until(lambda s: len(s.of_type("ssepool.heartbeat")) == 2)
        assert stream.of_type("ssepool.heartbeat") == [{}, {}]
    status, answer = server.request("GET", "/events?topic=a&heartbeat=comment")
    assert (status, answer["error"]["message"]) == (400, "heartbeat='comment' is not allowed; it takes 'event'")


# Bad input.


@pytest.mark.parametrize(
    "wire",
    [{"end_event": "a\nb"}, {"end_event": "ssepool.close"}, {"heartbeat_event": ""}, {"final": {1, object()}}],
    ids=lambda wire: next(iter(wire)),
)
def test_what_no_client_could_read_is_refused_before_anything_is_sent(wire: Any) -> None:
    request = Request({"type": "http", "headers": [], "client": None})
    with pytest.raises(InvalidEvent):
        Hub().response(request, topics=["a"], **wire)
