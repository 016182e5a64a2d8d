"""The commands and the clients against a real hub, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live import Stream, serve_command
from ssepool import Event
from ssepool.client import AsyncClient, Client, Refused

PATIENCE_SECONDS = 20.0
SSEPOOL = (sys.executable, "-m", "ssepool")
ROOT = Path(__file__).parents[2]
ENV = {**{name: value for name, value in os.environ.items() if not name.startswith("SSEPOOL_")}, "COLUMNS": "200"}


class Command:
    """A running `ssepool ...`, whose output is read as it comes."""

    def __init__(self, *args: str, stdin: int | None = subprocess.DEVNULL, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*SSEPOOL, *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**ENV, **(env or {})},
            cwd=ROOT,
        )
        self.out = Lines(self.process.stdout)
        self.err = Lines(self.process.stderr)

    def interrupt(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.out.close()
        self.err.close()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


class Lines:
    """The lines of a pipe, collected by a thread."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._all: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._pipe:
            with self._changed:
                self._all.append(line.decode().rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """The last of the first `count` lines that match, as soon as they are there."""

        def found() -> list[str]:
            return [line for line in self._all if re.search(pattern, line)]

        with self._changed:
            in_time = self._changed.wait_for(lambda: len(found()) >= count, PATIENCE_SECONDS)
            assert in_time, f"no {pattern!r} among {self._all}"
            return found()[count - 1]

    def all(self) -> list[str]:
        """All lines, after the end of the process."""
        self._thread.join(PATIENCE_SECONDS)
        return self._all

    def close(self) -> None:
        self._thread.join(PATIENCE_SECONDS)
        self._pipe.close()


class Commands:
    """Starts commands for a test and ends those that are left."""

    def __init__(self) -> None:
        self._started: list[Command] = []

    def start(self, *args: str, **options: Any) -> Command:
        command = Command(*args, **options)
        self._started.append(command)
        return command

    def serve(self, *args: str, port: int = 0) -> tuple[Command, str]:
        """A hub and its URL."""
        hub = self.start("serve", "--dev", "--port", str(port), *args)
        return hub, hub.out.wait_for("^ssepool is serving on ").split()[-1]

    def end(self) -> None:
        for command in self._started:
            command.end()


@pytest.fixture
def commands() -> Iterator[Commands]:
    made = Commands()
    yield made
    made.end()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A hub that the tests of this module share; each has topics of its own."""
    made = Commands()
    hub, url = made.serve()
    yield url
    code = hub.interrupt(signal.SIGTERM)
    errors = [line for line in hub.err.all() if "ERROR" in line or "Traceback" in line]
    made.end()
    assert errors == []
    assert code in (0, -signal.SIGTERM)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"tests/{request.node.name}"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)


def run(*args: str, url: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SSEPOOL, *args, "--url", url],
        input=input,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=ENV,
        cwd=ROOT,
    )


def run_on_a_terminal(*args: str, url: str, input: bytes = b"", stdout: bool = True) -> str:
    """What a terminal shows that is the standard error, and the standard output if asked, of a command."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*SSEPOOL, *args, "--url", url],
        stdin=subprocess.PIPE,
        stdout=slave if stdout else subprocess.DEVNULL,
        stderr=slave,
        env={**ENV, "TERM": "xterm-256color"},
        cwd=ROOT,
    )
    os.close(slave)
    assert process.stdin
    process.stdin.write(input)
    process.stdin.close()
    shown = b""
    with contextlib.suppress(OSError):  # what a terminal says when nobody is left at its other side
        while select.select([master], [], [], PATIENCE_SECONDS)[0] and (chunk := os.read(master, 65536)):
            shown += chunk
    os.close(master)
    assert process.wait(PATIENCE_SECONDS) == 0, shown
    return shown.decode()


def open_streams(url: str) -> int:
    with Client(url) as client:
        pool = client.stats()["pool"]
        return int(pool["open"]) + int(pool["waiting"])


# Events


def test_what_is_published_is_printed(commands: Commands, url: str, topic: str) -> None:
    first = run("publish", topic, "one", url=url).stdout.strip()
    reader = commands.start("subscribe", topic, "--url", url, "--last-event-id", "earliest", "--json", "--count", "3")
    reader.out.wait_for("one")
    second = run(
        "publish", topic, "-", "--json", "--type", "update", url=url, input='{"a": "ü", "b": 1.10}\n'
    ).stdout.strip()
    third = run("publish", topic, url=url, input="two\nlines\n").stdout.strip()
    assert reader.wait() == 0
    assert [json.loads(line) for line in reader.out.all()] == [
        {"type": "message", "data": "one", "id": first},
        {"type": "update", "data": '{"a": "ü", "b": 1.10}', "id": second},
        {"type": "message", "data": "two\nlines", "id": third},
    ]
    assert reader.err.all() == []


