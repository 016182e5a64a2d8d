"""A Flask application with a login beside a stand-alone hub: its session's cookie opens streams, until it is logged
out."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from live import LiveServer, Stream, running, serve_command


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where the hub is administered."""
    return f"unix:{tmp_path}/hub.sock"


@pytest.fixture
def flask(place: str) -> Iterator[LiveServer]:
    command = [sys.executable, "-m", "flask", "--app", "examples.flask_app", "run", "--port", "0"]
    with running(command, r"Running on (http\S*)", {"HUB": place}) as server:
        yield server


@pytest.fixture(params=[(), ("--no-detach",)], ids=["detached", "plain"])
def hub(request: pytest.FixtureRequest, flask: LiveServer, place: str) -> Iterator[LiveServer]:
    with serve_command("--authorize-url", f"{flask.url}/sse-auth", "--admin", place, *request.param) as server:
        yield server


def post(flask: LiveServer, path: str, cookie: str = "", **form: str) -> str:
    """The cookie that is set."""
    connection = http.client.HTTPConnection("127.0.0.1", flask.port)
    headers = {"Content-Type": "application/x-www-form-urlencoded", **({"Cookie": cookie} if cookie else {})}
    connection.request("POST", path, urlencode(form), headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    connection.close()
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


def status_of(hub: LiveServer, topic: str, **headers: str) -> int:
    with Stream(hub, topic, headers=headers) as stream:
        return stream.until(lambda s: s.status).status


def test_a_cookie_of_flask_opens_the_streams_of_its_user(hub: LiveServer, flask: LiveServer) -> None:
    assert status_of(hub, "users/ann") == 401
    ann, ben = (post(flask, "/login", name=name) for name in ("ann", "ben"))
    assert status_of(hub, "users/ann", Cookie=ben) == 403
    with Stream(hub, "users/ann", headers={"Cookie": ann}) as stream:
        stream.opened()
        assert hub.request("POST", "/events", {"topic": "users/ann", "data": 1}, {"Cookie": ann})[0] == 403
        assert hub.request("POST", "/events", {"topic": "chat", "data": 1}, {"Cookie": ann})[0] == 201


def test_who_has_logged_out_is_not_let_in_any_more(hub: LiveServer, flask: LiveServer) -> None:
    ann = post(flask, "/login", name="ann")
    assert status_of(hub, "users/ann", Cookie=ann) == 200
    post(flask, "/logout", ann)
    assert status_of(hub, "users/ann", Cookie=ann) == 401


def test_logging_out_closes_the_stream(hub: LiveServer, flask: LiveServer) -> None:
    ann = post(flask, "/login", name="ann")
    with Stream(hub, "users/ann", headers={"Cookie": ann}) as stream:
        stream.opened()
        post(flask, "/logout", ann)
        stream.to_end()
        assert stream.of_type("ssepool.close") == [{"reason": "revoked"}]
    assert status_of(hub, "users/ann", Cookie=ann) == 401
