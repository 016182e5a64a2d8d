"""What a request keeps for its stream, and how a generator ends, in an application of FastAPI on every path."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from live import PATHS, LiveServer, Stream, serve_app, wait_for

FAILED_ID = "ssepool.failed"
ERROR = [{"reason": "error"}]
EACH = pytest.mark.parametrize("topic", ["", "job"], ids=["without a topic", "with a topic"])
numbers = itertools.count()


@pytest.fixture(scope="module", params=PATHS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("request_app:app", request.param) as server:
        server.request("GET", "/slots")
        server.descriptors_at_rest = server.descriptors()
        yield server
        at_rest(server)


def at_rest(server: LiveServer) -> None:
    """No slot, task or descriptor is left."""
    wait_for(lambda: server.request("GET", "/slots")[1] == [0, 0], what="free slots")
    wait_for(lambda: not [task for task in server.request("GET", "/tasks")[1] if "Run." in task], what="no run's task")
    wait_for(lambda: server.descriptors() <= server.descriptors_at_rest, what="descriptors as at the start")


class Case:
    """One generator, and what is noted of its request."""

    def __init__(self, server: LiveServer, topic: str = "", **query: str) -> None:
        self.server = server
        self.name = f"case-{next(numbers)}"
        query |= {"topic": f"{topic}/{self.name}"} if topic else {}
        self.query = query

    def do(self, *steps: str) -> None:
        self.server.request("POST", f"/steps/{self.name}", list(steps))

    def ask(self, path: str = "stream", **options: Any) -> Stream:
        options.setdefault("headers", {"x-user": "ann"})
        return Stream(self.server, path=f"/{path}/{self.name}", query=self.query, **options)

    @property
    def notes(self) -> list[Any]:
        notes: list[Any] = self.server.request("GET", f"/notes/{self.name}")[1]
        return notes

    def noted(self, *notes: Any) -> None:
        """Wait until exactly this has happened, in this order."""
        wait_for(lambda: len(self.notes) >= len(notes), what=f"{notes}")
        assert self.notes == list(notes)


BEGUN = ("session opened", "begun for ann")
ENDED = ("cleans up", "ended", "background for ann", "session closed")


@EACH
def test_what_the_request_holds_is_there_until_the_generator_has_ended(server: LiveServer, topic: str) -> None:
    case = Case(server, topic)
    with case.ask() as stream:
        case.do("one")
        stream.wait_data("one")
        case.noted(*BEGUN)
        case.do("end")
        assert stream.to_end().of_type("ssepool.close") == [{"reason": "completed"}]
    case.noted(*BEGUN, *ENDED)


def test_so_it_is_where_the_client_leaves(server: LiveServer) -> None:
    case = Case(server)
    with case.ask().opened():
        case.noted(*BEGUN)
    case.noted(*BEGUN, *ENDED)


def test_a_generator_with_a_topic_keeps_its_request_when_its_client_has_left(server: LiveServer) -> None:
    case = Case(server, "job")
    with case.ask() as first:
        case.do("one")
        first.wait_data("one")
        with case.ask(headers={"x-user": "bob"}) as second:
            second.wait_data("one")
    case.do("two", "end")
    wait_for(lambda: "session closed" in case.notes[-1:], what="the end")
    case.do("one")
    with case.ask(last_event_id=first.last_event_id) as third:
        assert third.to_end().data == ["two"]
    assert [note for note in case.notes if "for ann" in note or note == "ended"][:3] == [
        "begun for ann",
        "ended",
        "background for ann",
    ]


def test_background_tasks_run_once_the_stream_has_ended(server: LiveServer) -> None:
    case = Case(server)
    with case.ask("listen").opened():
        assert "background for ann" not in case.notes
    wait_for(lambda: case.notes.count("background for ann") == 1)
    assert case.notes.count("session closed") == 1


def test_a_background_task_that_fails_is_logged_and_frees_everything(server: LiveServer) -> None:
    for path in ("listen", "stream"):
        case = Case(server, also="fails")
        before = len(server.log)
        with case.ask(path).opened():
            pass
        wait_for(lambda case=case: "fails for ann" in case.notes)  # type: ignore[misc]
        server.said("a background task of a stream failed", since=before)
        wait_for(lambda case=case: "session closed" in case.notes)  # type: ignore[misc]


def test_a_generator_for_one_client_is_told_that_it_is_there(server: LiveServer) -> None:
    case = Case(server)
    with case.ask() as stream:
        case.do("is gone?", "is gone?", "one")
        stream.wait_data("one")
    case.noted(*BEGUN, False, False, *ENDED)


def test_a_generator_with_a_topic_is_told_that_the_client_that_began_it_has_left(server: LiveServer) -> None:
    case = Case(server, "job")
    with case.ask() as first:
        case.do("is gone?", "is gone?", "one")
        first.wait_data("one")
        with case.ask() as second:
            second.wait_data("one")
        case.do("is gone?", "two")
        first.wait_data("one", "two")
    if "hypercorn" not in server.process.args[2]:  # type: ignore[index]
        for _ in range(1000):
            case.do("is gone?")
            if wait_for(lambda: case.notes[-1] in (True, False)) and case.notes[-1]:
                break
        assert [note for note in case.notes if note is True] == [True]
    case.do("end")
    wait_for(lambda: "ended" in case.notes)


# Generators that fail.


@EACH
def test_an_error_before_the_first_event_is_the_status_of_the_answer(server: LiveServer, topic: str) -> None:
    case = Case(server, topic)
    case.do("403")
    with case.ask() as stream:
        stream.until(lambda s: b"not this one" in s.raw)
        assert stream.status == 403
        assert stream.headers["x-why"] == "because"
        assert stream.headers["content-type"] == "application/json"
    wait_for(lambda: "session closed" in case.notes)
    case.do("one", "end")
    with case.ask() as again:
        assert again.to_end().data == ["one"]


@EACH
@pytest.mark.parametrize("step", ["fail", "nonsense"])
def test_any_other_error_before_the_first_event_is_a_500(server: LiveServer, topic: str, step: str) -> None:
    case = Case(server, topic)
    case.do(step)
    before = len(server.log)
    with case.ask() as stream:
        assert stream.until(lambda s: s.status).status == 500
    said = f"the generator {case.name} failed" if step == "fail" else "a generator given to Hub.stream yielded <object"
    server.said(said, since=before)
    wait_for(lambda: "session closed" in case.notes)


@EACH
def test_an_error_behind_the_first_event_ends_the_stream_for_good(server: LiveServer, topic: str) -> None:
    case = Case(server, topic)
    with case.ask() as stream:
        case.do("one", "fail")
        stream.to_end()
        assert stream.status == 200
        assert [event.type for event in stream.events] == ["ssepool.open", "message", "apology", "ssepool.close"]
        assert stream.of_type("ssepool.close") == ERROR
        assert stream.last_event_id == FAILED_ID
    errors = server.request("GET", "/notes/errors")[1]
    assert errors.count(f"RuntimeError: the generator {case.name} failed") == 1
    server.said(f"the generator {case.name} failed")
    with case.ask(last_event_id=FAILED_ID) as again:
        assert again.until(lambda s: s.status).status == 204
    assert case.notes.count("begun for ann") == 1


def test_the_head_does_not_wait_long_for_a_first_event(server: LiveServer) -> None:
    case = Case(server)
    with case.ask().opened() as stream:
        case.do("403")
        assert stream.to_end().of_type("ssepool.close") == ERROR


def test_a_dependency_that_fails_fails_the_request_and_leaves_nothing(server: LiveServer) -> None:
    for path in ("stream", "listen"):
        case = Case(server, fails="before")
        with case.ask(path) as stream:
            assert stream.until(lambda s: s.status).status == 500
        assert case.notes == []
        late = Case(server, fails="after")
        late.do("one", "end")
        with late.ask(path) as stream:
            stream.opened()
        wait_for(lambda case=late: "session closed" in case.notes)  # type: ignore[misc]
    at_rest(server)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("fails at last", "failed while it cleaned up"),
        ("goes on", "async generator ignored GeneratorExit"),
        ("never", ""),
    ],
)
def test_a_generator_that_misbehaves_at_its_end_leaves_nothing(server: LiveServer, kind: str, said: str) -> None:
    case = Case(server, kind=kind)
    before = len(server.log)
    with case.ask().opened():
        pass
    wait_for(lambda: "session closed" in case.notes)
    if said:
        server.said(said, since=before)
    at_rest(server)


def test_a_client_that_leaves_before_the_first_event_ends_the_generator(server: LiveServer) -> None:
    case = Case(server)
    with case.ask():
        case.noted(*BEGUN)
    case.noted(*BEGUN, *ENDED)
    at_rest(server)


def test_a_generator_that_was_used_up_is_a_500_that_says_so(server: LiveServer) -> None:
    for _ in range(2):
        with Case(server, kind="used up").ask() as stream:
            stream.until(lambda s: s.status)
    assert stream.status == 500
    server.said("has been used up")


def test_a_generator_that_ignores_cancellation_is_cut_with_its_client(server: LiveServer) -> None:
    case = Case(server, kind="stubborn")
    with case.ask() as stream:
        stream.wait_data("here I am")
    wait_for(lambda: "session closed" in case.notes)
    at_rest(server)


@EACH
@pytest.mark.parametrize("path", PATHS[:2])
def test_a_generator_that_ignores_cancellation_does_not_hold_the_server_up(path: str, topic: str) -> None:
    with serve_app("request_app:app", path) as server, Case(server, topic, kind="deaf").ask() as stream:
        stream.wait_data("here I am")
        began_at = time.monotonic()
        assert server.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - began_at < 10
        assert stream.to_end().of_type("ssepool.close")[0]["reason"] == "shutdown"
    assert any("and is cut" in line for line in server.log)


# Two hubs in one application.


def test_two_hubs_serve_one_application_and_one_route_may_use_both(server: LiveServer) -> None:
    case = Case(server)
    with case.ask("other") as listener, case.ask("both") as stream:
        listener.opened()
        assert stream.to_end().data == ["0", "1", "2"]
        listener.wait_data("number 0", "number 1", "number 2")
        ids = [s.connection.partition("-")[0] for s in (listener, stream)]
        assert ids[0] != ids[1]
    for mounted in ("hub", "other-hub"):
        with Stream(server, path=f"/{mounted}/events?topic=news") as stream:
            stream.opened()
            server.request("POST", f"/{mounted}/events", {"topic": "news", "data": mounted})
            stream.wait_data(mounted)
    at_rest(server)
