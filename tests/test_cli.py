"""The command line without a hub: options, configuration, errors, and what is read from standard input."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import socket
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from client.scripted import ScriptedServer
from ssepool.cli import app, drain, publish
from ssepool.config import HubConfig, ServerConfig, Setting, settings
from ssepool.server import server as server_module

COMMANDS = ("serve", "publish", "subscribe", "stats", "topics", "drain", "kick")
SETTINGS = tuple(item for item in settings() if not item.secret)
TOGETHER = ("token_keys", "token_issuers", "token_audience")
"""Settings of which each takes the others."""
NOBODY = "http://127.0.0.1:1"


def run(*args: str, input: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
    # Wide, so that no word is broken over two lines.
    return CliRunner().invoke(app, args, input=input, env={"COLUMNS": "300", **(env or {})}, prog_name="ssepool")


def error_of(result: Result, code: int) -> str:
    """The one line that a command ended with."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("ssepool: ")
    return line.removeprefix("ssepool: ")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ssepool.toml of the developer's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[HubConfig, ServerConfig]]:
    """What `serve` would have run with."""
    runs: list[tuple[HubConfig, ServerConfig]] = []

    class Server:
        def __init__(
            self, hub: Any, app: Any, config: ServerConfig, *, on_started: Callable[..., None], administered: bool
        ) -> None:
            assert administered
            self.configs = hub.config, config
            self.on_started = on_started

        def run(self) -> None:
            runs.append(self.configs)
            self.on_started("http://127.0.0.1:1234", "unix:/run/ssepool-1234.sock")

    monkeypatch.setattr(server_module, "Server", Server)
    return runs


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.stop()


def created(*ids: str) -> bytes:
    body = json.dumps({"ids": ids}).encode()
    return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


# Help


@pytest.mark.parametrize("command", [(), *[(command,) for command in COMMANDS]])
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example: ssepool" in result.stdout or "| ssepool" in result.stdout


def test_help_lists_the_commands() -> None:
    assert all(command in run("--help").stdout for command in COMMANDS)


@pytest.mark.parametrize("item", SETTINGS, ids=lambda item: item.key)
def test_help_shows_each_setting_with_its_variable(item: Setting) -> None:
    text = run("serve", "--dev", "--help").stdout
    [line] = [line for line in text.splitlines() if line.startswith(f"│ {item.flag} ")]
    assert item.help in line
    assert f"[env: {item.env}]" in line


def test_a_secret_has_no_flag() -> None:
    text = run("serve", "--dev", "--help", env={"SSEPOOL_CLUSTER_KEY": "hunter2"}).stdout
    assert "--cluster-key" not in text
    assert "hunter2" not in text
    assert "SSEPOOL_CLUSTER_KEY" in text
    assert run("serve", "--dev", "--cluster-key", "hunter2").exit_code == 2


def test_help_has_a_panel_for_each_section() -> None:
    text = run("serve", "--dev", "--help").stdout
    assert [word for word in ("Pool", "Hub", "Server") if f"─ {word} ─" in text] == ["Pool", "Hub", "Server"]


def test_the_version_is_shown() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("ssepool")


def test_help_loads_nothing_of_the_server_or_the_client() -> None:
    # Those of `ssepool` itself are loaded before the command line begins, so only what it adds is looked at.
    code = (
        "import sys, ssepool; before = set(sys.modules)\n"
        "from ssepool.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    loaded = set(done.stderr.split())
    assert not {"uvicorn", "httpx2", "pydantic", "uvloop", "ssepool.bench.measurement"} & loaded
    assert "ssepool.cli.bench" in loaded


# serve


def value_for(item: Setting) -> Any:
    """An allowed value that is not the default."""
    kind = typing.get_args(item.type)[0] if type(None) in typing.get_args(item.type) else item.type
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in typing.get_args(kind) if choice != item.default)
    if item.key == "trusted_proxies":
        return ("10.0.0.1", "fd00::/8")
    if item.key == "admin":
        return ("unix:/run/hub.sock", "[::1]:9000")
    if item.key == "allowed_hosts":
        return ("events.example.com", "node-1")
    if item.key == "authorize_url":
        return "http://127.0.0.1:5000/sse-auth"
    if item.key == "topic_rules":
        return ("answers/* events=5000 age=86400", "prices/* events=1")
    if typing.get_origin(kind) is tuple:
        return ("https://a.example", "https://b.example")
    return {bool: not item.default, int: 4321, float: 43.25, str: "127.0.0.2"}[kind]