def test_a_pipe_gets_the_data_alone(url: str, topic: str) -> None:
    run("publish", topic, "one\ntwo", "--type", "x", url=url)
    assert run("subscribe", topic, "--last-event-id", "earliest", "--count", "1", url=url).stdout == "one\ntwo\n"


def test_the_newest_come_first(url: str, topic: str) -> None:
    run("publish", "--lines", topic, url=url, input="1\n2\n3\n")
    assert run("subscribe", topic, "--last", "2", "--count", "2", url=url).stdout == "2\n3\n"
    with Client(url) as client, contextlib.closing(client.subscribe(topic, last_event_id="latest")) as messages:
        assert next(message.data for message in messages if message.type == "message") == "3"

    async def newest(count: int) -> list[str]:
        found: list[str] = []
        async with (
            AsyncClient(url) as client,
            contextlib.aclosing(client.subscribe(topic, last_event_id=f"last={count}")) as messages,
        ):
            async for message in messages:
                found += [message.data] if message.type == "message" else []
                if len(found) == count:
                    break
        return found

    assert asyncio.run(newest(2)) == ["2", "3"]


def test_a_pattern_and_topics_are_followed_at_once(url: str, topic: str) -> None:
    for name in ("a", "b/1", "c"):
        run("publish", f"{topic}/{name}", name, url=url)
    args = (f"{topic}/a", "--pattern", f"{topic}/b/:id".replace("[", "\\[").replace("]", "\\]"))
    done = run("subscribe", *args, "--last-event-id", "earliest", "--count", "2", url=url)
    assert done.stdout == "a\nb/1\n"


def test_events_before_the_last_event_id_are_left_out(url: str, topic: str) -> None:
    ids = run("publish", "--lines", topic, url=url, input="1\n2\n3\n").stdout.split()
    assert run("subscribe", topic, "--last-event-id", ids[0], "--count", "2", url=url).stdout == "2\n3\n"


def test_the_hubs_own_events_are_shown_when_asked_for(url: str, topic: str) -> None:
    line = run("subscribe", topic, "--all", "--json", "--count", "1", url=url).stdout
    assert json.loads(line)["type"] == "ssepool.open"


def test_too_few_events_in_time_are_a_failure(url: str, topic: str) -> None:
    run("publish", topic, "one", url=url)
    args = ("subscribe", topic, "--last-event-id", "earliest", "--timeout", "3")
    done = run(*args, "--count", "2", url=url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "one\n", "ssepool: 1 of 2 events came\n")
    assert run(*args, url=url).returncode == 0


def test_lines_are_published_as_they_come(commands: Commands, url: str, topic: str) -> None:
    writer = commands.start("publish", "--lines", topic, "-", "--url", url, stdin=subprocess.PIPE)
    pipe = writer.process.stdin
    assert pipe
    for number in range(1, 4):
        pipe.write(b"line %d\n" % number)
        pipe.flush()
        writer.out.wait_for(".", number)  # the id comes before the next line and the end of the input
    pipe.close()
    assert writer.wait() == 0


def test_many_lines_arrive_whole_and_in_order(commands: Commands, url: str, topic: str) -> None:
    lines = [f"{number} {'x' * (number % 300)}" for number in range(900)]
    reader = commands.start("subscribe", topic, "--url", url, "--last-event-id", "earliest", "--count", "900")
    done = run("publish", "--lines", "--quiet", topic, url=url, input="\n".join(lines))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert reader.wait() == 0
    assert reader.out.all() == lines


def test_a_refusal_is_the_hubs_own_message(url: str) -> None:
    done = run("publish", "ssepool/pool", "x", url=url)
    assert done.returncode == 1
    assert re.fullmatch(r"ssepool: .*'ssepool/pool' is the hub's own.*\n", done.stderr)
    done = run("subscribe", "--pattern", "{", url=url)
    assert done.returncode == 1
    assert re.fullmatch(r"ssepool: .*pattern.*\n", done.stderr)


# Ends


def test_control_c_ends_a_subscription_without_a_traceback(commands: Commands, url: str, topic: str) -> None:
    run("publish", topic, "one", url=url)
    reader = commands.start("subscribe", topic, "--url", url, "--last-event-id", "earliest")
    reader.out.wait_for("one")
    assert reader.interrupt() == 130
    assert reader.err.all() == []


def test_a_pipe_that_closes_ends_a_subscription_quietly(url: str, topic: str) -> None:
    run("publish", "--lines", topic, url=url, input="\n".join(map(str, range(20_000))))
    line = f"{sys.executable} -m ssepool subscribe '{topic}' --url {url} --last-event-id earliest | head -2"
    done = subprocess.run(
        ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=ENV,
        cwd=ROOT,
    )
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_control_c_ends_a_watch(commands: Commands, url: str) -> None:
    watch = commands.start("stats", "--watch", "0.1", "--json", "--url", url)
    watch.out.wait_for("node", 3)
    assert watch.interrupt() == 130
    assert watch.err.all() == []
    assert all(json.loads(line)["pool"]["state"] == "open" for line in watch.out.all())


