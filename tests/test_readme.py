"""The README is true: its application and its command lines run as they stand there, and the application is closed."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import DEADLINE, TESTS, LiveServer, Stream, running, wait_for
from ssepool.config import HubConfig
from ssepool.core.rules import Rules
from tools import require
from written import COMMAND, PROTOCOLS, blocks, serve_code

README = (TESTS.parent / "README.md").read_text("utf-8")
SECRET = "what-only-ben-may-read"
SSEPOOL = [sys.executable, "-m", "ssepool"]


# The application.


@pytest.fixture(scope="module", params=PROTOCOLS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("readme")
    [command] = blocks(README, "In your application", "sh")
    assert command.strip() == COMMAND
    with serve_code("\n\n".join(blocks(README, "In your application", "python")), folder, request.param) as server:
        yield server


def log_in(server: LiveServer, user: str, password: str) -> dict[str, str]:
    body = json.dumps({"user": user, "password": password}).encode()
    request = urllib.request.Request(server.url + "/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def tell(server: LiveServer, sender: dict[str, str], to: str, text: str) -> None:
    assert server.request("POST", f"/messages/{to}", {"text": text}, sender)[0] == 200


def test_each_user_of_the_application_gets_what_is_theirs(server: LiveServer) -> None:
    ann, ben = log_in(server, "ann", "red"), log_in(server, "ben", "blue")
    with (
        Stream(server, "users/ann", path="/sse/events", headers=ann).opened() as mounted,
        Stream(server, path="/inbox", headers=ann).opened() as own,
        Stream(server, path="/answers/17?question=Who", headers=ann) as answer,
    ):
        answer.to_end()
        assert "".join(answer.data) == "Youask:Who?Becauseitisso."
        tell(server, ben, "ann", "hello")
        for stream in mounted, own:
            stream.wait_data('{"from":"ben","text":"hello"}')


def test_no_request_of_one_user_reads_or_writes_what_is_anothers(server: LiveServer) -> None:
    ann, ben = log_in(server, "ann", "red"), log_in(server, "ben", "blue")
    with (
        Stream(server, "users/ben", path="/sse/events", headers=ben).opened() as his,
        Stream(server, path="/answers/1", headers=ben).to_end(),
    ):
        tell(server, ben, "ben", SECRET)
        his.until(lambda s: len(s.data) == 1)
        hole = [
            (request, answer.partition(b"\r\n")[0], headers)
            for request in attempts(his)
            for headers in (ann, {}, {"Cookie": "session=ben"}, {"Authorization": "Bearer ben", **ann})
            if SECRET.encode() in (answer := answered(server, *request, headers))
            or not re.match(rb"HTTP/1.1 4", answer)
        ]
        assert hole == []
        # What is hers stays hers whatever she writes behind it.
        for path in (
            "/sse/events?topic=users/ann&last_event_id=earliest",
            f"/sse/events?topic=users/ann&last_event_id={his.last_event_id}",
            "/inbox?topic=users/ben&pattern=*&user=ben&last_event_id=earliest",
            "/inbox?topics=users/ben&private=true&last_event_id=" + his.last_event_id,
        ):
            with Stream(server, path=path, headers=ann).opened() as hers:
                tell(server, ann, "ben", SECRET)
                tell(server, ben, "ann", "the end")
                hers.until(lambda s: any("the end" in data for data in s.data))
                assert SECRET not in hers.raw.decode()
        with Stream(server, path="/answers/1?question=Mine&last_event_id=earliest", headers=ann) as answer:
            answer.to_end()
            assert "Mine?" in answer.data
        his.until(lambda s: len(s.data) == 5)
        assert all(SECRET in data for data in his.data)
    assert "Traceback" not in "".join(server.log)


QUERIES = [
    "topic=users/ben",
    "topic=users%2Fben",
    "topic=users/ben&last_event_id=earliest",
    "topic=users/ann&topic=users/ben",
    "topic=users/ben&topic=users/ann",
    "topic=users/ann&pattern=users/:id",
    "topic=*",
    "topic=users/*",
    "topic=users/:id",
    "pattern=*",
    "pattern=users/*",
    "pattern=users/:id",
    "pattern=users/be{n}",
    "pattern=:a/ben",
    "pattern=users/ben",
    "pattern=users/(.*)",
    "pattern=users/ann{/*}?",
    "topic=users/./ben",
    "topic=users/ann/../ben",
    "topic=users/%2e/ben",
    "topic=users//ben",
    "topic=users/ben/",
    "topic=users/ben%00",
    "topic=users/ann%0Ausers/ben",
    "topic=answers/ben/1&last_event_id=earliest",
    "topic=ssepool/pool",
    "pattern=ssepool/*",
    "topics=users/ben",
    "topic[]=users/ben",
    "",
]
PATHS = [
    "/sse/events",
    "//sse/events",
    "/sse//events",
    "/sse/./events",
    "/sse/events/",
    "/sse/%65vents",
    "/%73se/events",
    "/sse/%2e%2e/sse/events",
    "/inbox/../sse/events",
    "/sse/sse/events",
    "/SSE/events",
    "/events",
    "http://127.0.0.1/sse/events",
    "http://ben@localhost/sse/events",
]
MANAGEMENT = [
    ("GET", "/pool"),
    ("PATCH", "/pool"),
    ("POST", "/pool/drain"),
    ("GET", "/cluster"),
    ("GET", "/metrics"),
    ("GET", "/connections"),
    ("GET", "/dashboard"),
    ("GET", "/demo"),
    ("POST", "/demo/jobs"),
]


def attempts(his: Stream) -> Iterator[tuple[str, str, str, bytes]]:
    """Requests, by method, target, type and body, that must be refused whoever but Ben asks."""
    for path in PATHS:
        for query in QUERIES:
            yield "GET", f"{path}?{query}", "", b""
        yield "HEAD", f"{path}?topic=users/ben", "", b""
        event = {"topic": "users/ben", "data": "from ann"}
        yield "POST", path, "application/json", json.dumps(event).encode()
    for body in {"topics": ["users/ann", "users/ben"], "data": 1}, [event], {"topic": "users/ann", "data": 1}:
        yield "POST", "/sse/events", "application/json", json.dumps(body).encode()
    yield "POST", "/sse/events", "application/x-ndjson", json.dumps(event).encode() + b"\n"
    yield "POST", "/sse/events", "application/x-www-form-urlencoded", b"topic=users/ben&data=x"
    connection = f"/connections/{his.connection}"
    for prefix in "", "/sse", "//sse", "/sse/", "/sse/%2e":
        for method, path in [*MANAGEMENT, ("GET", connection), ("DELETE", connection)]:
            yield method, prefix + path, "application/json", b'{"size":1}' if method in ("POST", "PATCH") else b""
        yield "POST", f"{prefix}{connection}/messages?token=x", "application/json", b'"hello"'
    yield "GET", "/answers/ben/1", "", b""
    yield "GET", "/answers/..%2fben%2f1", "", b""
    yield "POST", "/login", "application/json", b'{"user":"ben","password":"red"}'
    yield "POST", "/login", "application/json", b'{"user":"ben","password":null}'
    yield "POST", "/login", "application/json", b'{"user":"carl","password":""}'


def answered(server: LiveServer, method: str, target: str, kind: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The first that comes back, or all of it where the server closes."""
    fields = {"Host": f"127.0.0.1:{server.port}", "Connection": "close", **headers}
    if body:
        fields |= {"Content-Type": kind, "Content-Length": str(len(body))}
    head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.sendall("\r\n".join(head).encode() + body)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65536):
                answer += part
                if answer.startswith(b"HTTP/1.1 2") and b"\n\n" in answer:
                    break  # a stream, which is a hole already
    return answer