@pytest.mark.parametrize(
    "item", [item for item in SETTINGS if item.key not in (*TOGETHER, "broker", "workers")], ids=lambda item: item.key
)
def test_each_setting_is_an_option(item: Setting, served: list[Any]) -> None:
    value = value_for(item)
    if isinstance(value, bool):
        args = [item.flag if value else "--no-" + item.flag.removeprefix("--")]
    elif isinstance(value, tuple):
        args = [part for one in value for part in (item.flag, one)]
    else:
        args = [item.flag, str(value)]
    result = run("serve", "--dev", *args)
    assert result.exit_code == 0, result.output
    hub, server = served[0]
    section = {"pool": hub.pool, "access": hub.access, "hub": hub, "server": server}[item.section]
    assert getattr(section, item.name) == value


def test_the_settings_of_tokens_are_options_together(served: list[Any], tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("k" * 32)
    args = ("--token-keys", "key.txt", "--token-issuers", "me", "--token-audience", "hub")
    assert run("serve", *args).exit_code == 0
    access = served[0][0].access
    assert (access.token_keys, access.token_issuers, access.token_audience) == (("key.txt",), ("me",), "hub")
    for missing in range(0, 6, 2):
        given = (*args[:missing], *args[missing + 2 :])
        assert f"there is no AccessConfig.{TOGETHER[missing // 2]}" in error_of(run("serve", *given), 2)


def test_without_options_the_defaults_hold(served: list[Any]) -> None:
    assert run("serve", "--dev").exit_code == 0
    assert served == [(HubConfig(), ServerConfig(dev=True))]


def test_a_flag_wins_over_the_environment_and_that_over_the_file(served: list[Any]) -> None:
    Path("ssepool.toml").write_text("[pool]\nsize = 1\nmax_waiting = 1\nmax_per_ip = 1\n")
    env = {"SSEPOOL_POOL_SIZE": "2", "SSEPOOL_MAX_WAITING": "2"}
    run("serve", "--dev", "--pool-size", "1000", env=env)  # a flag that happens to be the default is a flag
    pool = served[0][0].pool
    assert (pool.size, pool.max_waiting, pool.max_per_ip) == (1000, 2, 1)


def test_another_file_may_be_named(served: list[Any]) -> None:
    Path("ssepool.toml").write_text("[pool]\nsize = 1\n")
    Path("other.toml").write_text("[pool]\nsize = 3\n")
    run("serve", "--dev", "--config", "other.toml")
    assert served[0][0].pool.size == 3


def test_a_start_is_told_in_lines_that_programs_can_read(served: list[Any]) -> None:
    lines = run("serve", "--dev", "--pool-size", "7").stdout.splitlines()
    assert lines[0] == "ssepool is serving on http://127.0.0.1:1234"
    assert [line.split() for line in lines[1:]] == [
        ["demo", "http://127.0.0.1:1234/demo"],
        ["stream", "http://127.0.0.1:1234/events?topic=TOPIC"],
        ["pool", "7", "slots,", "http://127.0.0.1:1234/dashboard"],
        ["admin", "unix:/run/ssepool-1234.sock"],
    ]


def test_a_start_without_dev_names_only_what_is_there(served: list[Any]) -> None:
    lines = run("serve", "--public-topics", "news").stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["stream", "http://127.0.0.1:1234/events?topic=TOPIC"],
        ["pool", "1000", "slots"],
        ["admin", "unix:/run/ssepool-1234.sock"],
    ]


