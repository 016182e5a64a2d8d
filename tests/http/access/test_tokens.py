"""Tokens as a source of grants: what counts, what does not and how that is answered, what it costs; and issuing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from minting import (
    AUDIENCE,
    BAD,
    ISSUER,
    MERCURE,
    PRIVATE_KEYS,
    ROOM,
    SECRET,
    Keys,
    jwk,
    mint,
    private_pem,
    public_pem,
)
from ssepool import ConfigError, Hub, HubConfig, InvalidGrant, TokenExpired, Unauthorized
from ssepool.http.access.asking import Asking
from ssepool.http.access.credentials import Presented
from ssepool.http.access.door import RECENT_SECONDS
from ssepool.http.access.keys import Key
from ssepool.http.access.ring import KeyRing, KeySource
from ssepool.http.access.tokens import MAX_TOKEN_BYTES, Tokens


class Clock:
    """A wall clock that a test moves."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(tmp_path: Path, clock: Clock) -> Tokens:
    places = Keys.into(tmp_path).access.token_keys
    ring = KeyRing([KeySource(ISSUER, place) for place in places])
    return Tokens(ring, audience=AUDIENCE, max_age=86_400, wall_clock=clock)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The algorithms of the signature checks that were made."""
    made: list[str] = []
    signs = Key.signs

    def counted(key: Key, text: bytes, signature: bytes) -> bool:
        made.append(key.algorithm)
        return signs(key, text, signature)

    monkeypatch.setattr(Key, "signs", counted)
    return made


def asking(token: str | None, *, by_cookie: bool = False) -> Asking:
    found = Asking({"type": "http", "headers": []}, "subscribe")
    found.presented = Presented(token, by_cookie)
    return found


# What counts


def test_a_token_is_a_grant(tokens: Tokens) -> None:
    grant = tokens.at_once(asking(mint()))
    assert grant is not None
    assert (grant.subject, grant.issuer, grant.token_id) == ("u1", ISSUER, "t1")
    assert grant.subscribe.cover("room")
    assert grant.publish.cover("room")
    assert not grant.subscribe.cover("other")
    assert not grant.admin
    assert not grant.publish_parts
    assert grant.expires_at is not None
    assert grant.issued_at is not None


def test_a_cookie_is_as_good(tokens: Tokens) -> None:
    assert tokens.at_once(asking(mint(), by_cookie=True)) == tokens.at_once(asking(mint()))


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        ({"typ": "AT+JWT"}, {}),
        ({"typ": "application/at+jwt"}, {}),
        ({"jku": "https://127.0.0.1:1/keys", "x5u": "https://127.0.0.1:1/", "x5c": ["a"]}, {}),
        ({"kid": "whatever its issuer calls it"}, {}),
        ({}, {"aud": ["other", AUDIENCE]}),
        ({}, {"sub": None, "jti": None, "iat": None}),
        ({}, {"iat": int(time.time()) + 10}),
        ({}, {"scope": "openid", "roles": [{"deep": [1]}]}),
    ],
)
def test_what_does_no_harm_is_passed_over(tokens: Tokens, header: dict[str, Any], changes: dict[str, Any]) -> None:
    assert tokens.read(mint(header=header, **changes)).subscribe.cover("room")


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_each_algorithm_counts_with_its_key(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "key.json").write_text(json.dumps(jwk(algorithm, alg=algorithm, kid="k1")))
    ring = KeyRing([KeySource(ISSUER, str(tmp_path / "key.json"))])
    tokens = Tokens(ring, audience=AUDIENCE, max_age=3600, wall_clock=time.time)
    for header in ({"kid": "k1"}, {}):
        assert tokens.read(mint(PRIVATE_KEYS[algorithm], algorithm, header)).subject == "u1"
    with pytest.raises(Unauthorized):
        tokens.at_once(asking(mint(PRIVATE_KEYS[algorithm], algorithm, {"kid": "k2"})))


def test_what_a_token_grants_is_said_as_mercure_has_it(tokens: Tokens) -> None:
    details = [
        {"type": MERCURE, "actions": ["subscribe", "fly"], "topics": [{"match": "a/:x"}], "payload": {"n": 1}},
        {"type": MERCURE, "actions": ["subscribe"], "topics": [{"match": "b/:x", "match_type": "urlpattern"}]},
        {"type": MERCURE, "actions": ["fly"], "topics": [{"match": "c"}]},
        {"type": MERCURE, "actions": ["publish"], "topics": [{"match": "*", "match_type": "urlpattern"}]},
        {"type": "https://other.example/type", "actions": 7},
        {"type": "ssepool", "admin": ["metrics"], "publish_parts": ["id"]},
    ]
    grant = tokens.read(mint(authorization_details=details))
    assert [grant.subscribe.cover(topic) for topic in ("a/:x", "a/1", "b/1", "c")] == [True, False, True, False]
    assert grant.publish.everything
    assert (grant.data, grant.admin, grant.publish_parts) == ({"n": 1}, {"metrics"}, {"id"})


def test_a_token_without_details_grants_nothing(tokens: Tokens) -> None:
    grant = tokens.read(mint(authorization_details=None))
    assert not grant.subscribe
    assert not grant.publish


def test_what_is_no_jwt_is_left_to_other_sources(tokens: Tokens) -> None:
    assert tokens.at_once(asking(None)) is None
    assert tokens.at_once(asking("opaque")) is None
    assert tokens.at_once(Asking({"type": "http", "headers": []}, "subscribe")) is None


# What does not


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_refused_without_a_word(tokens: Tokens, checks: list[str], kind: str) -> None:
    told = set()
    for _ in range(2):
        with pytest.raises(Unauthorized) as raised:
            tokens.at_once(asking(BAD[kind]()))
        assert type(raised.value) is Unauthorized
        assert raised.value.presented
        told.add(str(raised.value))
    assert told == {"the credentials do not count here"}
    assert len(checks) <= 2, "a check for each of the two: nobody has many made"


def test_a_bad_token_takes_no_longer_than_a_good_one(tokens: Tokens) -> None:
    def cost(token: str) -> float:
        times = []
        for _ in range(15):
            tokens._grants.clear()
            began = time.thread_time()
            for _ in range(20):
                tokens._grants.clear()
                with contextlib.suppress(Unauthorized):
                    tokens.at_once(asking(token))
            times.append(time.thread_time() - began)
        return sorted(times)[len(times) // 2]

    good = max(cost(mint()), cost(mint(PRIVATE_KEYS["RS256"], "RS256")))
    slow = {kind: round(spent / good, 1) for kind, make in BAD.items() if (spent := cost(make())) > 4 * good}
    assert not slow


def test_nothing_of_a_long_token_is_looked_at(tokens: Tokens, checks: list[str]) -> None:
    good = mint(filler="x" * 2000)
    assert len(good) < MAX_TOKEN_BYTES
    assert tokens.read(good).subject == "u1"
    with pytest.raises(Unauthorized):
        tokens.at_once(asking(mint(filler="x" * 3000)))
    assert len(checks) == 1


def test_a_token_that_has_just_ended_is_told_from_others(tokens: Tokens, clock: Clock) -> None:
    remembered, fresh, forged = mint(), mint(jti="t2"), mint("x" * 32)
    tokens.read(remembered)
    clock.ahead = 301
    for token in (remembered, fresh):
        with pytest.raises(TokenExpired) as expired:
            tokens.at_once(asking(token))
        assert expired.value.presented
    with pytest.raises(Unauthorized) as raised:
        tokens.at_once(asking(forged))
    assert type(raised.value) is Unauthorized
    clock.ahead = 300 + RECENT_SECONDS + 1
    for token in (remembered, fresh):
        with pytest.raises(Unauthorized) as raised:
            tokens.at_once(asking(token))
        assert type(raised.value) is Unauthorized


def test_a_token_of_one_issuer_does_not_pass_as_anothers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 32)
    (tmp_path / "b.txt").write_text("b" * 32)
    ring = KeyRing([KeySource("a", str(tmp_path / "a.txt")), KeySource("b", str(tmp_path / "b.txt"))])
    tokens = Tokens(ring, audience=AUDIENCE, max_age=3600, wall_clock=time.time)
    assert tokens.read(mint("a" * 32, iss="a")).issuer == "a"
    assert tokens.read(mint("b" * 32, iss="b")).issuer == "b"
    kid = ring.signing("a").id
    for header in ({}, {"kid": kid}):
        for key, issuer in (("a" * 32, "b"), ("b" * 32, "a"), ("a" * 32, "c")):
            with pytest.raises(Unauthorized):
                tokens.at_once(asking(mint(key, header=header, iss=issuer)))


# What it costs


def test_a_storm_of_clients_that_come_back_has_no_signature_checked(tokens: Tokens, checks: list[str]) -> None:
    some = [mint(jti=str(number)) for number in range(50)]
    for _ in range(3):
        for token in some:
            tokens.read(token)
    assert len(checks) == 50


def test_what_is_remembered_is_bounded_and_the_least_recent_leaves(tokens: Tokens, checks: list[str]) -> None:
    tokens._max_cached = 3
    a, b, c, d = (mint(jti=name) for name in "abcd")
    for token in (a, b, c, a, d):  # b leaves
        tokens.read(token)
    assert len(tokens._grants) == 3
    tokens.read(a)
    assert len(checks) == 4
    tokens.read(b)
    assert len(checks) == 5


def test_what_does_not_count_is_not_remembered(tokens: Tokens) -> None:
    for make in BAD.values():
        with pytest.raises(Unauthorized):
            tokens.at_once(asking(make()))
    assert not tokens._grants


def test_a_token_of_a_key_that_has_gone_is_forgotten(tokens: Tokens, tmp_path: Path) -> None:
    token = mint()
    tokens.read(token)
    (tmp_path / "secret.txt").write_text("another secret of thirty-two bytes")
    tokens.ring.look()
    with pytest.raises(Unauthorized):
        tokens.at_once(asking(token))


def test_tokens_that_grant_the_same_share_it(tokens: Tokens) -> None:
    a, b = (tokens.read(mint(sub=user, authorization_details=[{**ROOM, "payload": {}}])) for user in "ab")
    assert a.subscribe is b.subscribe
    assert a.data is not b.data


async def test_clients_whose_tokens_differ_have_one_feed(tmp_path: Path) -> None:
    async with hub_with(tmp_path) as hub:
        admin = {"type": "ssepool", "admin": ["kick"]}
        details = [[ROOM], [ROOM, admin], [{**ROOM, "topics": [{"match": "room"}, {"match": "other"}]}]]
        visits = [
            hub.app.shortcuts.subscription(stream_of(mint(sub=f"u{number}", authorization_details=details[number % 3])))
            for number in range(30)
        ]
        assert {visit.user for visit in visits if visit} == {f"u{number}" for number in range(30)}
        assert len({visit.subscription for visit in visits if visit}) == 1


def stream_of(token: str) -> dict[str, Any]:
    """The scope of a request for the stream of the room."""
    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {token}".encode())]
    return {
        "type": "http",
        "method": "GET",
        "path": "/events",
        "query_string": b"topic=room",
        "headers": headers,
        "client": ("127.0.0.1", 1234),
    }


def test_the_package_is_imported_without_pyjwt() -> None:
    code = "import sys, ssepool, ssepool.cli; assert not {'jwt', 'cryptography', 'urllib.request'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Issuing


def hub_with(tmp_path: Path, **settings: Any) -> Hub:
    return Hub(HubConfig(access=Keys.into(tmp_path, **settings).access))


def test_a_token_that_is_issued_counts(tmp_path: Path) -> None:
    tokens = hub_with(tmp_path).tokens
    pattern = {"match": "b/:x", "match_type": "urlpattern"}
    rights: dict[str, Any] = {"subscribe": ["a", pattern], "publish": ["*"], "admin": ["kick"], "publish_parts": ["id"]}
    grant = tokens.read(tokens.issue(subject="u1", data={"n": 1}, expires_in=60, token_id="t", **rights))
    assert (grant.subject, grant.issuer, grant.token_id, grant.data) == ("u1", ISSUER, "t", {"n": 1})
    assert [grant.subscribe.cover(topic) for topic in ("a", "b/1", "c")] == [True, True, False]
    assert (grant.publish.everything, grant.admin, grant.publish_parts) == (True, {"kick"}, {"id"})
    assert grant.expires_at is not None
    assert abs(grant.expires_at - time.time() - 60) < 10


def test_others_take_what_is_issued(tmp_path: Path) -> None:
    token = hub_with(tmp_path).tokens.issue(subject="u1", subscribe=["a"])
    found = jwt.decode(token, SECRET, ["HS256"], audience=AUDIENCE, issuer=ISSUER)
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "authorization_details"} == set(found)
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_private_key_signs_and_its_public_half_checks(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "private.pem").write_bytes(private_pem(PRIVATE_KEYS[algorithm]))
    (tmp_path / "public.pem").write_bytes(public_pem(PRIVATE_KEYS[algorithm]))
    issuing, checking = (
        Tokens(
            KeyRing([KeySource("me", str(tmp_path / f"{name}.pem"))]),
            audience="hub",
            max_age=3600,
            wall_clock=time.time,
        )
        for name in ("private", "public")
    )
    assert checking.read(issuing.issue(subject="u1")).subject == "u1"
    with pytest.raises(ConfigError, match="no secret and no private key"):
        checking.issue(subject="u1")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subject": ""}, "subject"),
        ({"subscribe": [""]}, "right"),
        ({"admin": ["all"]}, "admin 'all'"),
        ({"expires_in": 0}, "expires_in = 0"),
        ({"expires_in": 1e9}, "max_token_age"),
        ({"expires_in": float("nan")}, "expires_in = nan"),
        ({"data": {"n": 1}}, "a right to subscribe"),
        ({"subscribe": ["a"], "data": [1]}, "JSON object"),
        ({"subscribe": ["a"], "data": {"n": object()}}, "data is not allowed"),
        ({"subscribe": [f"topic-{number}" for number in range(500)]}, "grant less"),
    ],
)
def test_what_cannot_be_granted_is_not_issued(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidGrant, match=message):
        hub_with(tmp_path).tokens.issue(**{"subject": "u1", **wrong})


def test_a_hub_without_keys_says_which_settings_tokens_take() -> None:
    with pytest.raises(ConfigError, match=r"--token-keys key\.txt --token-issuers me --token-audience hub"):
        _ = Hub().tokens
