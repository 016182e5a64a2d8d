"""The examples run as their first lines say, on both protocols, and do what they are for."""

from __future__ import annotations

import base64
import json
import re
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from live import DEADLINE, TESTS, LiveServer, Stream, serve_app, wait_for

EXAMPLES = TESTS.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
BESIDE = ("django_wsgi_app", "flask_app")
"""Examples of applications beside a stand-alone hub, which `tests/contract/test_flask.py` and
`tests/test_django_examples.py` run."""
PATHS = ("detached", "plain")
STREAMS = {
    "django_app": "/sse/events?topic=users/ann",
    "fastapi_app": "/orders/17/events",
    "litestar_app": "/notifications",
    "starlette_app": "/sse/events?topic=rooms/1",
    "token_stream": "",  # which the answer to a question tells
}
"""A stream of each that Ann may have."""
PASSWORDS = {"ann": "red", "ben": "blue"}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def enter(server: LiveServer, example: str, user: str = "ann") -> dict[str, str]:
    """Log a user in, and return the header fields that say so from then on."""
    password = PASSWORDS[user]
    if example == "fastapi_app":
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    if example == "token_stream":
        return {}
    path, body, kind = {
        "django_app": ("/login", urlencode({"user": user, "password": password}), "application/x-www-form-urlencoded"),
        "litestar_app": ("/login", json.dumps({"user": user, "password": password}), "application/json"),
        "starlette_app": (f"/names/{user.title()}", "", "text/plain"),
    }[example]
    request = urllib.request.Request(server.url + path, body.encode(), {"Content-Type": kind}, method="POST")
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def listen(server: LiveServer, example: str, user: str = "ann", **options: Any) -> Stream:
    path = STREAMS[example] or ask(server)
    return Stream(server, path=path, headers=enter(server, example, user), **options).opened()


def ask(server: LiveServer) -> str:
    """The address of a new answer of `token_stream`."""
    status, answer = server.request("POST", "/answers", b"Why")
    assert status == 201
    return str(answer["answer"])


def answer_to(server: LiveServer, path: str, headers: dict[str, str]) -> int:
    """The status with which a request for a stream is answered."""
    with Stream(server, path=path, headers=headers) as stream:
        return stream.until(lambda s: s.status).status


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short_and_says_how_it_is_run(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) < 60
    if file.stem in BESIDE:
        assert re.search("ssepool serve .*--authorize-url", text)
        assert re.search(rf"(-m|--app) examples\.{file.stem}( run)?$", text, re.MULTILINE)
    else:
        assert f"uvicorn examples.{file.stem}:app --http ssepool.uvicorn:Protocol" in text


def test_every_example_is_in_the_table_and_in_these_tests() -> None:
    names = [file.stem for file in FILES]
    table = (EXAMPLES / "README.md").read_text("utf-8")
    assert re.findall(r"^\| \[(\w+)\.py\]", table, re.MULTILINE) == names
    assert sorted([*STREAMS, *BESIDE]) == names


@pytest.mark.parametrize(
    "example, number", [*((example, signal.SIGTERM) for example in STREAMS), ("fastapi_app", signal.SIGINT)]
)
def test_a_signal_ends_the_server_while_streams_are_open(example: str, number: signal.Signals, path: str) -> None:
    with serve_app(f"examples.{example}:app", path) as server:
        streams = [listen(server, example) for _ in range(3)]
        began = time.monotonic()
        server.stop(number)
        assert time.monotonic() - began < 5
        for stream in streams:
            with stream.to_end():
                assert stream.of_type("ssepool.close") == [{"reason": "shutdown"}]
    assert "Application shutdown complete" in "".join(server.log)


@pytest.mark.parametrize("server_path", ["detached", "plain", "hypercorn"])
@pytest.mark.parametrize("example", STREAMS)
def test_an_example_is_closed_to_whoever_has_not_logged_in(example: str, server_path: str) -> None:
    with serve_app(f"examples.{example}:app", server_path) as server:
        closed = STREAMS[example] or "/answers/17"
        wrong = {"Cookie": "session=ann; sessionid=ann", "Authorization": "Basic YW5uOmJsdWU="}  # ann:blue
        for headers in {}, wrong, {"X-User": "ann"}:
            assert answer_to(server, closed, headers) in (401, 404)
        listen(server, example).close()
        for path in "/pool", "/sse/pool", "/sse/connections", "/connections", "/sse/demo":
            assert server.request("GET", path, headers=enter(server, example))[0] == 404
        event = {"topic": "users/ann", "data": "forged"}
        for path in "/sse/events", "/events":
            assert server.request("POST", path, event, enter(server, example))[0] in (403, 404)


def test_fastapi_sends_what_a_route_publishes_to_those_who_may_see_it(path: str) -> None:
    with serve_app("examples.fastapi_app:app", path) as server, listen(server, "fastapi_app") as stream:
        ann, ben = (enter(server, "fastapi_app", user) for user in PASSWORDS)
        assert answer_to(server, "/orders/17/events", ben) == 404
        assert answer_to(server, "/orders/17/events", {}) == 401
        assert server.request("POST", "/orders/17/status", "stolen", ben)[0] == 404
        status, answer = server.request("POST", "/orders/17/status", "shipped", ann)
        assert status == 200
        stream.wait_data('{"status":"shipped","by":"ann"}')
        assert (stream.events[-1].type, stream.last_event_id) == ("status", answer["id"])