@pytest.mark.parametrize("workers", [(), ("--workers", "2", "--broker", "sqlite:///events.db")])
def test_a_start_that_opens_nothing_is_refused_with_the_flags_that_there_are(workers: tuple[str, ...]) -> None:
    result = run("serve", *workers)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ssepool: nothing says who may do what, and nothing is open by itself.")
    flags = re.findall(r"(?m)^    (--[a-z-]+)", result.stderr)
    assert set(flags) >= {"--public-topics", "--dev"}
    assert set(flags) <= {item.flag for item in SETTINGS}


def test_administration_at_a_port_is_refused_where_nobody_has_credentials() -> None:
    line = error_of(run("serve", "--public-topics", "news", "--admin", "127.0.0.1:0"), 2)
    assert line.startswith("ServerConfig.admin = ('127.0.0.1:0',) is not allowed: at 127.0.0.1:0 administration takes")


@pytest.mark.parametrize(
    ("args", "env", "message"),
    [
        (("--pool-size", "0"), {}, "PoolConfig.size = 0 is not allowed; it takes a number, from 1 to 1000000"),
        (("--ack-timeout", "nan"), {}, "PoolConfig.ack_timeout = nan is not allowed"),
        ((), {"SSEPOOL_POOL_SIZE": "many"}, "SSEPOOL_POOL_SIZE='many' is not allowed; it takes a whole number"),
        ((), {"SSEPOOL_ON_FULL": "explode"}, "PoolConfig.on_full = 'explode' is not allowed; it takes 'wait', 'retry'"),
        (("--config", "nowhere.toml"), {}, "nowhere.toml cannot be read: "),
        (("--host", "0.0.0.0"), {}, "without --dev"),
        (("--host", "::"), {}, "without --dev"),
        (("--broker", "carrier-pigeon://"), {}, "carrier-pigeon"),
    ],
)
def test_a_bad_setting_is_one_line_and_the_code_2(args: tuple[str, ...], env: dict[str, str], message: str) -> None:
    assert message in error_of(run("serve", "--dev", *args, env=env), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pool]\nsiez = 1\n", "[pool] has no setting 'siez'; there are size, "),
        ("[puddle]\nsize = 1\n", "[puddle] is not a table of settings; there are pool, access, hub, server"),
        ("size = 1\n", "[size] is not a table of settings"),
        ("[pool\n", "ssepool.toml cannot be read: "),
        ("[pool]\nsize = '1'\n", "PoolConfig.size = '1' is not allowed; it takes a whole number"),
    ],
)
def test_a_bad_file_is_one_line_and_the_code_2(text: str, message: str) -> None:
    Path("ssepool.toml").write_text(text)
    assert message in error_of(run("serve", "--dev"), 2)


