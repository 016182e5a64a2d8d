"""`ssepool token` and `ssepool check --token`; and where the other commands take a token from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from client.scripted import GONE, ScriptedServer
from minting import AUDIENCE, ISSUER, Keys, mint
from ssepool.cli import app
from test_cli import created, error_of

SETTINGS = {"SSEPOOL_TOKEN_KEYS": "secret.txt", "SSEPOOL_TOKEN_ISSUERS": ISSUER, "SSEPOOL_TOKEN_AUDIENCE": AUDIENCE}
FLAGS = ("--token-keys", "secret.txt", "--issuer", ISSUER, "--audience", AUDIENCE)


def run(*args: str, input: str | None = None, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, args, input=input, env={"COLUMNS": "300", **(env or {})}, prog_name="ssepool")


@pytest.fixture(autouse=True)
def in_a_folder_with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Keys.into(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in (*SETTINGS, "SSEPOOL_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def check(token: str, *wishes: str, **more: Any) -> Result:
    may = [part for wish in wishes for part in ("--may", wish)]
    return run("check", "--token", "-", *may, input=token, env={**SETTINGS, **more})


# token


def test_a_token_is_printed_and_what_it_grants_is_said_beside() -> None:
    rights = ("--subscribe", "users/u1", "--subscribe-pattern", "orders/:id", "--publish", "chat/1")
    made = run("token", *FLAGS, "--subject", "u1", *rights, "--admin", "metrics", "--publish-part", "id")
    assert made.exit_code == 0, made.output
    [token] = made.stdout.splitlines()
    assert token not in made.stderr
    for line in (
        "subject: u1",
        "may subscribe: users/u1, pattern orders/:id",
        "may publish: chat/1",
        "may publish with: id",
        "may administer: metrics",
    ):
        assert line in made.stderr
    seen = check(token, "subscribe orders/1", "publish chat/1", "administer metrics")
    assert seen.exit_code == 0, seen.output
    assert "subscribe orders/1: yes" in seen.stdout


def test_the_keys_of_the_settings_sign_too() -> None:
    made = run("token", "--subject", "u1", env=SETTINGS)
    assert made.exit_code == 0, made.output
    assert check(made.stdout).exit_code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "there is no AccessConfig.token_keys: tokens take --token-keys key.txt"),
        (("--token-keys", "secret.txt"), "there is no AccessConfig.token_issuers"),
        (("--token-keys", "rsa.pem", *FLAGS[2:]), "no secret and no private key"),
        (("--token-keys", "nothing.txt", *FLAGS[2:]), "'nothing.txt', which cannot be read"),
        ((*FLAGS, "--admin", "all"), "admin 'all' is not allowed"),
        ((*FLAGS, "--expires", "0"), "expires_in = 0"),
        ((*FLAGS, "--expires", "1e9"), "max_token_age"),
        ((*FLAGS, "--publish-pattern", "a/{"), "a right is not allowed"),
    ],
)
def test_what_cannot_be_issued_is_told(args: tuple[str, ...], message: str) -> None:
    assert message in error_of(run("token", "--subject", "u1", *args), 2)


# check


def test_a_check_says_what_a_token_allows_and_why_not() -> None:
    seen = check(
        mint(),
        *("publish room", "publish orders/42", "publish ssepool/pool", "subscribe room", "subscribe news/1"),
        *("subscribe other", "subscribe pattern:news/*", "subscribe pattern:a/*", "administer kick"),
        SSEPOOL_PUBLIC_TOPICS="pattern:news/*",
    )
    assert seen.exit_code == 1
    assert [line for line in seen.stdout.splitlines() if line.endswith("yes") or ": no, " in line] == [
        "publish room: yes",
        "publish orders/42: no, because no right to publish covers 'orders/42'",
        "publish ssepool/pool: no, because topics that begin with ssepool/ are the hub's own",
        "subscribe room: yes",
        "subscribe news/1: yes",
        "subscribe other: no, because no right to subscribe covers 'other', and it is not public",
        "subscribe pattern:news/*: yes",
        "subscribe pattern:a/*: no, because no right to subscribe covers all that this pattern matches",
        "administer kick: no, because it has no right to kick",
    ]


def test_a_pattern_that_was_granted_as_a_name_is_told() -> None:
    token = run("token", *FLAGS, "--subject", "u1", "--publish", "orders/:id").stdout
    assert "'orders/:id' is the name of one topic" in check(token, "publish orders/42").stdout


def test_without_a_token_a_check_says_what_everybody_may() -> None:
    seen = run("check", "--may", "subscribe news", "--may", "publish news", env={"SSEPOOL_PUBLIC_TOPICS": "news"})
    assert seen.exit_code == 1
    assert "subscribe news: yes" in seen.stdout
    assert "publish news: no" in seen.stdout


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (mint("x" * 32), "its signature is wrong"),
        (mint(exp=1), "it ended"),
        (mint(aud="other"), "it is for 'other'; it takes 'hub'"),
        (mint(header={"typ": "JWT"}), "its typ is 'JWT'; it takes at+jwt"),
        (mint(authorization_details=[{"type": "ssepool", "admin": ["all"]}]), "admin 'all' is not allowed"),
        ("opaque", "three parts"),
    ],
)
def test_a_check_says_why_a_token_does_not_count(token: str, message: str) -> None:
    line = error_of(check(token), 1)
    assert line.startswith("this token does not count: ")
    assert message in line


@pytest.mark.parametrize("wish", ["", "fly", "publish", "administer everything", "read a"])
def test_another_form_of_wish_is_told(wish: str) -> None:
    assert "it takes 'publish TOPIC'" in error_of(check(mint(), wish), 2)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("", "no token in it"), ("a b", "no token")]
)
def test_a_file_without_a_token_is_told(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "token.txt").write_text(content)
    assert message in error_of(run("check", "--token", "token.txt", env=SETTINGS), 2)


def test_a_key_that_others_may_read_is_weak(tmp_path: Path) -> None:
    assert run("check", env=SETTINGS).exit_code == 0
    (tmp_path / "secret.txt").chmod(0o644)
    seen = run("check", env=SETTINGS)
    assert seen.exit_code == 1
    assert "token_keys: others on this machine may read secret.txt" in seen.stdout


# The commands that talk to a hub


def authorization(server: ScriptedServer) -> bytes | None:
    return server.requests[0].headers.get(b"authorization")


@pytest.mark.parametrize("command", ["publish", "subscribe"])
def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, command: str) -> None:
    (tmp_path / "token.txt").write_text("a.b.c\n")
    args = ("publish", "t", "x") if command == "publish" else ("subscribe", "t", "--timeout", "5")
    for more, env in ((("--token-file", "token.txt"), {"SSEPOOL_TOKEN": "other"}), ((), {"SSEPOOL_TOKEN": "a.b.c"})):
        server = ScriptedServer()
        server.play(created("1") if command == "publish" else GONE)
        try:
            assert run(*args, "--url", server.url, *more, env=env).exit_code == 0
            assert authorization(server) == b"Bearer a.b.c"
        finally:
            server.stop()


def test_standard_input_has_one_thing() -> None:
    assert "standard input has the data" in run("publish", "t", "-", "--token-file", "-", input="x").stderr
