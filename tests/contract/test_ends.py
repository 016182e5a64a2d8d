"""Grants that run out or are taken back: each client is told in a way that it survives, on every path."""

from __future__ import annotations

import time
from typing import Any

import pytest

from live import LiveServer, Stream
from live_fixtures import Connect, Start, goodbye
from sessions import session

QUICK: dict[str, Any] = {"sessions": "at_once", "reap_interval": 0.05, "retry": 1.0}


def reason_and_retry(stream: Stream) -> tuple[int, str, int]:
    """Of a stream that is nothing but a goodbye."""
    stream.to_end()
    [data] = stream.of_type("ssepool.close")
    assert len(stream.events) == 1
    return stream.status, data["reason"], stream.retry or 0


def revoke(server: LiveServer, **given: Any) -> None:
    status, answer = server.request("POST", "/revocations", given)
    assert status == 201, answer


@pytest.mark.parametrize("sessions", ["at_once", "in_time"])
def test_a_stream_ends_with_its_grant_and_goes_on_with_the_next(start: Start, connect: Connect, sessions: str) -> None:
    server = start(**{**QUICK, "sessions": sessions})
    began = time.time()
    stream = connect(server, "news", headers=session("u1", 3)).opened()
    first = server.publish("news", "one")
    stream.wait_data("one")
    assert goodbye(stream) == "token_expired"
    assert time.time() - began < 3.5
    [warning] = stream.of_type("ssepool.expiring")
    assert warning == {"seconds": 0}
    order = [event.type for event in stream.events]
    assert order.index("ssepool.expiring") < order.index("ssepool.close")
    server.publish("news", "two")
    again = connect(server, "news", headers=session("u1", 60), last_event_id=first).opened()
    again.wait_data("two")
    assert not again.of_type("ssepool.gap")
    server.wait_pool(open=1, released={"token_expired": 1})


def test_who_comes_back_with_what_ran_out_just_now_is_told_to_come_back_later(start: Start, connect: Connect) -> None:
    server = start(**QUICK)
    late = session("u1", -5)
    status, reason, retry = reason_and_retry(connect(server, "news", headers=late))
    assert (status, reason) == (200, "token_expired")
    assert 60_000 <= retry <= 120_000
    head = connect(server, "news", headers=late, method="HEAD").until(lambda s: s.status)
    assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
    status, answer = server.request("POST", "/events", {"topic": "news", "data": "x"}, headers=late)
    assert (status, answer["error"]["code"]) == (401, "token_expired")
    assert server.pool()["granted"] == 0


def test_who_comes_with_what_ran_out_long_ago_is_refused(start: Start, connect: Connect) -> None:
    server = start(**QUICK)
    stream = connect(server, "news", headers=session("u1", -1000)).until(lambda s: s.status)
    assert stream.status == 401
    assert stream.headers["www-authenticate"] == 'Bearer realm="ssepool", error="invalid_token"'
    stream = connect(server, "secrets", headers=session("u1", 1000)).until(lambda s: s.status)
    assert stream.status == 403
    assert stream.headers["www-authenticate"] == 'Bearer realm="ssepool", error="insufficient_scope"'


def test_a_grant_is_asked_for_again_and_nothing_is_lost(start: Start, connect: Connect) -> None:
    server = start(**QUICK, max_grant_age=1.0)
    stream = connect(server, "news", headers=session("u1")).opened()
    first = server.publish("news", "one")
    assert goodbye(stream) == "lifetime"
    assert stream.data == ["one"]
    assert stream.of_type("ssepool.expiring") == []
    assert 1000 <= (stream.retry or 0) <= 2000
    server.publish("news", "two")
    again = connect(server, "news", headers=session("u1"), last_event_id=first).opened().wait_data("two")
    assert not again.of_type("ssepool.gap")


def test_who_waits_until_the_grant_has_run_out_is_told(start: Start, connect: Connect) -> None:
    server = start(**QUICK, size=1)
    connect(server, "news", headers=session("u2")).opened()
    waits = connect(server, "news", headers=session("u1", 1))
    status, reason, retry = reason_and_retry(waits)
    assert (status, reason) == (200, "token_expired")
    assert retry >= 60_000
    server.wait_pool(open=1, waiting=0)


def test_a_user_who_is_logged_out_is_told_at_once_and_may_log_in_again(start: Start, connect: Connect) -> None:
    server = start(**QUICK)
    user, other = session("u1"), session("u2")
    gone, stays = connect(server, "news", headers=user).opened(), connect(server, "news", headers=other).opened()
    revoke(server, subject="u1", issued_before="now")
    began = time.monotonic()
    assert goodbye(gone) == "revoked"
    assert time.monotonic() - began < 1
    server.publish("news", "still there")
    stays.wait_data("still there")
    connect(server, "news", headers=user).opened()  # it does not say when it was issued: a session that counts again
    server.wait_pool(open=2, released={"revoked": 1})


def test_a_user_who_is_revoked_gets_in_no_more(start: Start, connect: Connect) -> None:
    server = start(**QUICK, size=1, announce_queue=True)
    connect(server, "news", headers=session("u2")).opened()
    told = connect(server, "news", headers=session("u1")).until(lambda s: s.of_type("ssepool.queued"))
    revoke(server, subject="u1")
    assert goodbye(told) == "revoked"
    stream = connect(server, "news", headers=session("u1")).until(lambda s: s.status)
    assert stream.status == 401
    assert server.request("POST", "/events", {"topic": "news", "data": "x"}, headers=session("u1"))[0] == 401
    server.wait_pool(open=1, waiting=0)


def test_a_waiter_who_is_revoked_without_a_word_so_far_stays_away(start: Start, connect: Connect) -> None:
    server = start(**QUICK, size=1)
    connect(server, "news", headers=session("u2")).opened()
    waits = connect(server, "news", headers=session("u1"))
    server.wait_pool(waiting=1)
    revoke(server, subject="u1")
    waits.until(lambda s: s.status)
    assert waits.status == 204
