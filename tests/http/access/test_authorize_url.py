"""A source that asks an application: when it asks, what it shows and remembers, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from ssepool.core.grant import Grant
from ssepool.core.rights import Rights
from ssepool.core.topics import Subscription
from ssepool.errors import AuthorizeUnavailable, BadCredentials, Forbidden, SSEPoolError
from ssepool.http.access import authorize_url
from ssepool.http.access.application import HeaderFields, Reply, Unanswered
from ssepool.http.access.asking import Action, Asking
from ssepool.http.access.authorize_url import AuthorizeURL
from ssepool.http.access.door import LATER
from ssepool.http.hosts import Hosts
from ssepool.http.origin import Pages
from virtual import in_virtual_time, now

NEWS = Subscription.of(["news"])
MORE = Subscription.of(["news", "more"])
ANN = ("cookie", "session=ann")
BEN = ("cookie", "session=ben")

Answer = Callable[[], Awaitable[Reply]]


def grant(**fields: Any) -> Reply:
    return Reply(200, json.dumps({"subject": "ann", "subscribe": ["news"], **fields}).encode())


class Scripted:
    """An application that answers as it is told, after so many seconds, and remembers what it was asked."""

    shown = "http://app/auth"

    def __init__(self, reply: Reply | Exception | None = None, seconds: float = 0.0) -> None:
        self.reply = reply or grant()
        self.seconds = seconds
        self.asked: list[tuple[dict[str, str], list[tuple[str, str]]]] = []
        self.under_way = self.most_under_way = 0
        self.closed = False

    async def ask(self, headers: HeaderFields, query: str) -> Reply:
        self.asked.append(({name.decode(): value.decode() for name, value in headers}, parse_qsl(query)))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def close(self) -> None:
        self.closed = True

    def source(self, **options: Any) -> AuthorizeURL:
        clock = now()
        return AuthorizeURL(self, **{"timeout": 5.0, "now": clock, "wall_clock": clock, **options})


def asking(
    *fields: tuple[str, str],
    wanted: Subscription | None = NEWS,
    action: Action = "subscribe",
    ip: str | None = "10.0.0.1",
) -> Asking:
    headers = [(name.encode(), value.encode()) for name, value in (("host", "hub"), *fields)]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/events",
        "headers": headers,
        "query_string": b"",
        "client": (ip, 1) if ip else None,
    }
    return Asking(scope, action, wanted if action == "subscribe" else None)


async def asked(source: AuthorizeURL, question: Asking) -> Grant | None:
    """As the door does it."""
    found = source.at_once(question)
    return await source.in_time(question) if found is LATER else found  # type: ignore[return-value]


# What it shows.


@in_virtual_time
async def test_it_shows_credentials_browser_address_and_wish() -> None:
    app = Scripted()
    wanted = Subscription.of(["b c", "a"], ["orders/:id"])
    fields = (ANN, ("authorization", "Basic YQ=="), ("user-agent", "Browser/1"), ("x-tenant", "t"), ("accept", "a/b"))
    await asked(app.source(), asking(*fields, wanted=wanted))
    assert app.asked == [
        (
            {
                "cookie": "session=ann",
                "authorization": "Basic YQ==",
                "user-agent": "Browser/1",
                "x-forwarded-for": "10.0.0.1",
            },
            [("action", "subscribe"), ("topic", "a"), ("topic", "b c"), ("pattern", "orders/:id")],
        )
    ]


@in_virtual_time
async def test_an_address_that_the_client_wrote_is_not_shown() -> None:
    app = Scripted()
    source = app.source()
    for ip in ("10.0.0.1", None):
        await asked(source, asking(ANN, ("x-forwarded-for", "127.0.0.1"), ip=ip))
    assert [fields.get("x-forwarded-for") for fields, _ in app.asked] == ["10.0.0.1", None]


@in_virtual_time
async def test_a_wish_that_is_too_long_is_not_shown() -> None:
    app = Scripted()
    wanted = Subscription.of([f"a/rather/long/topic/{n}" for n in range(100)])
    await asked(app.source(), asking(ANN, wanted=wanted))
    assert app.asked[0][1] == [("action", "subscribe")]


# Whether it asks at all.


@in_virtual_time
async def test_who_has_no_credentials_is_nobody_and_nobody_is_asked() -> None:
    app = Scripted()
    assert await asked(app.source(), asking(("user-agent", "Browser/1"))) is None
    assert app.asked == []


@in_virtual_time
async def test_two_authorizations_are_one_too_many() -> None:
    app = Scripted()
    with pytest.raises(BadCredentials):
        await asked(app.source(), asking(("authorization", "Bearer a"), ("authorization", "Bearer b")))
    assert app.asked == []


@in_virtual_time
async def test_the_cookie_of_a_foreign_pages_visitor_is_refused_before_anybody_is_asked() -> None:
    app = Scripted()
    source = app.source(check_page=Pages(Hosts(), ["https://shop.example"]).check_cookies)
    for field in (("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")):
        with pytest.raises(Forbidden, match="another site"):
            await asked(source, asking(ANN, field))
    assert app.asked == []
    assert await asked(source, asking(ANN, ("origin", "https://shop.example"))) is not None
    bearer = ("authorization", "Bearer x")  # no browser adds that by itself
    assert await asked(source, asking(bearer, ("origin", "https://evil.example"))) is not None


# What it makes of the answer.


@in_virtual_time
async def test_the_grant_counts_from_the_moment_of_the_question() -> None:
    app, start = Scripted(grant(expires_in=60), seconds=2.0), now()()
    found = await asked(app.source(), asking(ANN))
    assert found is not None
    assert (found.issued_at, found.expires_at) == (start, start + 60.0)


@in_virtual_time
async def test_401_is_nobody_and_403_is_passed_on() -> None:
    app = Scripted(Reply(401, b""))
    source = app.source()
    assert await asked(source, asking(ANN)) is None
    app.reply = Reply(403, b"")
    with pytest.raises(Forbidden):
        await asked(source, asking(ANN))


@in_virtual_time
async def test_a_refusal_is_not_remembered() -> None:
    app = Scripted(Reply(401, b""))
    source = app.source()
    for reply in (Reply(401, b""), Reply(403, b""), Reply(500, b"")):
        app.reply = reply
        with contextlib.suppress(SSEPoolError):
            await asked(source, asking(ANN))
    app.reply = grant()  # he has logged in
    assert await asked(source, asking(ANN)) is not None
    assert len(app.asked) == 4


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(204, b""), "it answered 204; it takes 200 with a grant, 401 or 403"),
        (Reply(302, b""), "it answered 302"),
        (Reply(404, b""), "it answered 404"),
        (Reply(500, b""), "it answered 500"),
        (Reply(200, b"<html>"), "not a grant in JSON"),
        (Reply(200, b'{"subscribe": [7]}'), "not a grant in JSON"),
        (Reply(200, b'{"admin": ["all"]}'), "admin 'all' is not allowed"),
        (Unanswered("ConnectError: refused"), "ConnectError: refused"),
    ],
)
def test_any_other_answer_turns_away_and_is_told(
    reply: Reply | Exception, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def run() -> None:
        app = Scripted(reply)
        with pytest.raises(AuthorizeUnavailable) as error:
            await asked(app.source(), asking(ANN))
        assert why not in str(error.value)  # it is none of the client's business

    run()
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert why in record.getMessage() and "http://app/auth" in record.getMessage()
    assert "session" not in record.getMessage()


@in_virtual_time
async def test_an_application_that_hangs_is_given_up() -> None:
    app = Scripted(seconds=60.0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(AuthorizeUnavailable):
        await asked(app.source(timeout=3.0), asking(ANN))
    assert asyncio.get_running_loop().time() - began == 3.0
    assert app.under_way == 0


def test_the_log_has_a_line_a_second_at_most(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        source = Scripted(Reply(500, b"")).source()
        for n in range(25):
            with pytest.raises(AuthorizeUnavailable):
                await asked(source, asking(("cookie", f"n={n}")))
            await asyncio.sleep(0.1)

    run()
    assert len(caplog.records) == 3


@in_virtual_time
async def test_an_application_that_comes_back_is_asked_again() -> None:
    app = Scripted(Unanswered("down"))
    source = app.source()
    with pytest.raises(AuthorizeUnavailable):
        await asked(source, asking(ANN))
    app.reply = grant()
    assert await asked(source, asking(ANN)) is not None


# What it remembers.


@in_virtual_time
async def test_a_grant_is_remembered_for_half_of_its_life() -> None:
    app = Scripted(grant(expires_in=60))
    source = app.source()
    for _ in range(3):
        assert await asked(source, asking(ANN)) is not None
    await asyncio.sleep(29.9)
    assert source.at_once(asking(ANN)) is not LATER
    assert len(app.asked) == 1
    await asyncio.sleep(0.2)
    assert source.at_once(asking(ANN)) is LATER


@pytest.mark.parametrize(
    "other",
    [
        asking(BEN),
        asking(ANN, ("authorization", "Bearer x")),
        asking(ANN, ("user-agent", "Other/1")),
        asking(ANN, ip="10.0.0.2"),
        asking(ANN, ip=None),
        asking(("authorization", "session=ann")),
        asking(("cookie", "session=an"), ("cookie", "n")),
    ],
)
def test_it_is_remembered_for_exactly_what_was_shown(other: Asking) -> None:
    @in_virtual_time
    async def run() -> None:
        app = Scripted()
        source = app.source()
        await asked(source, asking(ANN))
        assert source.at_once(other) is LATER

    run()


@in_virtual_time
async def test_a_grant_that_lists_all_rights_is_asked_for_once_for_all_wishes() -> None:
    app = Scripted(grant(subscribe=["news", "more"], publish=["chat"]))
    source = app.source()
    for question in (asking(ANN), asking(ANN, wanted=MORE), asking(ANN, action="publish")):
        assert await asked(source, question) is not None
    assert len(app.asked) == 1
    assert source.at_once(asking(ANN, action="administer")) is LATER


@in_virtual_time
async def test_a_wish_for_which_it_does_not_suffice_is_asked_about() -> None:
    app = Scripted(grant(subscribe=["news"]))
    source = app.source()
    await asked(source, asking(ANN))
    app.reply = grant(subscribe=["news", "more"])
    found = await asked(source, asking(ANN, wanted=MORE))
    assert found is not None and found.subscribe == Rights("news", "more")
    assert len(app.asked) == 2


@in_virtual_time
async def test_what_is_public_need_not_be_granted() -> None:
    app = Scripted(grant(subscribe=["more"]))
    source = app.source(public=Rights("news"))
    for _ in range(2):
        await asked(source, asking(ANN, wanted=MORE))
    assert len(app.asked) == 1


@in_virtual_time
async def test_a_revoked_grant_is_asked_for_anew() -> None:
    revoked: list[Grant] = []
    app = Scripted()
    source = app.source(revoked=revoked.__contains__)
    first = await asked(source, asking(ANN))
    assert first is not None
    revoked.append(first)
    await asyncio.sleep(1.0)
    asked_at = now()()
    second = await asked(source, asking(ANN))
    assert second is not None and second.issued_at == asked_at
    assert len(app.asked) == 2


@in_virtual_time
async def test_the_grants_of_a_user_can_be_forgotten() -> None:
    app = Scripted()
    source = app.source()
    await asked(source, asking(ANN))
    source.forget(subject="ben")
    assert source.at_once(asking(ANN)) is not LATER
    source.forget(subject="ann")
    assert source.at_once(asking(ANN)) is LATER


@in_virtual_time
async def test_an_answer_from_before_it_was_forgotten_is_not_remembered() -> None:
    app = Scripted(seconds=1.0)
    source = app.source()
    question = asyncio.create_task(source.in_time(asking(ANN)))
    await asyncio.sleep(0.5)
    source.forget(subject="ann")
    await question
    assert source.at_once(asking(ANN)) is LATER


@in_virtual_time
async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize_url, "MAX_GRANTS", 3)
    source = Scripted().source()
    for n in range(5):
        await asked(source, asking(("cookie", f"n={n}")))
    known = [source.at_once(asking(("cookie", f"n={n}"))) is not LATER for n in range(5)]
    assert known == [False, False, True, True, True]


# Storms.


@in_virtual_time
async def test_a_storm_with_one_cookie_asks_once() -> None:
    app = Scripted(seconds=1.0)
    source = app.source()
    found = await asyncio.gather(*(asked(source, asking(ANN)) for _ in range(1000)))
    assert len(app.asked) == 1
    assert len({id(grant) for grant in found}) == 1


@in_virtual_time
async def test_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    app = Scripted(seconds=1.0)
    source = app.source()
    first, second = (asyncio.create_task(source.in_time(asking(ANN))) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    assert await second is not None
    assert len(app.asked) == 1


@in_virtual_time
async def test_a_failure_is_told_to_all_who_wait_for_it_each_with_an_error_of_its_own() -> None:
    app = Scripted(Unanswered("down"), seconds=1.0)
    source = app.source()
    errors = await asyncio.gather(*(asked(source, asking(ANN)) for _ in range(10)), return_exceptions=True)
    assert len(app.asked) == 1
    assert {type(error) for error in errors} == {AuthorizeUnavailable}
    assert len({id(error) for error in errors}) == 10


@in_virtual_time
async def test_a_hundred_questions_are_under_way_and_a_thousand_wait() -> None:
    app = Scripted(seconds=0.1)
    source = app.source()
    questions = [asked(source, asking(("cookie", f"n={n}"))) for n in range(1200)]
    found = await asyncio.gather(*questions, return_exceptions=True)
    assert app.most_under_way == 100
    assert [type(outcome) for outcome in found] == [Grant] * 1100 + [AuthorizeUnavailable] * 100
    assert await asked(source, asking(("cookie", "n=1199"))) is not None


@in_virtual_time
async def test_with_an_application_that_hangs_nobody_waits_longer_than_the_time_out() -> None:
    source = Scripted(seconds=1e6).source(timeout=5.0)
    began = asyncio.get_running_loop().time()
    questions = [asked(source, asking(("cookie", f"n={n}"))) for n in range(1000)]
    found = await asyncio.gather(*questions, return_exceptions=True)
    assert {type(outcome) for outcome in found} == {AuthorizeUnavailable}
    assert asyncio.get_running_loop().time() - began == 5.0


@in_virtual_time
async def test_it_can_be_closed_before_a_question_is_on_its_way() -> None:
    source = Scripted().source()
    question = asyncio.ensure_future(source.in_time(asking(ANN)))
    await asyncio.sleep(0)
    await source.close()
    with contextlib.suppress(AuthorizeUnavailable, asyncio.CancelledError):
        await question


@in_virtual_time
async def test_closing_turns_away_who_waits() -> None:
    app = Scripted(seconds=60.0)
    source = app.source(timeout=100.0)
    question = asyncio.create_task(source.in_time(asking(ANN)))
    await asyncio.sleep(1.0)
    await source.close()
    with pytest.raises(AuthorizeUnavailable):
        await question
    assert app.closed and app.under_way == 0
