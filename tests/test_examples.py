"""The examples run as their first lines say, on both protocols, and do what they are for."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from live import DEADLINE, TESTS, LiveServer, Stream, serve_app

EXAMPLES = TESTS.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
FOLDERS = sorted(file.parent for file in EXAMPLES.glob("*/app.py"))
BESIDE = ("django_wsgi_app", "flask_app")
"""Examples of applications beside a stand-alone hub, which `tests/contract/test_flask.py` and
`tests/test_django_examples.py` run."""
JOBS = "jobs"
"""It needs Redis and a worker, which `tests/test_examples_pages.py` starts."""
PATHS = ("detached", "plain")
STREAMS = {
    "answer": "",  # which the answer to a question tells
    "chat": "/sse/events?topic=rooms/lobby",
    "notices": "/notices",
    "orders": "/orders/17/events",
}
"""A stream of each that Ann may have."""
PASSWORDS = {"ann": "red", "ben": "blue"}


Start = Callable[[str, str], LiveServer]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """`start(example, path)` is a running server, which tests share until one of them has stopped it."""
    started: dict[tuple[str, str], LiveServer] = {}
    with contextlib.ExitStack() as stack:

        def start(example: str, path: str) -> LiveServer:
            server = started.get((example, path))
            if server is None or server.process.poll() is not None:
                server = started[example, path] = stack.enter_context(serve_app(f"examples.{example}.app:app", path))
            return server

        yield start


entered: dict[tuple[LiveServer, str], dict[str, str]] = {}


def enter(server: LiveServer, example: str, user: str = "ann") -> dict[str, str]:
    """Log a user in, once, and return the header fields that say so from then on."""
    if (server, user) not in entered:
        entered[server, user] = log_in(server, example, user)
    return entered[server, user]


def log_in(server: LiveServer, example: str, user: str) -> dict[str, str]:
    password = PASSWORDS[user]
    if example == "orders":
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    method, path, body = {
        "answer": ("GET", "/", None),
        "chat": ("POST", f"/names/{user.title()}", b""),
        "notices": ("POST", "/login", json.dumps({"user": user, "password": password}).encode()),
    }[example]
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def listen(server: LiveServer, example: str, user: str = "ann") -> Stream:
    path = STREAMS[example] or ask(server)
    return Stream(server, path=path, headers=enter(server, example, user)).opened()


def ask(server: LiveServer) -> str:
    """The address of a new answer of `answer`."""
    status, answer = server.request("POST", "/answers", b"Why", enter(server, "answer"))
    assert status == 201
    return str(answer["answer"])


def answer_to(server: LiveServer, path: str, headers: dict[str, str]) -> int:
    """The status with which a request for a stream is answered."""
    with Stream(server, path=path, headers=headers) as stream:
        return stream.until(lambda s: s.status).status


def test_an_example_is_short_and_says_how_it_is_run() -> None:
    for file in FILES:
        text = file.read_text("utf-8")
        assert len(text.splitlines()) < 60
        assert re.search("ssepool serve .*--authorize-url", text)
        assert re.search(rf"(-m|--app) examples\.{file.stem}( run)?$", text, re.MULTILINE)
    for folder in FOLDERS:
        assert all(len(file.read_text("utf-8").splitlines()) < 130 for file in folder.glob("*.py"))
        says = folder / ("README.md" if folder.name == JOBS else "app.py")
        assert f"uvicorn examples.{folder.name}.app:app --http ssepool.uvicorn:Protocol" in says.read_text("utf-8")


def test_every_example_is_in_the_table_and_in_these_tests() -> None:
    table = re.findall(r"^\| \[(\w+)\]\((\S+)\)", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert all((EXAMPLES / path).is_file() for _, path in table)
    names = [file.stem for file in FILES] + [folder.name for folder in FOLDERS]
    assert sorted(name for name, _ in table) == sorted([*names, "django_notifications"])
    assert sorted([*STREAMS, *BESIDE, JOBS]) == sorted(names)


@pytest.mark.parametrize(
    "example, number", [*((example, signal.SIGTERM) for example in STREAMS), ("orders", signal.SIGINT)]
)
def test_a_signal_ends_the_server_while_streams_are_open(
    start: Start, example: str, number: signal.Signals, path: str
) -> None:
    server = start(example, path)
    streams = [listen(server, example) for _ in range(3)]
    began = time.monotonic()
    server.stop(number)
    assert time.monotonic() - began < 5
    for stream in streams:
        with stream.to_end():
            assert stream.of_type("ssepool.close") == [{"reason": "shutdown"}]
    assert "Application shutdown complete" in "".join(server.log)


@pytest.mark.parametrize(
    "example, server_path", [*((example, path) for example in STREAMS for path in PATHS), ("notices", "hypercorn")]
)
def test_an_example_is_closed_to_whoever_has_not_logged_in(start: Start, example: str, server_path: str) -> None:
    server = start(example, server_path)
    closed = STREAMS[example] or ask(server)
    wrong = {"Cookie": "session=ann; visitor=ann", "Authorization": "Basic YW5uOmJsdWU="}  # ann:blue
    for headers in {}, wrong, {"X-User": "ann"}:
        assert answer_to(server, closed, headers) in (401, 404)
    listen(server, example).close()
    for path in "/pool", "/sse/pool", "/sse/connections", "/connections", "/sse/demo":
        assert server.request("GET", path, headers=enter(server, example))[0] == 404
    event = {"topic": "users/ann", "data": "forged"}
    for path in "/sse/events", "/events":
        assert server.request("POST", path, event, enter(server, example))[0] in (403, 404)


def test_orders_are_told_of_to_those_who_may_see_them(start: Start, path: str) -> None:
    server = start("orders", path)
    with listen(server, "orders") as stream:
        ann, ben = ({"HX-Request": "true", **enter(server, "orders", user)} for user in PASSWORDS)
        assert answer_to(server, "/orders/17/events", ben) == 404
        assert answer_to(server, "/orders/17/events", {}) == 401
        assert server.request("GET", "/orders/17", headers=ben)[0] == 404
        shipped = "/orders/17/status?status=%3Cb%3Eshipped"
        assert server.request("POST", shipped, headers=ben)[0] == 404
        assert server.request("POST", shipped, headers=enter(server, "orders"))[0] == 422  # as a page of another site
        assert server.request("POST", shipped, headers=ann)[0] == 204
        stream.wait_data("<li>&lt;b&gt;shipped, says ann</li>")


def test_streams_of_orders_keep_no_database_connection(start: Start, path: str) -> None:
    # The example's database has one connection, for which the second request would wait for ever.
    server = start("orders", path)
    streams = [listen(server, "orders") for _ in range(3)]
    ann = {"HX-Request": "true", **enter(server, "orders")}
    assert server.request("POST", "/orders/17/status?status=shipped", headers=ann)[0] == 204
    for stream in streams:
        with stream:
            stream.wait_data("<li>shipped, says ann</li>")


def test_a_chat_is_of_those_who_have_a_name_of_their_own(start: Start, path: str) -> None:
    server, talk = start("chat", path), "/sse/events?topic=rooms/talk"
    with Stream(server, path=talk, headers=enter(server, "chat")).opened() as ann:
        assert answer_to(server, STREAMS["chat"], {}) == 401
        assert answer_to(server, "/sse/events?topic=offices/1", enter(server, "chat")) == 403
        for taken in "/names/Ann", "/names/%20Ann%20", "/names/%20":
            assert server.request("POST", taken)[0] == 409
        name = "&data=" + quote(json.dumps({"name": "Ann"}))  # what a client says of itself does not count
        with Stream(server, path=talk + name, headers=enter(server, "chat", "ben")).opened() as ben:
            opened = ben.of_type("ssepool.open")[0]
            messages = f"/sse/connections/{opened['connection']}/messages?token="
            assert server.request("POST", messages + opened["token"], "Hello!")[0] == 202
            for stream in (ann, ben):
                stream.until(lambda s: s.of_type("said") == [{"from": "Ben", "text": "Hello!"}])
            assert server.request("POST", messages + "wrong", "Hello!")[0] == 401
        ann.until(lambda s: s.of_type("present") == [["Ann"], ["Ann", "Ben"], ["Ann"]])
        assert ben.of_type("present") == [["Ann", "Ben"]]


@pytest.mark.parametrize("server_path", ["plain", "hypercorn"])
def test_notices_are_for_one_user_or_for_everybody(start: Start, server_path: str) -> None:
    server = start("notices", server_path)
    with listen(server, "notices") as ann, listen(server, "notices", "ben") as ben:
        user = enter(server, "notices")
        for method, body in ("GET", None), ("POST", {"text": "for all"}):
            assert server.request(method, "/notices", body)[0] == 401
        assert server.request("POST", "/notices/ann", {"text": "for <Ann>\nmode append"}, user)[0] == 201
        assert server.request("POST", "/notices", {"text": "for all"}, user)[0] == 201
        start = 'elements <p id="notice" class="box">ann: '
        ann.wait_data(start + "for &lt;Ann&gt;\nelements mode append</p>", start + "for all</p>")
        ben.wait_data(start + "for all</p>")
        for wrong in {}, {"user": "ann"}, {"user": "ann", "password": "blue"}, {"password": ""}:
            assert server.request("POST", "/login", wrong)[0] == 401
        server.stop()
        ann.to_end()


def test_an_answer_can_be_left_and_resumed(start: Start, path: str) -> None:
    server = start("answer", path)
    answer, ann = ask(server), enter(server, "answer")
    assert answer_to(server, "/answers/17", ann) == 404
    assert answer_to(server, answer, enter(server, "answer", "ben")) == 404
    assert server.request("POST", answer + "/stop", headers=enter(server, "answer", "ben"))[0] == 404
    with Stream(server, path=answer, headers=ann).opened() as first:
        first.until(lambda s: len(s.data) == 2)
    server.said("the model works no more")  # while nobody watches
    with Stream(server, path=answer, headers=ann, last_event_id=first.last_event_id) as second:
        second.to_end()
    with Stream(server, path=answer, headers=ann) as whole:
        whole.to_end()
    assert "".join(whole.data) == "You ask: Why? Because it is so, and was never otherwise. complete"
    assert first.data + second.data == whole.data
    assert whole.of_type("ssepool.close") == [{"reason": "completed"}]
    assert answer_to(server, answer, {**ann, "Last-Event-ID": second.last_event_id}) == 204


def test_an_answer_that_is_stopped_before_it_began_has_no_token(start: Start, path: str) -> None:
    server = start("answer", path)
    answer, ann = ask(server), enter(server, "answer")
    assert server.request("POST", answer + "/stop", headers=ann)[0] == 204
    with Stream(server, path=answer, headers=ann) as stream:
        stream.to_end()
    assert stream.data == ["stopped"]