def test_fastapi_streams_keep_no_database_connection(path: str) -> None:
    # The example's database has one connection, for which the second request would wait for ever.
    with serve_app("examples.fastapi_app:app", path) as server:
        streams = [listen(server, "fastapi_app") for _ in range(3)]
        ann = enter(server, "fastapi_app")
        assert server.request("POST", "/orders/17/status", "shipped", ann)[0] == 200
        for stream in streams:
            with stream:
                stream.wait_data('{"status":"shipped","by":"ann"}')


def test_starlette_chat_tells_who_is_here_and_what_they_say(path: str) -> None:
    with serve_app("examples.starlette_app:app", path) as server:
        rooms = STREAMS["starlette_app"]
        assert answer_to(server, rooms, {}) == 401
        assert answer_to(server, "/sse/events?topic=offices/1", enter(server, "starlette_app")) == 403
        with listen(server, "starlette_app") as ann:
            name = "&data=" + quote(json.dumps({"name": "Ann"}))  # what a client says of itself does not count
            ben = Stream(server, path=rooms + name, headers=enter(server, "starlette_app", "ben")).opened()
            ann.until(lambda s: "Ben is here" in s.data)
            opened = ben.of_type("ssepool.open")[0]
            messages = f"/sse/connections/{opened['connection']}/messages?token="
            assert server.request("POST", messages + opened["token"], "Hello!")[0] == 202
            for stream in (ann, ben):
                stream.until(lambda s: '{"from":"Ben","text":"Hello!"}' in s.data)
            assert server.request("POST", messages + "wrong", "Hello!")[0] == 401
            ben.close()
            ann.until(lambda s: s.data and s.data[-1] == "Ben has left")
            assert [event.type for event in ann.events[-3:]] == ["presence", "said", "presence"]


def test_django_sends_what_a_sync_view_publishes_to_the_user_of_its_session(path: str) -> None:
    with serve_app("examples.django_app:app", path) as server, listen(server, "django_app") as stream:
        ann, ben = (enter(server, "django_app", user) for user in PASSWORDS)
        assert answer_to(server, STREAMS["django_app"], ben) == 403
        assert answer_to(server, STREAMS["django_app"], {}) == 401
        assert answer_to(server, STREAMS["django_app"], {"Cookie": ann["Cookie"] + "!"}) == 401
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert server.request("POST", "/notes", b"text=News", form)[0] == 401
        status, answer = server.request("POST", "/notes", b"text=News", {**form, **ann})
        assert status == 201
        stream.wait_data('{"text":"News"}')
        assert (stream.events[-1].type, stream.last_event_id) == ("note", answer["id"])
        assert server.request("POST", "/login", b"password=", form)[0] == 401


def test_litestar_notifies_one_user_or_everybody(path: str) -> None:
    with serve_app("examples.litestar_app:app", path) as server:
        notify_one_user_or_everybody(server)


def test_litestar_works_under_another_server_and_its_streams_end_with_it() -> None:
    with serve_app("examples.litestar_app:app", "hypercorn") as server:
        notify_one_user_or_everybody(server)
        with listen(server, "litestar_app") as stream:
            server.stop()
            stream.to_end()


def notify_one_user_or_everybody(server: LiveServer) -> None:
    with listen(server, "litestar_app") as ann, listen(server, "litestar_app", "ben") as ben:
        user = enter(server, "litestar_app")
        for method, body in ("GET", None), ("POST", {"text": "for all"}):
            assert server.request(method, "/notifications", body)[0] == 401
        assert server.request("POST", "/notifications/ann", {"text": "for Ann"}, user)[0] == 201
        assert server.request("POST", "/notifications", {"text": "for all"}, user)[0] == 201
        ann.wait_data('{"text":"for Ann"}', '{"text":"for all"}')
        ben.wait_data('{"text":"for all"}')
        for wrong in {}, {"user": "ann"}, {"user": "ann", "password": "blue"}, {"password": ""}:
            assert server.request("POST", "/login", wrong)[0] == 401


def test_token_stream_can_be_left_and_resumed(path: str) -> None:
    with serve_app("examples.token_stream:app", path) as server:
        answer = ask(server)
        assert answer_to(server, "/answers/17", {}) == 404
        with Stream(server, path=answer).opened() as first:
            first.until(lambda s: len(s.data) == 2)
        with Stream(server, path=answer, last_event_id=first.last_event_id) as second:
            second.to_end()
        with Stream(server, path=answer) as whole:
            whole.to_end()
        assert "".join(whole.data) == "You ask: Why? Because it is so, and was never otherwise. "
        assert first.data + second.data == whole.data
        assert whole.of_type("ssepool.close") == [{"reason": "completed"}]
        assert answer_to(server, answer, {"Last-Event-ID": second.last_event_id}) == 204


def test_token_stream_goes_on_while_nobody_watches(path: str) -> None:
    with serve_app("examples.token_stream:app", path) as server:
        answer = ask(server)
        with Stream(server, path=answer) as first:
            first.until(lambda s: s.data)

        def has_ended() -> bool:
            with Stream(server, path=answer, last_event_id="earliest") as look:
                look.until(lambda s: s.data)
                return "otherwise. " in look.data

        wait_for(has_ended)