# Connections that end or wait


def test_a_hub_that_comes_back_is_found_again(commands: Commands) -> None:
    hub, url = commands.serve("--retry", "0.2")
    port = int(url.rsplit(":", 1)[1])
    run("publish", "t", "before", url=url)
    reader = commands.start("subscribe", "t", "--url", url, "--last-event-id", "earliest")
    reader.out.wait_for("before")
    hub.interrupt(signal.SIGTERM)
    reader.err.wait_for("the hub closes the stream: shutdown")
    reader.err.wait_for("reconnecting in")
    commands.serve(port=port)
    reader.err.wait_for("events are missing after ")
    run("publish", "t", "after", url=url)
    reader.out.wait_for("after")


def test_a_hub_that_dies_is_found_again(commands: Commands) -> None:
    hub, url = commands.serve()
    port = int(url.rsplit(":", 1)[1])
    run("publish", "t", "before", "--retry", "500", url=url)
    reader = commands.start("subscribe", "t", "--url", url, "--last-event-id", "earliest")
    reader.out.wait_for("before")
    hub.interrupt(signal.SIGKILL)
    reader.err.wait_for(r"reconnecting in 0\.[56] s")
    commands.serve(port=port)
    run("publish", "t", "after", url=url)
    reader.err.wait_for("events are missing after ")
    run("publish", "t", "later", url=url)
    reader.out.wait_for("later")


def test_who_waits_in_the_queue_is_told_so(commands: Commands) -> None:
    _, url = commands.serve("--pool-size", "1", "--announce-queue")
    first = commands.start("subscribe", "t", "--url", url)
    until(lambda: open_streams(url) == 1, "the first has its slot")
    second = commands.start("subscribe", "t", "--url", url)
    second.err.wait_for("waiting for a free slot: 1 of 1")
    first.interrupt()
    until(lambda: open_streams(url) == 1, "the second has its slot")
    run("publish", "t", "for you", url=url)
    second.out.wait_for("for you")


def test_who_waits_without_an_answer_is_told_so_too(commands: Commands) -> None:
    _, url = commands.serve("--pool-size", "1")
    commands.start("subscribe", "t", "--url", url)
    until(lambda: open_streams(url) == 1, "the first has its slot")
    second = commands.start("subscribe", "t", "--url", url)
    second.err.wait_for("^ssepool: waiting for a free slot$")


def test_who_is_kicked_comes_back_when_its_ban_is_over(commands: Commands) -> None:
    _, url = commands.serve()
    reader = commands.start("subscribe", "t", "--url", url, "--all", "--json")
    opened = json.loads(reader.out.wait_for("ssepool.open"))
    connection = json.loads(opened["data"])["connection"]
    kick = urllib.request.Request(f"{url}/connections/{connection}?seconds=0.5", method="DELETE")
    urllib.request.urlopen(kick).close()
    reader.err.wait_for("the hub closes the stream: kicked")
    reader.out.wait_for("ssepool.open")


def test_a_drain_sends_everybody_away_and_returns_when_they_are_gone(commands: Commands) -> None:
    _, url = commands.serve()
    readers = [commands.start("subscribe", "t", "--url", url) for _ in range(2)]
    until(lambda: open_streams(url) == 2, "both have their slots")
    assert run("drain", "--seconds", "0.5", url=url).returncode == 0
    assert open_streams(url) == 0
    for reader in readers:
        reader.err.wait_for("the hub closes the stream: drained")
    again = run("drain", url=url)
    assert again.returncode == 0
    assert "is draining" in again.stderr


# Statistics


def test_statistics_are_lines_where_no_terminal_is(url: str) -> None:
    rows = dict(line.split(maxsplit=1) for line in run("stats", url=url).stdout.splitlines())
    assert rows["pool.state"] == "open"
    assert rows["pool.size"] == "1000"
    assert rows["released.kicked"] == "0"
    assert {"hub.node", "hub.uptime", "events.published", "history.bytes"} <= set(rows)


def test_statistics_are_json_when_asked_for(url: str) -> None:
    numbers = json.loads(run("stats", "--json", url=url).stdout)
    with Client(url) as client:
        assert numbers.keys() == client.stats().keys()


def test_statistics_are_a_table_on_a_terminal(url: str) -> None:
    shown = run_on_a_terminal("stats", url=url)
    assert re.search(r"size .* 1,000", shown)
    assert "max waiting" in shown
    assert "kicked" not in shown


# Topics


