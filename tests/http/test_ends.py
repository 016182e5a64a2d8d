"""Grants that run out or are taken back, at the door and with `Hub.response` and `Hub.stream`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssepool import Forbidden, Grant, Hub, HubConfig
from ssepool.core.grant import ANYBODY, STRANGER
from ssepool.core.states import Reason
from ssepool.core.term import ENDLESS
from ssepool.core.topics import Subscription
from ssepool.errors import TokenExpired, Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.authorize import Authorize
from ssepool.http.access.door import RECENT_SECONDS, Door
from ssepool.http.access.everybody import Everybody

NOW = 1_000_000.0
ASKING = Asking({"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": []}, "subscribe")


def door(grant: Grant, **options: Any) -> Door:
    return Door([Authorize(lambda asking: grant)], wall_clock=lambda: NOW, **options)


@pytest.mark.parametrize(("late", "error"), [(0, TokenExpired), (RECENT_SECONDS - 1, TokenExpired)])
async def test_what_ran_out_just_now_is_told_from_what_ran_out_long_ago(late: float, error: type[Exception]) -> None:
    for seconds, expected in ((late, error), (RECENT_SECONDS, Unauthorized)):
        subject = door(Grant(subject="u1", expires_at=NOW - seconds))
        with pytest.raises(Unauthorized) as at_once:
            subject.at_once(ASKING)
        with pytest.raises(Unauthorized) as in_time:
            await subject.grant(ASKING)
        assert type(at_once.value) is type(in_time.value) is expected


async def test_what_is_taken_back_is_refused_also_if_it_has_just_run_out() -> None:
    subject = door(Grant(subject="u1", expires_at=NOW - 1), revoked=lambda grant: True)
    with pytest.raises(Unauthorized) as refused:
        subject.at_once(ASKING)
    assert type(refused.value) is Unauthorized


async def test_a_grant_counts_as_issued_when_it_was_asked_for_not_when_the_answer_came() -> None:
    clock = [NOW]

    async def slow(asking: Asking) -> Grant:
        clock[0] += 5
        return Grant(subject="u1", subscribe=["news"])

    subject = Door([Authorize(slow)], wall_clock=lambda: clock[0])
    grant = await subject.grant(ASKING)
    assert (grant.issued_at, grant.subject) == (NOW, "u1")
    assert grant.subscribe.cover("news")


def test_a_grant_that_says_when_it_was_issued_or_is_nobodys_stays_as_it_is() -> None:
    said = Grant(subject="u1", issued_at=5.0)
    assert door(said).at_once(ASKING) is said
    assert Door([Everybody()], wall_clock=lambda: NOW).at_once(ASKING) is ANYBODY
    assert Door([], wall_clock=lambda: NOW).at_once(ASKING) is STRANGER


# An application's own streams.


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(HubConfig()) as hub:
        yield hub


def request() -> Request:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "client": ("::1", 1)}
    return Request(scope)


def test_a_grant_decides_about_topics_and_the_end(hub: Hub) -> None:
    expires_at = time.time() + 600
    grant = Grant(subject="u1", subscribe=["a"], data={"page": 1}, expires_at=expires_at)
    visit = hub.response(request(), topics=["a"], grant=grant).visit
    assert visit.subscription == Subscription.of(["a"], private=True)
    assert (visit.user, visit.data, visit.term.reason) == ("u1", {"page": 1}, Reason.TOKEN_EXPIRED)
    with pytest.raises(Forbidden):
        hub.response(request(), topics=["a", "b"], grant=grant)


def test_without_a_grant_the_application_has_decided(hub: Hub) -> None:
    visit = hub.response(request(), topics=["a"], user="u1").visit
    assert (visit.user, visit.term) == ("u1", ENDLESS)
    assert visit.grant.issued_at == pytest.approx(time.time(), abs=5)


def test_a_user_and_a_grant_are_one_too_many(hub: Hub) -> None:
    with pytest.raises(TypeError, match="user='u1' and a grant are given; the grant's subject is the user"):
        hub.response(request(), topics=["a"], user="u1", grant=Grant(subscribe=["a"]))


async def test_a_stream_has_its_grant_too(hub: Hub) -> None:
    async def events() -> AsyncIterator[str]:
        yield "one"

    grant = Grant(subject="u1", subscribe=["jobs/1"], expires_at=time.time() + 600)
    response = hub.stream(request(), events(), topic="jobs/1", grant=grant)
    assert (response.visit.user, response.visit.term.reason) == ("u1", Reason.TOKEN_EXPIRED)
    source = events()
    with pytest.raises(Forbidden):
        hub.stream(request(), source, topic="jobs/2", grant=grant)
    hub.parts.runs.cancel()
    assert response.visit.source is not None
    await response.visit.source.left(response.visit.generator)
    await source.aclose()  # type: ignore[attr-defined]


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async def mine(request: Request) -> Response:
        expires_at = time.time() + float(request.query_params.get("seconds", 600))
        grant = Grant(subject="u1", subscribe=["a"], issued_at=time.time(), expires_at=expires_at)
        return hub.response(request, topics=["a"], grant=grant)

    transport = httpx.ASGITransport(Starlette(routes=[Route("/mine", mine)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as http:
        yield http


async def test_a_grant_of_the_application_that_has_run_out_opens_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.get("/mine?seconds=-1")
    assert answer.status_code == 200
    assert '{"reason":"token_expired"}' in answer.text
    assert "ssepool.open" not in answer.text


async def test_a_user_who_is_revoked_gets_no_stream_of_the_application_either(
    hub: Hub, http: httpx.AsyncClient
) -> None:
    streaming = asyncio.create_task(http.get("/mine"))
    async with asyncio.timeout(10):
        while not list(hub.connections):
            await asyncio.sleep(0.01)
        await hub.revoke(subject="u1", issued_before=time.time())
        assert '{"reason":"revoked"}' in (await streaming).text
    await hub.revoke(subject="u1")
    assert (await http.get("/mine")).status_code == 204


async def test_a_revocation_of_nobody_is_a_mistake(hub: Hub) -> None:
    with pytest.raises(ValueError, match="takes a subject or a token_id"):
        await hub.revoke(issued_before=time.time())
    assert list(hub.parts.engine.revocations) == []
