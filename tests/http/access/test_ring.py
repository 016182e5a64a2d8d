"""KeyRing: whose keys are whose, files that change, and addresses that are asked beside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from minting import ISSUER, PRIVATE_KEYS, SECRET, jwk, private_pem, public_pem
from ssepool import AccessConfig, ConfigError
from ssepool.http.access.jwks import Unavailable
from ssepool.http.access.ring import MAX_TRIED, REFRESH_SECONDS, KeyRing, KeySource, sources_of
from virtual import in_virtual_time

ADDRESS = "https://id.example/keys"


def config(*keys: str, issuers: tuple[str, ...] = ("me",)) -> AccessConfig:
    return AccessConfig(token_keys=keys, token_issuers=issuers, token_audience="hub")


def of(folder: Path, **files: str | bytes) -> KeyRing:
    """A ring of files of one issuer."""
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return KeyRing([KeySource(ISSUER, str(folder / name)) for name in files])


# Whose keys are whose


def test_one_issuer_has_all_keys() -> None:
    [path, variable, address] = sources_of(config("key.txt", "env:KEY", ADDRESS))
    assert {source.issuer for source in (path, variable, address)} == {"me"}
    assert (path.path, variable.path, address.path) == (Path("key.txt"), None, None)
    assert [source.is_address for source in (path, variable, address)] == [False, False, True]


def test_several_issuers_have_theirs() -> None:
    issuers = ("a", "https://b.example/?x")
    found = sources_of(config("a=key.txt", f"https://b.example/?x={ADDRESS}", issuers=issuers))
    assert [(source.issuer, source.place) for source in found] == [("a", "key.txt"), (issuers[1], ADDRESS)]


@pytest.mark.parametrize("entry", ["key.txt", "c=key.txt", "env:KEY"])
def test_with_several_issuers_each_key_says_whose_it_is(entry: str) -> None:
    with pytest.raises(ConfigError, match=f"ISSUER={entry}"):
        sources_of(config(entry, issuers=("a", "b")))


def test_keys_are_not_fetched_without_tls() -> None:
    with pytest.raises(ConfigError, match="takes https"):
        sources_of(config("http://id.example/keys"))


def test_two_issuers_have_no_key_in_common(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(SECRET)
    with pytest.raises(ConfigError, match="has a key that the issuer 'a' has, too"):
        KeyRing([KeySource("a", str(tmp_path / "a.txt")), KeySource("b", str(tmp_path / "b.txt"))])


def test_a_key_is_found_by_its_id_and_one_without_name_by_its_algorithm(tmp_path: Path) -> None:
    named = json.dumps(jwk("RS256", kid="k1"))
    ring = of(tmp_path, named=named, unnamed=public_pem(PRIVATE_KEYS["ES256"]), secret=SECRET)
    assert [key.id for key in ring.find(ISSUER, "k1", "RS256")] == ["k1"]
    assert not ring.find(ISSUER, "k1", "HS256"), "its algorithm is its own"
    assert not ring.find(ISSUER, "k2", "RS256"), "one that has a name is not tried for another"
    assert [key.algorithm for key in ring.find(ISSUER, "k2", "ES256")] == ["ES256"]
    assert [key.algorithm for key in ring.find(ISSUER, None, "HS256")] == ["HS256"]
    assert not ring.find("another", None, "HS256")


def test_two_keys_are_tried_at_most(tmp_path: Path) -> None:
    ring = of(tmp_path, **{name: name * 32 for name in "abc"})
    assert len(ring.find(ISSUER, None, "HS256")) == MAX_TRIED == 2
    assert len(ring.find(ISSUER, "unknown", "HS256")) == 2


def test_the_first_key_that_can_signs(tmp_path: Path) -> None:
    ring = of(tmp_path, public=public_pem(PRIVATE_KEYS["RS256"]), new=private_pem(PRIVATE_KEYS["ES256"]), old=SECRET)
    assert ring.signing(ISSUER).algorithm == "ES256"
    with pytest.raises(ConfigError, match="'another'"):
        ring.signing("another")


def test_a_variable_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", SECRET)
    assert KeyRing([KeySource("me", "env:THE_KEY")]).signing("me").algorithm == "HS256"
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(ConfigError, match="the variable THE_KEY, which is not set"):
        KeyRing([KeySource("me", "env:THE_KEY")])


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), ("short", "5 bytes"), ("x" * 70_000, "too large")]
)
def test_a_file_that_will_not_do_is_refused_at_the_start(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError, match=message):
        KeyRing([KeySource("me", str(tmp_path / "key"))])


def test_files_that_others_may_read_are_told_if_they_have_a_key_to_sign_with(tmp_path: Path) -> None:
    ring = of(tmp_path, public=public_pem(PRIVATE_KEYS["RS256"]), secret=SECRET, hidden="h" * 32)
    (tmp_path / "hidden").chmod(0o600)
    for name in ("public", "secret"):
        (tmp_path / name).chmod(0o644)
    assert ring.exposed == [tmp_path / "secret"]


# Files that change


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    ring = of(tmp_path, key=SECRET)
    before, version = ring.signing(ISSUER).id, ring.version
    ring.look()
    assert ring.version == version
    (tmp_path / "next").write_text("n" * 32)
    os.replace(tmp_path / "next", tmp_path / "key")
    ring.look()
    assert ring.version != version
    assert ring.signing(ISSUER).id != before


@pytest.mark.parametrize("content", ["short", None])
def test_a_file_that_will_not_do_leaves_the_keys_of_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    ring = of(tmp_path, key=SECRET)
    before = ring.signing(ISSUER).id
    if content is None:
        (tmp_path / "key").unlink()
    else:
        (tmp_path / "key").write_text(content)
    ring.look()
    assert ring.signing(ISSUER).id == before
    assert "the keys of before stay in use" in caplog.text


# Addresses


class Provider:
    """Answers for an address: with keys, or not at all."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.asked_at: list[float] = []

    def __call__(self, url: str) -> bytes:
        assert url == ADDRESS
        self.asked_at.append(self.now())
        if self.answer is None:
            raise Unavailable(f"{url} is away")
        return json.dumps(self.answer).encode() if not isinstance(self.answer, bytes) else self.answer

    def now(self) -> float:
        return 0.0


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """In virtual time nobody can wait for a thread."""

    async def directly(work: Any, argument: str) -> bytes:
        provider.now = asyncio.get_running_loop().time  # type: ignore[method-assign]
        found: bytes = work(argument)
        return found

    provider = Provider()
    monkeypatch.setattr("ssepool.http.access.ring._in_thread", directly)
    return provider