def test_topics_are_lines_json_or_a_table(url: str, topic: str) -> None:
    long = f"{topic}/{'long' * 40}"
    with Client(url) as client:
        for name in (long, f"{topic}/b", f"{topic}/b"):
            client.publish(name, "x")
    asked = ("topics", "--prefix", f"{topic}/", "--sort", "events")
    lines = run(*asked, url=url).stdout.splitlines()
    assert lines[0].split() == ["events", "bytes", "subscribers", "by_pattern", "rate", "topic"]
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [("2", f"{topic}/b"), ("1", long)]
    first = run("topics", "--prefix", f"{topic}/", "--sort", "name", "--limit", "1", url=url)
    assert f"there are more: --after '{topic}/b'" in first.stderr
    rest = run("topics", "--prefix", f"{topic}/", "--sort", "name", "--after", f"{topic}/b", "--json", url=url)
    assert [row["topic"] for row in json.loads(rest.stdout)["topics"]] == [long]
    shown = run_on_a_terminal(*asked, url=url)
    assert re.search(r"/b .* 2 ", shown)
    refused = run("topics", "--sort", "size", url=url)
    assert refused.returncode == 1
    assert "sort='size' is not allowed" in refused.stderr


# Terminals


def test_a_terminal_shows_id_and_type_and_obeys_no_event(url: str, topic: str) -> None:
    id = run("publish", topic, "red \x1b[31m\x07 ü", "--type", "x", url=url).stdout.strip()
    shown = run_on_a_terminal("subscribe", topic, "--last-event-id", "earliest", "--count", "1", url=url)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert f"{id}  x  red \\x1b[31m\\x07 ü" in plain


def test_a_terminal_shows_the_progress_of_many_lines(url: str, topic: str) -> None:
    text = b"x\n" * 20_000
    assert "20,000 events" in run_on_a_terminal("publish", "--lines", "-q", topic, url=url, input=text, stdout=False)


# The clients


def test_the_client_publishes_and_subscribes(url: str, topic: str) -> None:
    with Client(url) as client:
        ids = client.publish_many([Event({"n": n}, (topic,)) for n in range(3)])
        messages = client.subscribe(topic, last_event_id="earliest")
        kinds = [next(messages) for _ in range(4)]
        messages.close()
        until(lambda: client.stats()["pool"]["closing"] == 0, "the slot is free again")
    assert kinds[0].type == "ssepool.open"
    assert [(message.id, message.data) for message in kinds[1:]] == [(id, f'{{"n":{n}}}') for n, id in enumerate(ids)]


def test_the_async_client_publishes_while_it_subscribes(url: str, topic: str) -> None:
    async def talk() -> list[str]:
        heard: list[str] = []
        async with AsyncClient(url) as client, contextlib.aclosing(client.subscribe(topic)) as messages:
            async for message in messages:
                heard.append(message.data if message.type == "message" else message.type)
                if len(heard) == 4:
                    break
                await client.publish(topic, f"after {heard[-1]}")
        return heard

    opened, *rest = asyncio.run(asyncio.wait_for(talk(), PATIENCE_SECONDS))
    assert opened == "ssepool.open"
    assert rest == ["after ssepool.open", "after after ssepool.open", "after after after ssepool.open"]


# Over a Unix socket.


def test_both_clients_speak_to_a_hub_over_a_unix_socket_and_kick() -> None:
    with serve_command("--public-topics", "*") as server:
        place = f"unix:{server.admin}"
        streams = [Stream(server, topic).opened() for topic in ("a", "b", "c", "c")]
        with Client(place) as client:
            assert client.stats()["pool"]["open"] == 4
            client.kick(streams[0].connection, 0)
            assert client.kick_all(topic="b", seconds=0) == (1, [])
            with pytest.raises(Refused, match="there is no connection 'nobody'"):
                client.kick("nobody")
            with pytest.raises(ValueError, match="it does not kick everybody"):
                client.kick_all()
            client.revoke(subject="nobody", issued_before="now")
            client.revoke(token_id="none")
            with pytest.raises(ValueError, match="it does not take back every grant"):
                client.revoke(issued_before="now")
            with pytest.raises(Refused, match="there is nothing at '/events'"):
                client.publish("a", "x")  # which is no part of administration

        async def use() -> None:
            async with AsyncClient(place) as client:
                await client.kick(streams[2].connection, 0)
                await client.revoke(token_id="none", issuer="nobody")
                assert await client.kick_all(ip="127.0.0.1", topic="c", seconds=0) == (1, [])
                assert (await client.stats())["pool"]["released"]["kicked"] >= 2

        server.wait_pool(open=2, closing=0)
        asyncio.run(use())
        for stream in streams:
            assert stream.to_end().of_type("ssepool.close")[0]["reason"] == "kicked"
            stream.close()
