"""Where the Python clients and the command line begin, and rows of state topics that they publish and read."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from live import DEADLINE, LiveServer, serve_command
from ssepool.client import AsyncClient, Client

BEGINNINGS = {"earliest": ["1", "2", "3", "4"], "latest": ["4"], "last=3": ["2", "3", "4"], "id": ["3", "4"]}
MORE = ["5", "6"]
"""What is published while a client that has had all of it is away."""


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve_command("--retry", "0.05") as server:
        yield server


def command(server: LiveServer, *args: str) -> str:
    line = [sys.executable, "-m", "ssepool", *args, "--url", server.url]
    done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return done.stdout


def away(server: LiveServer, topic: str) -> None:
    """Break all streams for a moment, and publish meanwhile."""
    for connection in server.request("GET", "/connections")[1]["connections"]:
        assert server.request("DELETE", f"/connections/{connection['id']}?seconds=0")[0] == 204
    for number in MORE:
        server.publish(topic, number)


def read(server: LiveServer, topic: str, begin: str, count: int) -> list[str]:
    """What comes to a client whose connection breaks once it has so many events."""
    found: list[str] = []
    with Client(server.url) as client, contextlib.closing(client.subscribe(topic, last_event_id=begin)) as messages:
        for message in messages:
            assert message.type != "ssepool.gap"
            if message.type in ("message", "removed"):
                found.append(message.data)
            if len(found) == count and message.type == "message":
                away(server, topic)
            if len(found) == count + len(MORE):
                break
    return found


def read_in_a_task(server: LiveServer, topic: str, begin: str, count: int) -> list[str]:
    async def run() -> list[str]:
        found: list[str] = []
        async with (
            AsyncClient(server.url) as client,
            contextlib.aclosing(client.subscribe(topic, last_event_id=begin)) as messages,
        ):
            async for message in messages:
                assert message.type != "ssepool.gap"
                if message.type in ("message", "removed"):
                    found.append(message.data)
                if len(found) == count and message.type == "message":
                    await asyncio.to_thread(away, server, topic)
                if len(found) == count + len(MORE):
                    break
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("begin", BEGINNINGS)
@pytest.mark.parametrize("reader", [read, read_in_a_task])
def test_a_client_begins_where_it_says_and_goes_on_where_it_was(
    server: LiveServer, reader: Callable[..., list[str]], begin: str
) -> None:
    topic = f"{reader.__name__}/{begin}"
    ids = [server.publish(topic, number) for number in (1, 2, 3, 4)]
    newest = BEGINNINGS[begin]
    assert reader(server, topic, ids[1] if begin == "id" else begin, len(newest)) == [*newest, *MORE]


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_so_does_the_command_line(server: LiveServer, begin: str) -> None:
    topic = f"command/{begin}"
    ids = [server.publish(topic, number) for number in (1, 2, 3, 4)]
    newest = BEGINNINGS[begin]
    flags = ("--last", "3") if begin == "last=3" else ("--last-event-id", ids[1] if begin == "id" else begin)
    assert command(server, "subscribe", topic, *flags, "--count", str(len(newest))).split() == newest


def test_who_has_had_nothing_comes_back_and_has_missed_nothing(server: LiveServer) -> None:
    found: list[str] = []
    with Client(server.url) as client, contextlib.closing(client.subscribe("nothing")) as messages:
        for message in messages:
            assert message.type != "ssepool.gap"
            if message.type == "ssepool.close":
                found.append("away")
            elif message.type == "message":
                found.append(message.data)
            elif message.type == "ssepool.open" and not found:
                away(server, "nothing")
            if len(found) > len(MORE):
                break
    assert found == ["away", *MORE]


def test_rows_are_published_replaced_and_removed(server: LiveServer) -> None:
    command(server, "publish", "rows", "a1", "--key", "a")
    command(server, "publish", "rows", "a2", "--key", "a")
    command(server, "publish", "rows", "b1", "--key", "b")
    with Client(server.url) as client:
        client.publish("rows", "c1", key="c")
        client.publish("rows", "c2", key="c")
        client.remove("rows", "b")
    assert command(server, "subscribe", "rows", "--last-event-id", "earliest", "--count", "2").split() == ["a2", "c2"]
    with Client(server.url) as client, contextlib.closing(client.subscribe("rows", last_event_id="last=1")) as messages:
        assert next((one.type, one.data) for one in messages if not one.type.startswith("ssepool.")) == (
            "message",
            "c2",
        )
        command(server, "publish", "rows", "--key", "c", "--remove")
        assert next((one.type, one.data) for one in messages) == ("removed", "c")