def test_a_port_in_use_is_one_line_and_the_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1 port {port}" in error_of(run("serve", "--dev", "--port", port), 2)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("serve", "--pool-size", "many"), "--pool-size"),
        (("serve", "--on-full", "explode"), "--on-full"),
        (("serve", "--puddle-size", "1"), "--puddle-size"),
        (("serve", "extra"), "extra"),
        (("publish",), "TOPIC"),
        (("publish", "t", "x", "--retry", "soon"), "--retry"),
        (("publish", "t", "x", "--lines"), "--lines"),
        (("publish", "t", "-", "--lines", "--id", "a"), "--id"),
        (("subscribe",), "TOPIC"),
        (("subscribe", "t", "--count", "0"), "--count"),
        (("subscribe", "t", "--timeout", "-1"), "--timeout"),
        (("subscribe", "t", "--last", "0"), "--last"),
        (("subscribe", "t", "--last", "2", "--last-event-id", "x"), "--last"),
        (("stats", "--watch", "0"), "--watch"),
        (("topics", "--limit", "0"), "--limit"),
        (("drain", "--seconds", "-1"), "--seconds"),
        (("drain", "--seconds", "3601"), "--seconds"),
        (("kick", "x", "--seconds", "3601"), "--seconds"),
        (("stats", "--port", "0"), "--port"),
        (("dance",), "dance"),
    ],
)
def test_a_bad_command_line_names_what_is_bad(args: tuple[str, ...], name: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert name in result.stderr
    assert "Traceback" not in result.output


# The hub that is asked


@pytest.mark.parametrize(
    "args",
    [
        ("publish", "t", "x"),
        ("subscribe", "t"),
        ("stats",),
        ("stats", "--json"),
        ("topics",),
        ("drain",),
        ("kick", "x"),
    ],
)
def test_nobody_there_is_one_line_with_the_url_and_how_to_start_a_hub(args: tuple[str, ...]) -> None:
    line = error_of(run(*args, "--url", NOBODY), 1)
    assert line.startswith(f"no hub answers at {NOBODY}: ")
    assert "`ssepool serve`" in line


@pytest.mark.parametrize("args", [("publish", "t", "x"), ("subscribe", "t"), ("stats",)])
def test_a_bad_url_is_one_line(args: tuple[str, ...]) -> None:
    assert "'localhost' is not the URL of a hub" in error_of(run(*args, "--url", "localhost"), 1)


def test_the_url_may_come_from_the_environment(scripted: ScriptedServer) -> None:
    scripted.play(created("a-1"))
    assert run("publish", "t", "x", env={"SSEPOOL_URL": scripted.url}).stdout == "a-1\n"


@pytest.mark.parametrize("command", [("stats",), ("topics",), ("drain",), ("kick", "x")])
def test_a_socket_that_is_not_there_is_one_line_with_where_it_was_looked_for(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    line = error_of(run(*command, "--port", "4321"), 1)
    assert line.startswith(f"no hub of port 4321 has its socket at {tmp_path}/ssepool-4321.sock, ")
    assert "`ssepool serve`" in line


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_socket_on_which_nobody_listens_is_one_line(tmp_path: Path) -> None:
    line = error_of(run("stats", "--admin", f"unix:{tmp_path}/other.sock"), 1)
    assert line.startswith(f"no hub answers at unix:{tmp_path}/other.sock: ")
    gc.collect()  # httpx2 leaves the socket to it


@pytest.mark.parametrize("args", [(), ("x", "--user", "u1")])
def test_a_kick_says_whom(args: tuple[str, ...]) -> None:
    assert error_of(run("kick", *args), 2) == "whom? kick takes the id of a connection, or --user, --topic and --ip"


def test_a_token_goes_with_each_request_and_comes_from_a_file_or_the_environment(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    answer = b'{"pool": {}}'
    scripted.play(*[b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 12\r\n\r\n" + answer] * 3)
    run("stats", "--json", "--url", scripted.url, "--token-file", str(tmp_path / "token"))
    run("stats", "--json", "--url", scripted.url, env={"SSEPOOL_TOKEN": "from-the-environment"})
    run("stats", "--json", "--admin", scripted.url)
    shown = [request.headers.get(b"authorization") for request in scripted.requests]
    assert shown == [b"Bearer from-a-file", b"Bearer from-the-environment", None]


@pytest.mark.parametrize("text", ["two words", "caf\u00e9", "a\nb"])
def test_what_is_no_token_is_not_sent(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text, "utf-8")
    line = error_of(run("stats", "--url", NOBODY, "--token-file", str(tmp_path / "token")), 2)
    assert line == f"{tmp_path}/token has no token in it: it takes one, alone on its line"


@pytest.mark.parametrize("args", [("publish", "t", "x"), ("stats", "--admin", NOBODY), ("subscribe", "t")])
def test_a_missing_library_is_one_line_that_says_how_to_get_it(
    args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert error_of(run(*args), 1) == "the client needs httpx2: pip install 'ssepool[client]'"


def test_a_refusal_is_the_hubs_own_message(scripted: ScriptedServer) -> None:
    body = b'{"error": {"code": "invalid_topic", "message": "topic \'x\' is bad"}}'
    scripted.play(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    assert error_of(run("publish", "t", "x", "--url", scripted.url), 1) == "topic 'x' is bad"


# publish


def published(
    server: ScriptedServer, *args: str, input: str | bytes | None = None, answer: bytes = created("1")
) -> Any:
    """The events of the one request that a command makes."""
    server.play(answer)
    result = run("publish", "--url", server.url, *args, input=input)
    assert result.exit_code == 0, result.output
    assert result.stdout == ("" if "--quiet" in args else "1\n")
    return [json.loads(line) for line in server.requests[0].body.splitlines()]


def test_an_event_is_published_with_all_its_fields(scripted: ScriptedServer) -> None:
    args = ("t", "x", "--type", "update", "--id", "i-1", "--retry", "5000", "--private", "--quiet")
    fields = {"topics": ["t"], "data": "x", "type": "update", "id": "i-1", "retry": 5000, "private": True}
    assert published(scripted, *args) == [fields]


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        (("x", "--key", "7"), {"data": "x", "key": "7"}),
        (("--key", "7", "--remove", "--json"), {"data": "7", "type": "removed", "key": "7", "removed": True}),
        (("--key", "-", "--remove"), {"data": "-", "type": "removed", "key": "-", "removed": True}),
        (
            ("{}", "--key", "7", "--remove", "--type", "left"),
            {"data": "{}", "type": "left", "key": "7", "removed": True},
        ),
    ],
)
def test_an_event_replaces_and_removes(scripted: ScriptedServer, args: tuple[str, ...], fields: dict[str, Any]) -> None:
    assert published(scripted, "t", *args) == [{"topics": ["t"], **fields}]


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--remove",), "it needs --key"), (("--remove", "--key", "7", "--lines"), "one key is removed")],
)
def test_what_is_removed_has_one_key(args: tuple[str, ...], message: str) -> None:
    result = run("publish", "t", *args)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("input", "text"),
    [
        ("a\nb\n", "a\nb"),
        (b"a\r\n", "a"),
        ("a\n\n", "a\n"),
        ("", ""),
        (b"caf\xe9", "caf\ufffd"),
    ],
)
@pytest.mark.parametrize("args", [("t",), ("t", "-")])
def test_standard_input_is_one_event(
    scripted: ScriptedServer, args: tuple[str, ...], input: str | bytes, text: str
) -> None:
    assert published(scripted, *args, input=input)[0]["data"] == text


def test_json_is_checked_and_sent_as_json(scripted: ScriptedServer) -> None:
    [event] = published(scripted, "t", ' {"a": [1, 2.5, null], "b": 12345678901234567890} ', "--json")
    assert event["data"] == '{"a": [1, 2.5, null], "b": 12345678901234567890}'  # the bytes as they were written


@pytest.mark.parametrize("text", ["{", "", "nope", "{'a': 1}", "NaN", "1 2"])
def test_what_is_not_json_is_not_published_as_json(text: str) -> None:
    assert "the data is not JSON: " in error_of(run("publish", "t", text, "--json", "--url", NOBODY), 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("", "x"), "topic"),
        (("t", "x", "--id", "a b"), "id 'a b' is not allowed"),
        (("t", "x", "--type", "ssepool.x"), "type 'ssepool.x' is not allowed"),
        (("t", "x", "--retry", "-1"), "retry -1 is not allowed"),
    ],
)
def test_a_bad_event_is_one_line_and_the_code_2(args: tuple[str, ...], message: str) -> None:
    assert message in error_of(run("publish", "--url", NOBODY, *args), 2)


def test_each_line_is_an_event(scripted: ScriptedServer) -> None:
    events = published(scripted, "t", "--lines", input="a\n\nb\r\n")
    assert [event["data"] for event in events] == ["a", "", "b"]


def test_the_last_line_needs_no_end(scripted: ScriptedServer) -> None:
    [event] = published(scripted, "t", "--lines", input="a")
    assert event["data"] == "a"


def test_blank_lines_are_no_json(scripted: ScriptedServer) -> None:
    events = published(scripted, "t", "--lines", "--json", input='1\n\n"b"\n')
    assert [event["data"] for event in events] == ["1", "b"]


def test_many_lines_go_in_requests_of_bounded_size(scripted: ScriptedServer) -> None:
    scripted.play(*[created("x")] * 4)
    assert run("publish", "--lines", "t", "--url", scripted.url, input="a\n" * 1300).stdout == "x\n" * 3
    assert [request.body.count(b"\n") for request in scripted.requests] == [500, 500, 300]


def test_a_bad_line_is_named_and_what_went_before_it_counted(scripted: ScriptedServer) -> None:
    scripted.play(created(*["x"] * 500))
    result = run("publish", "--lines", "--json", "-q", "t", "--url", scripted.url, input="1\n" * 600 + "{\n")
    assert result.exit_code == 2
    told, error = result.stderr.splitlines()
    assert told == "ssepool: events published before the error: 500"
    assert error.startswith("ssepool: line 601 is not JSON: ")


def test_a_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_INPUT_BYTES", 1000)
    args = ("publish", "--lines", "t", "--url", NOBODY)
    assert error_of(run(*args, input="x" * 1001), 1) == "line 1 exceeds 1000 bytes"


def test_too_much_for_one_event_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_INPUT_BYTES", 1000)
    line = error_of(run("publish", "t", "--url", NOBODY, input="x" * 1001), 1)
    assert line.startswith("standard input exceeds 1000 bytes")


# drain


def answered(status: str, content: Any) -> bytes:
    body = json.dumps(content).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def held(free: int) -> bytes:
    return answered("200 OK", {"pool": {"size": 3, "free": free}})


ACCEPTED = answered("202 Accepted", {"draining": True, "seconds": 5})
ALREADY = answered("503 No", {"error": {"code": "pool_closed", "message": "it is draining"}})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LOOK_SECONDS", 0)


def test_a_drain_returns_when_all_clients_are_gone(scripted: ScriptedServer, at_once: None) -> None:
    scripted.play(ACCEPTED, held(0), held(2), held(3))
    result = run("drain", "--seconds", "5", "--url", scripted.url)
    assert (result.exit_code, result.output) == (0, "")
    assert [request.target for request in scripted.requests] == [b"/pool/drain", *[b"/pool"] * 3]
    assert json.loads(scripted.requests[0].body) == {"seconds": 5}


def test_a_drain_need_not_be_waited_for(scripted: ScriptedServer) -> None:
    scripted.play(ACCEPTED)
    assert run("drain", "--no-wait", "--url", scripted.url).exit_code == 0
    assert len(scripted.requests) == 1


def test_a_hub_that_drains_already_is_only_waited_for(scripted: ScriptedServer, at_once: None) -> None:
    scripted.play(ALREADY, held(2), held(3))
    result = run("drain", "--url", scripted.url)
    assert (result.exit_code, result.stderr) == (0, "ssepool: it is draining\n")
    assert len(scripted.requests) == 3


def test_a_drain_that_takes_too_long_says_who_is_left(
    scripted: ScriptedServer, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "GRACE_SECONDS", -1)
    scripted.play(ACCEPTED, held(1))
    line = error_of(run("drain", "--seconds", "0", "--url", scripted.url), 1)
    assert line == "connections that are still open after -1 s: 2"


def test_a_drain_that_is_refused_is_one_line(scripted: ScriptedServer) -> None:
    scripted.play(answered("403 No", {"error": {"code": "forbidden", "message": "you may not"}}))
    assert error_of(run("drain", "--url", scripted.url), 1) == "you may not"


def test_the_settings_of_the_server_fit_on_the_command_line() -> None:
    keys = [item.key for item in settings()]
    assert len(keys) == len(set(keys))
    assert not {"ctx", "config_file", "config", "help"} & set(keys)
    assert all(dataclasses.is_dataclass(section) for section in (HubConfig, ServerConfig))


# check


def test_check_says_what_is_weak_in_the_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "weak.toml"
    file.write_text('[server]\nhost = "0.0.0.0"\n')
    result = run("check", "--config", str(file), env={"SSEPOOL_ALLOWED_HOSTS": "*"})
    assert result.exit_code == 1
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["trusted_proxies", "allowed_hosts"]


def test_check_finds_nothing_in_the_defaults() -> None:
    result = run("check")
    assert (result.exit_code, result.stdout) == (0, "nothing weak was found\n")