# The command lines.


def command_lines(words: str) -> list[list[str]]:
    """The lines of "Stand-alone" that run this, without what only a checkout has."""
    lines = [line for block in blocks(README, "Stand-alone", "sh") for line in block.splitlines() if words in line]
    assert lines, words
    found = [shlex.split(line, comments=True) for line in lines]
    return [SSEPOOL + words[1:] if words[0] == ".venv/bin/ssepool" else words for words in found]


def test_the_lines_to_try_things_with_do_what_they_say() -> None:
    require("curl")
    [serve] = command_lines("--dev --pool-size")
    with running([*serve, "--port", "0"], r"serving on (http\S*)") as server, contextlib.ExitStack() as ended:

        def start(words: list[str]) -> subprocess.Popen[str]:
            own = ["--url", server.url] if words[: len(SSEPOOL)] == SSEPOOL else []
            words = [word.replace("http://127.0.0.1:8000", server.url) for word in words] + own
            process = ended.enter_context(
                subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
            ended.callback(process.kill)
            return process

        readers = [start(words) for words in [*command_lines("ssepool subscribe"), *command_lines("curl -N")]]
        wait_for(lambda: server.pool()["open"] == 2)
        for words in [*command_lines("ssepool publish"), *command_lines("curl -d"), *command_lines("ssepool stats")]:
            output, _ = (process := start(words)).communicate(timeout=DEADLINE)
            assert process.returncode == 0, output
        for reader in readers:
            assert reader.stdout is not None
            seen = ""
            while "hello" not in seen.replace('"hello"', "") or '{"hello":"world"}' not in seen.replace(" ", ""):
                line = reader.stdout.readline()
                assert line, seen
                seen += line


def test_a_hub_with_public_topics_is_open_for_these_alone() -> None:
    [serve] = command_lines("--public-topics")
    with running([*serve, "--port", "0"], r"serving on (http\S*)") as server:
        for query in "topic=news", "topic=weather/rome", "pattern=weather/:town":
            Stream(server, path=f"/events?{query}").opened().close()
        for query in "topic=users/ann", "pattern=*", "topic=weather", "topic=weather/rome/today":
            assert server.request("GET", f"/events?{query}")[0] == 401
        assert server.request("POST", "/events", {"topic": "news", "data": "x"})[0] == 401
        assert server.request("GET", "/pool")[0] == 404


def test_workers_over_a_file_need_no_more_than_the_line_says(tmp_path: Path) -> None:
    [serve] = command_lines("sqlite:///")
    words = [word.replace("events.db", f"{tmp_path}/events.db") for word in serve]
    with running([*words, "--port", "0"], r"serving on (http\S*)") as server:
        assert server.request("GET", "/pool")[1]["pool"]["state"] == "open"


def test_without_anything_that_says_who_may_do_what_it_does_not_start() -> None:
    process = subprocess.run([*SSEPOOL, "serve", "--port", "0"], capture_output=True, text=True, timeout=DEADLINE)
    assert process.returncode != 0
    assert "--public-topics" in process.stderr and "--dev" in process.stderr


def test_the_rules_for_topics_are_those_of_the_settings() -> None:
    [block] = blocks(README, "What it is", "toml")
    said = tomllib.loads(block)["hub"]
    config = HubConfig(**{**said, "topic_rules": tuple(said["topic_rules"])})
    rules = Rules.from_config(config)
    kept = [rules.of(topic).events for topic in ("prices/gold", "logs/a", "answers/ann/1", "typing/1")]
    assert kept == [1, 1000, 5000, 0]