@contextlib.asynccontextmanager
async def watched(provider: Provider) -> AsyncIterator[KeyRing]:
    ring = KeyRing([KeySource("me", ADDRESS)], fetch=provider)
    task = asyncio.create_task(ring.watch())
    try:
        yield ring
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@in_virtual_time
async def test_keys_are_fetched_at_the_start_and_now_and_again(provider: Provider) -> None:
    provider.answer = {"keys": [jwk("RS256", kid="k1")]}
    async with watched(provider) as ring:
        assert ring.missing == f"the keys at {ADDRESS} have not come yet"
        await asyncio.sleep(0.1)
        assert ring.missing is None
        assert ring.find("me", "k1", "RS256")
        provider.answer = {"keys": [jwk("RS256", kid="k2")]}
        for _ in range(1000):  # what clients present has nothing fetched
            ring.find("me", "k2", "RS256")
        await asyncio.sleep(1)
        assert len(provider.asked_at) == 1
        await asyncio.sleep(REFRESH_SECONDS)
        assert not ring.find("me", "k1", "RS256")
        assert ring.find("me", "k2", "RS256")
    assert 0.9 * REFRESH_SECONDS <= provider.asked_at[1] - provider.asked_at[0] <= REFRESH_SECONDS


@pytest.mark.parametrize("answer", [None, b"<html>", {"keys": []}, {"keys": [{"kty": "oct", "k": "eA"}]}])
@in_virtual_time
async def test_an_address_that_is_away_is_asked_less_and_less(provider: Provider, answer: Any) -> None:
    provider.answer = {"keys": [jwk("RS256", kid="k1")]}
    async with watched(provider) as ring:
        await asyncio.sleep(1)
        provider.answer, provider.asked_at = answer, []
        await asyncio.sleep(3600)
        assert ring.find("me", "k1", "RS256")
        pauses = [b - a for a, b in pairwise(provider.asked_at)]
        assert pauses[0] <= 1
        assert all(later > 1.5 * before for before, later in pairwise(pauses[:8]))
        assert max(pauses) <= REFRESH_SECONDS


@in_virtual_time
async def test_keys_that_do_not_fit_are_passed_over(provider: Provider) -> None:
    weak = {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4", "kid": "a"}
    provider.answer = {"keys": [{"kty": "AKP"}, jwk("RS256", alg="RS512"), weak, jwk("ES256", kid="k1")]}
    async with watched(provider) as ring:
        await asyncio.sleep(1)
        assert ring.find("me", "k1", "ES256")
        assert not ring.find("me", "a", "HS256"), "a secret that everybody can fetch is none"
