"""`ssepool.django`: streams of a Django project under each server, behind its middleware, sessions and users."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import django
import pytest

from django_site import SERVERS, log_in, prepared, serve_site, sqlite
from live import DEADLINE, LiveServer, Stream, wait_for
from live_fixtures import TROUBLE
from service_fixtures import Get

SIZE = 5
Database = dict[str, Any]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return prepared(sqlite(tmp_path_factory.mktemp("django") / "db.sqlite3"))


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, database: Database) -> Iterator[LiveServer]:
    with serve_site(request.param, database, pool={"size": SIZE, "on_full": "reject"}) as server:
        yield server
        server.stop()
        # Django logs each answer of 500 and above as an error, the one that a view is to have here too.
        log = "".join(line for line in server.log if "Service Unavailable: /fails/" not in line)
        refused = log.count("exceptions.PermissionDenied\n")  # which Django logs with its traceback
        assert [log.count(word) for word in TROUBLE] == [refused if word == "Traceback" else 0 for word in TROUBLE], log


@pytest.fixture(scope="module")
def ann(server: LiveServer) -> dict[str, str]:
    return log_in(server, "ann")


@pytest.fixture(scope="module")
def ben(server: LiveServer) -> dict[str, str]:
    return log_in(server, "ben")


def listen(server: LiveServer, path: str, headers: dict[str, str] | None = None, **options: Any) -> Stream:
    return Stream(server, path=path, headers=headers, **options)


def status_of(server: LiveServer, path: str, headers: dict[str, str] | None = None, **options: Any) -> int:
    with listen(server, path, headers, **options) as stream:
        return stream.until(lambda s: s.status).status


def say(server: LiveServer, topic: str, text: str) -> str:
    status, answer = server.request("POST", f"/say/{topic}", text.encode())
    assert status == 200
    return str(answer["id"])


def test_a_streams_head_has_what_middleware_adds_and_no_coding(server: LiveServer) -> None:
    with listen(server, "/news/", {"Accept-Encoding": "gzip"}).opened() as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        assert stream.headers["x-seen"] == "200 text/event-stream"
        assert stream.headers["access-control-allow-origin"] == "https://friend.example"
        assert stream.headers["referrer-policy"] == "same-origin"
        assert stream.headers["set-cookie"].startswith("visited=yes")
        assert not {"content-encoding", "content-length", "etag", "expires"} & set(stream.headers)
        say(server, "news", "<b>é</b>")
        stream.until(lambda s: len(s.data) == 2)
        assert stream.data == ["<b>é</b>", '{"user":null}']


def test_no_cache_answers_in_the_place_of_a_stream(server: LiveServer) -> None:
    for _ in range(2):
        with listen(server, "/news/") as stream:
            stream.opened()


def test_each_user_gets_what_is_theirs(server: LiveServer, ann: dict[str, str], ben: dict[str, str]) -> None:
    assert status_of(server, "/events/") == 401
    assert status_of(server, "/events/", {"Cookie": "sessionid=ann"}) == 401
    with listen(server, "/events/", ann).opened() as hers, listen(server, "/events/", ben).opened() as his:
        say(server, "users/2", "for Ben")
        say(server, "users/1", "for Ann")
        hers.until(lambda s: len(s.data) == 2)
        his.until(lambda s: len(s.data) == 2)
        assert (hers.data[0], his.data[0]) == ("for Ann", "for Ben")
    with listen(server, "/mine/", ann).opened() as both:  # from behind a decorator of Django's
        assert say(server, "users/1", "for Ann") == both.until(lambda s: len(s.data) == 2).last_event_id


def test_a_view_turns_away_as_django_does(server: LiveServer, ann: dict[str, str]) -> None:
    for path, stranger, known in (
        ("/rooms/locked/", 403, 403),
        ("/rooms/nobodys/", 401, 403),
        ("/rooms/elsewhere/", 302, 302),
        ("/rooms/a%01b/", 400, 400),
        ("/rooms/blue/", 200, 200),
        ("/mine/", 302 if django.VERSION >= (5, 1) else 401, 200),
        ("/nowhere/", 404, 404),
    ):
        assert (path, status_of(server, path), status_of(server, path, ann)) == (path, stranger, known)
    assert status_of(server, "/rooms/blue/", method="HEAD") == 200
    assert status_of(server, "/rooms/blue/", {"Content-Length": "0"}, method="POST") == 405
    server.wait_pool(open=0)


def test_middleware_may_answer_instead_of_a_stream(server: LiveServer) -> None:
    assert status_of(server, "/news/", {"X-Stop": "1"}) == 403
    assert status_of(server, "/news/", {"X-Teapot": "1"}) == 418
    server.wait_pool(open=0, reserved=0, waiting=0)


def test_a_client_that_leaves_frees_its_slot_and_resumes(server: LiveServer) -> None:
    with listen(server, "/rooms/resumed/").opened():
        server.wait_pool(open=1)
        first = say(server, "rooms/resumed", "1")
    server.wait_pool(open=0)
    say(server, "rooms/resumed", "2")
    with listen(server, "/rooms/resumed/", last_event_id=first) as stream:
        stream.until(lambda s: "2" in s.data)
        assert "1" not in stream.data


def test_a_full_pool_refuses_with_the_headers_of_middleware(server: LiveServer) -> None:
    server.wait_pool(open=0)
    streams = [listen(server, "/news/").opened() for _ in range(SIZE)]
    with listen(server, "/news/", {"Accept-Encoding": "gzip"}) as refused:
        refused.until(lambda s: s.raw)
        assert refused.status == 503
        assert refused.headers["content-type"] == "application/json"
        assert refused.headers["access-control-allow-origin"] == "https://friend.example"
        assert b"pool_full" in refused.raw
    for stream in streams:
        stream.close()
    server.wait_pool(open=0)


@pytest.mark.parametrize(("how", "status"), [("denied", 403), ("missing", 404)])
def test_what_a_generator_raises_before_its_first_event_is_answered_as_for_a_view(
    server: LiveServer, how: str, status: int
) -> None:
    with listen(server, f"/fail/{how}") as stream:
        assert stream.until(lambda s: s.status).status == status
        assert stream.headers["content-type"].startswith("text/html")
        assert stream.headers["x-seen"] == "200 text/event-stream"
    server.wait_pool(open=0)


def test_a_generators_stream_is_a_response_of_sync_and_async_views(server: LiveServer) -> None:
    for path, data in ("/count/", ["0", "1", "2"]), ("/count/sync/", ["one"]):
        with listen(server, path) as stream:
            assert stream.to_end().data == data
            assert stream.headers["x-seen"] == "200 text/event-stream"
    server.wait_pool(open=0)


def test_a_stream_keeps_all_cookies_that_the_view_has_set(server: LiveServer) -> None:
    with urllib.request.urlopen(f"{server.url}/count/", timeout=DEADLINE) as answer:
        cookies = {cookie.partition("=")[0]: cookie for cookie in answer.headers.get_all("set-cookie")}
    assert cookies["colour"].lower() == "colour=blue; httponly; path=/count; samesite=strict"
    assert cookies["size"].startswith("size=9;")
    server.wait_pool(open=0)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_view_that_meets_an_error_of_the_hub_has_its_status(server: LiveServer, kind: str) -> None:
    for error, status in ("topic", 400), ("size", 413), ("closed", 503):
        assert server.request("GET", f"/fails/{kind}/{error}")[0] == status


MANY = [f"many {number}" for number in range(20)]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_transaction_publishes_comes_in_order_when_it_commits(server: LiveServer, kind: str) -> None:
    with Stream(server, path="/kinds/").opened() as stream:
        for end in "rollback", "commit":
            assert server.request("POST", f"/transaction/{kind}/{end}", b"")[0] == 204
        stream.until(lambda s: "many 19" in s.data)
        assert stream.data == ["at once", "at once", "outer 1", "outer 2", "signal", *MANY]
        assert [event.type for event in stream.events if event.data == "outer 2"] == ["note"]


def test_async_code_publishes_at_once_and_in_order_and_is_told_of_the_function_to_await(server: LiveServer) -> None:
    with Stream(server, path="/kinds/").opened() as stream:
        assert server.request("POST", "/outside", b"")[0] == 204
        stream.until(lambda s: len(s.data) == 21)
        assert [data for data in stream.data if data.isdigit()] == [str(number) for number in range(20)]
        assert "SynchronousOnlyOperation" in stream.data


def test_a_wrong_event_is_refused_while_the_transaction_can_be_rolled_back(server: LiveServer) -> None:
    assert server.request("POST", "/wrong", b"")[0] == 400
    assert server.request("POST", "/wrong", b"")[0] == 400  # else the name of the user would be taken


@pytest.mark.parametrize("path", SERVERS)
def test_a_signal_ends_the_server_while_streams_are_open(database: Database, path: str) -> None:
    with serve_site(path, database) as server:
        streams = [listen(server, "/news/").opened() for _ in range(SIZE)]
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5
        for stream in streams:
            with stream.to_end():
                assert stream.of_type("ssepool.close") == [{"reason": "shutdown"}]


# What a stream holds.


@pytest.mark.parametrize(("path", "count"), [("detached", 200), ("plain", 60), ("daphne", 30)])
def test_streams_and_who_waits_for_one_hold_no_database_connection_and_no_thread(
    services: Get, path: str, count: int
) -> None:
    service = services("postgres")
    url = urlsplit(service.url(""))
    database = {
        "ENGINE": "django.db.backends.postgresql",
        **{"HOST": url.hostname, "PORT": url.port, "USER": url.username, "PASSWORD": url.password},
        **{"NAME": f"django_{path}", "OPTIONS": {"application_name": "django"}},
    }
    service.execute(f"CREATE DATABASE django_{path} OWNER {url.username}")

    def connections() -> int:
        [(found,)] = service.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'django' AND datname = %s", f"django_{path}"
        )
        return int(found)

    with serve_site(path, prepared(database), pool={"size": count}) as server:
        ann = log_in(server, "ann")
        at_rest = connections()  # of the request before: Django's own, until garbage is collected
        streams: list[Stream] = []
        while len(streams) < count:  # few at a time: until Django is done with it, each request has its connection
            batch = [listen(server, "/events/", ann) for _ in range(min(20, count - len(streams)))]
            streams += [stream.opened() for stream in batch]
        waiting = [listen(server, "/events/", ann) for _ in range(20)]
        server.wait_pool(open=count, waiting=20)
        wait_for(lambda: connections() <= at_rest, what="no connection to the database")
        assert wait_for(lambda: server.request("GET", "/pool")[1]["threads"] < 10, what="no threads")
        assert server.request("POST", "/transaction/sync/commit", b"")[0] == 204
        say(server, "users/1", "hello")  # each of these would have its connection, were the streams' kept
        for stream in streams:
            stream.until(lambda s: "hello" in s.data)
        for stream in streams + waiting:
            stream.close()


# The application, the settings and the commands.


def test_djangos_own_application_and_wsgi_say_what_streams_take(database: Database) -> None:
    for path, app in ("detached", "django_project.stock:application"), ("wsgi", ""):
        with serve_site(path, database, app) as server:
            for streamed in "/news/", "/events/":
                with listen(server, streamed, log_in(server, "ann")) as stream:
                    stream.until(lambda s: s.raw)
                    assert stream.status == 501
                    assert b"ssepool.django.get_asgi_application()" in stream.raw
            assert status_of(server, "/events/") == 401


@pytest.mark.parametrize("path", ["detached", "plain", "daphne"])
def test_the_hubs_own_endpoints_can_be_mounted_beside_the_project(database: Database, path: str) -> None:
    with serve_site(path, database, access={"public_topics": ["news"]}) as server:
        with Stream(server, "news", path="/sse/events").opened() as mounted, listen(server, "/news/").opened() as view:
            assert "x-seen" not in mounted.headers
            say(server, "news", "hello")
            mounted.until(lambda s: "hello" in s.data)
            view.until(lambda s: "hello" in s.data)
        assert status_of(server, "/sse/events?topic=users/1") in (401, 403)
        assert status_of(server, "/nowhere") == 404


def test_a_broker_that_is_not_there_is_said_at_the_start_or_asked_again(database: Database) -> None:
    hub = {"broker": "redis://127.0.0.1:1/0", "broker_timeout": 0.5}
    with pytest.raises(AssertionError, match="redis://127"), serve_site("detached", database, hub=hub):
        pass
    with serve_site("daphne", database, hub=hub) as server:
        for _ in range(2):
            assert server.request("GET", "/pool")[0] == 500
