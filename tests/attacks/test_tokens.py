"""Tokens that do not count, on every way in: each is refused alike, tells nothing, and leaves no traceback."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from live import LiveServer, Stream, serve_command
from minting import AUDIENCE, BAD, ISSUER, PRIVATE_KEYS, Keys, mint
from ssepool.config import TOKEN_COOKIE

COOKIE = f"{TOKEN_COOKIE}="
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
EVENT = json.dumps({"topic": "room", "data": "x", "private": True})
WAYS = {"listener and routes": [], "routes alone": ["--no-detach"]}


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    access = Keys.into(tmp_path_factory.mktemp("keys")).access
    flags = [part for place in access.token_keys for part in ("--token-keys", place)]
    about = ["--token-issuers", ISSUER, "--token-audience", AUDIENCE, "--allow-origins", "https://friend.example"]
    with serve_command(*flags, *about, *WAYS[request.param]) as server:
        yield server


Fields = list[tuple[str, str]]


def ask(server: LiveServer, method: str, fields: Fields) -> tuple[int, str, str]:
    """Status, challenge and body of the answer; a stream is left at its head."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, "/events" if method == "POST" else "/events?topic=room")
        for name, value in fields:
            connection.putheader(name, value)
        if method == "POST":
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(EVENT)))
        connection.endheaders(EVENT.encode() if method == "POST" else None)
        answer = connection.getresponse()
        body = answer.read().decode() if answer.status >= 300 else ""
        return answer.status, answer.getheader("WWW-Authenticate", ""), body
    finally:
        connection.close()


def bearer(token: str) -> Fields:
    return [("Authorization", f"Bearer {token}")]


def cookie(token: str) -> Fields:
    return [("Cookie", f"session=1; {COOKIE}{token}"), *OWN_PAGE.items()]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("present", [bearer, cookie])
def test_a_good_token_passes(server: LiveServer, method: str, present: object) -> None:
    for token in (mint(), mint(PRIVATE_KEYS["RS256"], "RS256")):
        assert ask(server, method, present(token))[0] == (200 if method == "GET" else 201)  # type: ignore[operator]


def test_a_token_for_the_room_opens_no_other_door(server: LiveServer) -> None:
    with Stream(server, "other", headers=dict(bearer(mint()))) as stream:
        stream.until(lambda s: s.status)
        assert stream.status == 403
    with Stream(server, "room", headers=dict(bearer(mint()))) as stream:
        stream.opened()
        assert ask(server, "POST", bearer(mint()))[0] == 201
        stream.wait_data("x")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("present", [bearer, cookie])
def test_each_bad_token_is_refused_alike(server: LiveServer, method: str, present: object) -> None:
    before = len(server.log)
    answers = {}
    for kind, make in BAD.items():
        if kind != "50 KB":  # more than a head may have
            answers[kind] = ask(server, method, present(make()))  # type: ignore[operator]
    assert len(set(answers.values())) == 1, answers
    [(status, challenge, body)] = set(answers.values())
    assert status == 401
    assert challenge == 'Bearer realm="ssepool", error="invalid_token"'
    assert json.loads(body)["error"]["code"] == "unauthorized"
    assert not any("Traceback" in line for line in server.log[before:])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "fields",
    [
        lambda good: [*bearer(good), *bearer(good)],
        lambda good: [*bearer(good), *cookie(good)],
        lambda good: [("Cookie", f"{COOKIE}{good}; {COOKIE}{good}"), *OWN_PAGE.items()],
        lambda good: [("Cookie", f"{COOKIE}{good}"), ("Cookie", f"{COOKIE}{good}"), *OWN_PAGE.items()],
        lambda good: [*bearer(good), ("Cookie", f"{COOKIE}x")],
    ],
    ids=["two fields", "field and cookie", "cookie twice", "two cookie fields", "field and a bad cookie"],
)
def test_two_of_a_kind_are_a_bad_request(server: LiveServer, method: str, fields: object) -> None:
    status, challenge, body = ask(server, method, fields(mint()))  # type: ignore[operator]
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_request")
    assert challenge == 'Bearer realm="ssepool", error="invalid_request"'


def test_a_token_in_the_query_is_none(server: LiveServer) -> None:
    for name in ("access_token", "token", "authorization"):
        with Stream(server, "room", query={name: mint()}) as stream:
            stream.until(lambda s: s.status)
            assert stream.status in (400, 401)


OTHER, FRIEND = "https://evil.example", "https://friend.example"


@pytest.mark.parametrize(
    ("method", "page", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "none"}, 200),
        ("GET", {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 200),
        ("GET", {"Origin": OTHER}, 403),
        ("GET", {"Origin": OTHER, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ("GET", {"Origin": "null"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 201),
        ("POST", {}, 403),
        ("POST", {"Origin": OTHER}, 403),
        ("POST", {"Origin": FRIEND}, 403),  # may stream; publishing has a list of its own
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_cookie_counts_from_pages_that_may_have_the_answer(
    server: LiveServer, method: str, page: dict[str, str], status: int
) -> None:
    assert ask(server, method, [("Cookie", f"{COOKIE}{mint()}"), *page.items()])[0] == status


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_token_in_a_field_needs_no_page(server: LiveServer, method: str) -> None:
    assert ask(server, method, [*bearer(mint()), ("Cookie", "session=1")])[0] == (200 if method == "GET" else 201)


def test_what_varies_by_page_says_so(server: LiveServer) -> None:
    for path in ("/events?topic=", "/ssepool.js"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", path)
        assert "origin" in connection.getresponse().getheader("Vary", "").lower()
        connection.close()


def test_a_token_that_has_just_ended_says_so(server: LiveServer) -> None:
    status, challenge, body = ask(server, "POST", bearer(mint(exp=int(time.time()) - 5)))
    assert (status, json.loads(body)["error"]["code"]) == (401, "token_expired")
    assert "invalid_token" in challenge
