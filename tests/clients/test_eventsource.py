"""The npm package `eventsource`: receives, reconnects by itself, and knows when to stop."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live import LiveServer, serve_command, wait_for
from tools import require

SCRIPT = Path(__file__).with_name("eventsource.mjs")
TYPES = ("update", "ssepool.open", "ssepool.gap", "ssepool.close")


class EventSource:
    """One EventSource in a process of Node.js."""

    def __init__(self, start: Callable[..., Any], server: LiveServer, query: str) -> None:
        self._program = start(require("node"), str(SCRIPT), f"{server.url}/events?{query}", *TYPES)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self._program.lines)]

    def of_type(self, type: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry.get("type") == type]

    @property
    def data(self) -> list[str]:
        return [entry["data"] for entry in self.log if entry.get("type") in ("message", "update")]

    @property
    def states(self) -> list[str]:
        return [entry["state"] for entry in self.log if "state" in entry]

    def wait(self, condition: Callable[[EventSource], object]) -> None:
        wait_for(lambda: condition(self), what=f"of {self.log}")

    def opened(self, times: int = 1) -> str:
        """Wait until it has opened so often; the id of the connection."""
        self.wait(lambda s: len(s.of_type("ssepool.open")) >= times)
        return str(json.loads(self.of_type("ssepool.open")[-1]["data"])["connection"])

    def leave(self) -> None:
        self._program.stop()


@pytest.fixture
def listen(start: Callable[..., Any]) -> Callable[..., EventSource]:
    require("eventsource")
    return lambda server, query="topic=news": EventSource(start, server, query)


@pytest.fixture(params=["--detach", "--no-detach"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_command("--retry", "0.05", "--pool-size", "2", request.param) as server:
        yield server


Listen = Callable[..., EventSource]


def test_it_receives_what_is_published(server: LiveServer, listen: Listen) -> None:
    source = listen(server)
    source.opened()
    ids = [server.publish("news", "plain"), server.publish("news", {"of": "a type\n"}, type="update")]
    ids.append(server.publish("news", "Zeilen\n\nmit Umläuten 🦫"))
    source.wait(lambda s: len(s.data) == 3)
    assert source.data == ["plain", '{"of":"a type\\n"}', "Zeilen\n\nmit Umläuten 🦫"]
    events = source.of_type("message") + source.of_type("update")
    assert sorted(event["lastEventId"] for event in events) == sorted(ids)


def test_it_reconnects_with_its_last_event_id_and_gets_what_it_missed(server: LiveServer, listen: Listen) -> None:
    source = listen(server)
    connection = source.opened()
    server.publish("news", "seen")
    source.wait(lambda s: s.data == ["seen"])
    # Who is to stay away for no time comes back at once.
    assert server.request("DELETE", f"/connections/{connection}?seconds=0")[0] == 204
    expected = ["seen"]
    for number in range(20):
        server.publish("news", f"missed or not {number}")
        expected.append(f"missed or not {number}")
    source.opened(2)
    server.publish("news", "live again")
    source.wait(lambda s: s.data[-1:] == ["live again"])
    assert source.data == [*expected, "live again"]
    assert source.states == ["open", "connecting", "open"]
    assert json.loads(source.of_type("ssepool.close")[0]["data"]) == {"reason": "kicked"}
    assert source.of_type("ssepool.gap") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_finds_a_server_that_was_restarted_and_is_told_of_the_gap(listen: Listen, number: signal.Signals) -> None:
    with serve_command("--retry", "0.05") as server:
        source = listen(server)
        source.opened()
        last = server.publish("news", "before", retry=100)
        source.wait(lambda s: s.data == ["before"])
        server.stop(number)
        source.wait(lambda s: s.states[-1] == "connecting")
    with serve_command(port=server.port) as server:
        source.opened(2)
        server.publish("news", "after")
        source.wait(lambda s: s.data == ["before", "after"])
        gap = json.loads(source.of_type("ssepool.gap")[0]["data"])
        assert (gap["requested"], gap["resumed"], gap["reason"]) == (last, None, "unknown_id")


def test_it_stops_for_good_when_it_was_kicked(server: LiveServer, listen: Listen) -> None:
    source = listen(server)
    connection = source.opened()
    server.request("DELETE", f"/connections/{connection}")
    source.wait(lambda s: s.states[-1] == "closed")
    assert source.log[-1]["code"] == 204
    assert len(source.of_type("ssepool.open")) == 1


def test_it_comes_back_by_itself_until_a_full_pool_has_a_slot_for_it(listen: Listen) -> None:
    flags = ("--pool-size", "1", "--acquire-timeout", "0.05", "--retry", "0.05", "--reap-interval", "0.02")
    with serve_command(*flags) as server:
        first = listen(server)
        first.opened()
        second = listen(server)
        second.wait(lambda s: len(s.of_type("ssepool.close")) >= 3)
        assert {entry["data"] for entry in second.of_type("ssepool.close")} == {'{"reason":"timed_out"}'}
        first.leave()
        second.opened()
        server.publish("news", "at last")
        second.wait(lambda s: s.data == ["at last"])
        assert "closed" not in second.states
