"""A stand-alone hub, and hubs under other servers, whose grants come from an application of somebody else's: on each
way in the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deciding import Deciding, deciding
from live import LiveServer, Stream, serve_app, serve_command

ANN = {"Cookie": "session=ann"}
BEN = {"Cookie": "session=ben"}
WAYS = ("detached", "plain", "workers", "uvicorn detached", "uvicorn plain", "hypercorn")
FLAGS = {"detached": [], "plain": ["--no-detach"], "workers": ["--workers", "2"]}


@pytest.fixture(scope="module")
def application() -> Iterator[Deciding]:
    with deciding() as found:
        yield found


@pytest.fixture(scope="module", params=WAYS)
def running_hub(
    request: pytest.FixtureRequest, application: Deciding, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    with start(request.param, application, tmp_path_factory.mktemp("broker")) as server:
        yield server


def start(way: str, application: Deciding, folder: Path) -> contextlib.AbstractContextManager[LiveServer]:
    application.behave()
    if way in FLAGS:
        broker = ["--broker", f"sqlite:///{folder}/events"] if way == "workers" else []
        timeout = ["--authorize-timeout", "0.5"]
        return serve_command("--authorize-url", application.url, *timeout, *broker, *FLAGS[way])
    path = way.removeprefix("uvicorn ")
    return serve_app("asked_app:app", path, authorize_url=application.url, authorize_timeout=0.5)


@pytest.fixture
def hub(running_hub: LiveServer, application: Deciding) -> Iterator[LiveServer]:
    application.behave()
    yield running_hub
    application.behave()


def status_of(hub: LiveServer, topic: str, headers: dict[str, str] | None = None) -> int:
    with Stream(hub, topic, headers=headers) as stream:
        return stream.until(lambda s: s.status).status


def publish(hub: LiveServer, topic: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    return hub.request("POST", "/events", {"topic": topic, "data": "x"}, headers)


def test_a_cookie_opens_the_streams_of_its_user_and_no_others(hub: LiveServer) -> None:
    assert status_of(hub, "users/ann") == 401
    assert status_of(hub, "users/ann", BEN) == 403
    assert status_of(hub, "users/ann", {"Cookie": "session=nobody"}) == 401
    with Stream(hub, "users/ann", "chat", headers=ANN).opened() as stream:
        assert publish(hub, "chat", ANN)[0] == 201
        stream.wait_data("x")


def test_a_cookie_publishes_what_its_user_may(hub: LiveServer) -> None:
    assert publish(hub, "chat", ANN)[0] == 201
    assert publish(hub, "users/ann", ANN)[0] == 403
    assert publish(hub, "chat", BEN)[0] == 403
    assert publish(hub, "chat")[0] == 401


def test_the_application_sees_who_asks_and_for_what_but_never_a_body(hub: LiveServer, application: Deciding) -> None:
    told = {**ANN, "User-Agent": "Browser/2", "X-Secret": "s", "X-Forwarded-For": "192.0.2.7"}
    status_of(hub, "users/ann", told)
    method, fields, query = application.asked[-1]
    assert (method, query) == ("GET", [("action", "subscribe"), ("topic", "users/ann")])
    assert {name: fields.get(name) for name in ("cookie", "user-agent", "x-secret", "content-length")} == {
        "cookie": "session=ann",
        "user-agent": "Browser/2",
        "x-secret": None,
        "content-length": None,
    }
    assert publish(hub, "chat", {**ANN, "User-Agent": "Browser/3"})[0] == 201
    assert application.asked[-1][2] == [("action", "publish")]


def test_a_user_who_comes_back_is_not_asked_about_each_time(hub: LiveServer, application: Deciding) -> None:
    headers = {**ANN, "User-Agent": "comes back"}
    for _ in range(10):
        Stream(hub, "users/ann", headers=headers).opened().close()
    assert 1 <= len(application.asked) <= 2  # two workers know nothing of each other's grants


def test_a_foreign_page_is_refused_before_anybody_is_asked(hub: LiveServer, application: Deciding) -> None:
    for field in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}):
        headers = {**ANN, **field, "User-Agent": "foreign"}
        assert status_of(hub, "users/ann", headers) == 403
        assert publish(hub, "chat", headers)[0] == 403
    assert application.asked == []


def hang(application: Deciding) -> None:
    application.hang.clear()


def say(what: int | bytes) -> Callable[[Deciding], None]:
    def fail(application: Deciding) -> None:
        application.says = what

    return fail


FAILURES: dict[str, Callable[[Deciding], None]] = {
    "down": Deciding.stop,
    "hanging": hang,
    "failing": say(500),
    "redirecting": say(302),
    "empty": say(204),
    "garbage": say(b"<html>Log in</html>"),
    "endless": say(b'{"data": "' + b"x" * 100_000 + b'"}'),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_application_that_gives_no_answer_turns_away_until_it_does(
    hub: LiveServer, application: Deciding, failure: str
) -> None:
    headers = {**ANN, "User-Agent": failure}
    FAILURES[failure](application)
    with Stream(hub, "users/ann", headers=headers) as stream:
        stream.to_end()  # an EventSource comes back after that
        assert (stream.status, stream.data) == (200, [])
        assert stream.of_type("ssepool.close") == [{"reason": "authorize_unavailable"}]
        assert stream.retry is not None and stream.retry >= 3000
    status, answer = publish(hub, "chat", headers)
    assert (status, answer["error"]["code"]) == (503, "authorize_unavailable")
    hub.said("authorize_url http://127.0.0.1")
    assert not any("session=" in line for line in hub.log)
    application.behave()
    Stream(hub, "users/ann", headers=headers).opened().close()
    assert publish(hub, "chat", headers)[0] == 201


def test_what_the_application_refuses_is_refused(hub: LiveServer, application: Deciding) -> None:
    for status in (401, 403):
        application.says = status
        headers = {**ANN, "User-Agent": str(status)}
        assert status_of(hub, "users/ann", headers) == status
        assert publish(hub, "chat", headers)[0] == status


def test_a_ticket_opens_one_stream_on_whichever_worker(hub: LiveServer) -> None:
    for _ in range(4):
        status, answer = hub.request("POST", "/tickets", {"topics": ["users/ann"]}, ANN)
        assert status == 201
        ticket = {"ticket": answer["ticket"]}
        with Stream(hub, "users/ann", query=ticket).opened():
            for _ in range(4):
                with Stream(hub, "users/ann", query=ticket) as again:
                    assert again.until(lambda s: s.status).status == 401
    # uvicorn alone writes each query to its own log of accesses, with the answer: the ticket is used up by then.
    assert not any(answer["ticket"] in line and "HTTP/1.1" not in line for line in hub.log)
