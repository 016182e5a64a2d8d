"""The examples run as their first lines say, on both protocols, and do what they are for."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from live import TESTS, LiveServer, Stream, serve_app, wait_for

EXAMPLES = TESTS.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
BESIDE = ("flask_app",)
"""Examples of applications beside a stand-alone hub: `tests/contract/test_flask.py` runs them."""
PATHS = ("detached", "plain")
STREAMS = {
    "django_app": ("/sse/events?topic=articles", {}),
    "fastapi_app": ("/orders/17/events", {"X-User": "ann"}),
    "litestar_app": ("/notifications", {"X-User": "ann"}),
    "starlette_app": ("/sse/events?topic=rooms/1", {}),
    "token_stream": ("/answers/17?question=Why", {}),
}
"""A stream of each, by path and headers."""


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def listen(server: LiveServer, example: str, **options: Any) -> Stream:
    path, headers = STREAMS[example]
    return Stream(server, path=path, headers=headers, **options).opened()


def form(server: LiveServer, path: str, **fields: str) -> tuple[int, Any]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.request("POST", path, urlencode(fields).encode(), headers)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short_and_says_how_it_is_run(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) < 40
    if file.stem in BESIDE:
        assert "ssepool serve --authorize-url" in text and f"--app examples.{file.stem} run" in text
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


def test_fastapi_sends_what_a_route_publishes_to_those_who_may_see_it(path: str) -> None:
    with serve_app("examples.fastapi_app:app", path) as server, listen(server, "fastapi_app") as stream:
        for headers, status in ({"X-User": "ben"}, 404), ({}, 422):
            with Stream(server, path="/orders/17/events", headers=headers) as refused:
                assert refused.until(lambda s: s.status).status == status
        status, answer = server.request("POST", "/orders/17/status", "shipped", {"X-User": "ann"})
        assert status == 200
        stream.wait_data('{"status":"shipped","by":"ann"}')
        assert (stream.events[-1].type, stream.last_event_id) == ("status", answer["id"])


def test_fastapi_streams_keep_no_database_connection(path: str) -> None:
    # The example's database has one connection, for which the second request would wait for ever.
    with serve_app("examples.fastapi_app:app", path) as server:
        streams = [listen(server, "fastapi_app") for _ in range(3)]
        assert server.request("POST", "/orders/17/status", "shipped", {"X-User": "ann"})[0] == 200
        for stream in streams:
            with stream:
                stream.wait_data('{"status":"shipped","by":"ann"}')


def test_starlette_chat_tells_who_is_here_and_what_they_say(path: str) -> None:
    with serve_app("examples.starlette_app:app", path) as server:
        events = "/sse/events?topic=rooms/1"
        with Stream(server, path=f"{events}&data=%7B%22name%22:%22Ann%22%7D").opened() as ann:
            ben = Stream(server, path=f"{events}&data=%7B%22name%22:%22Ben%22%7D").opened()
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


def test_django_publishes_from_sync_views_and_counts_in_async_ones(path: str) -> None:
    with serve_app("examples.django_app:app", path) as server, listen(server, "django_app") as stream:
        assert server.request("GET", "/articles/readers") == (200, {"readers": 1})
        status, answer = form(server, "/articles", title="News")
        assert status == 201
        stream.wait_data('{"title":"News"}')
        assert (stream.events[-1].type, stream.last_event_id) == ("created", answer["id"])
        assert server.request("GET", "/sse/pool")[1]["pool"]["open"] == 1


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
    with listen(server, "litestar_app") as ann:
        assert server.request("GET", "/notifications")[0] == 401
        with Stream(server, path="/notifications", headers={"X-User": "ben"}).opened() as ben:
            assert server.request("POST", "/notifications/ann", {"text": "for Ann"})[0] == 201
            assert server.request("POST", "/notifications", {"text": "for all"})[0] == 201
            ann.wait_data('{"text":"for Ann"}', '{"text":"for all"}')
            ben.wait_data('{"text":"for all"}')


def test_token_stream_can_be_left_and_resumed(path: str) -> None:
    with serve_app("examples.token_stream:app", path) as server:
        with listen(server, "token_stream") as first:
            first.until(lambda s: len(s.data) == 2)
        with listen(server, "token_stream", last_event_id=first.last_event_id) as second:
            second.to_end()
        with listen(server, "token_stream") as whole:
            whole.to_end()
        assert "".join(whole.data) == "You ask: Why? Because it is so, and was never otherwise. "
        assert first.data + second.data == whole.data
        assert whole.of_type("ssepool.close") == [{"reason": "completed"}]
        with Stream(server, path=STREAMS["token_stream"][0], last_event_id=second.last_event_id) as done:
            assert done.until(lambda s: s.status).status == 204


def test_token_stream_goes_on_while_nobody_watches(path: str) -> None:
    with serve_app("examples.token_stream:app", path) as server:
        with listen(server, "token_stream") as first:
            first.until(lambda s: s.data)

        def has_ended() -> bool:
            with Stream(server, path=STREAMS["token_stream"][0], last_event_id="earliest") as look:
                look.until(lambda s: s.data)
                return look.data != [] and "otherwise. " in look.data

        wait_for(has_ended)
