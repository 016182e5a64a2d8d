"""EventSource, Chromium's and npm's `eventsource`: receives, comes back by itself, and knows when to stop."""

from __future__ import annotations

import contextlib
import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, sync_playwright

from live import LiveServer, serve_app, serve_command, wait_for
from source import END, Source
from tools import CHROMIUM_FLAGS, require

SCRIPT = Path(__file__).with_name("eventsource.mjs")
TYPES = ("update", "token", "ssepool.open", "ssepool.gap", "ssepool.empty", "ssepool.close")


class EventSource(ABC):
    """One EventSource, wherever it runs. Its log has `{"state": ...}` and `{"type", "data", "lastEventId"}`."""

    @property
    @abstractmethod
    def log(self) -> list[dict[str, Any]]: ...

    @abstractmethod
    def leave(self) -> None: ...

    def of_type(self, type: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry.get("type") == type]

    @property
    def data(self) -> list[str]:
        return [entry["data"] for entry in self.log if entry.get("type") in ("message", "update", "token")]

    @property
    def states(self) -> list[str]:
        return [entry["state"] for entry in self.log if "state" in entry]

    def wait(self, condition: Callable[[EventSource], object]) -> None:
        wait_for(lambda: condition(self), what=f"of {self.log}")

    def opened(self, times: int = 1) -> str:
        """Wait until it has opened so often; the id of the connection."""
        self.wait(lambda s: len(s.of_type("ssepool.open")) >= times)
        return str(json.loads(self.of_type("ssepool.open")[-1]["data"])["connection"])


class OfNpm(EventSource):
    """In a process of Node.js."""

    def __init__(self, start: Callable[..., Any], url: str) -> None:
        self._program = start(require("node"), str(SCRIPT), url, *TYPES)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self._program.lines)]

    def leave(self) -> None:
        self._program.stop()


class OfChromium(EventSource):
    """In a page of the same origin."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._page = browser.new_page()
        self._page.goto(urljoin(url, "/health/live"))  # in some tests not found, which is a page as well
        # The log stays there: it is read from time to time, because here nothing runs beside a test.
        self._page.evaluate(
            """([url, types]) => {
                window.log = [];
                const source = new EventSource(url);
                const received = ({ type, data, lastEventId }) => log.push({ type, data, lastEventId });
                source.onopen = () => log.push({ state: "open" });
                source.onerror = () => log.push({ state: source.readyState === 2 ? "closed" : "connecting" });
                source.onmessage = received;
                for (const type of types) source.addEventListener(type, received);
            }""",
            [url, TYPES],
        )

    @property
    def log(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._page.evaluate("log")
        return found

    def leave(self) -> None:
        self._page.close()


Listen = Callable[..., EventSource]


@pytest.fixture(scope="module")
def browsers() -> Iterator[Callable[[], Browser]]:
    """Chromium, once it is asked for."""
    with contextlib.ExitStack() as stack:
        running: list[Browser] = []

        def browser() -> Browser:
            if not running:
                require("playwright")
                path = require("chromium")
                playwright = stack.enter_context(sync_playwright())
                running.append(playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS)))
                stack.callback(running[0].close)
            return running[0]

        yield browser


@pytest.fixture(params=["npm", "chromium"])
def listen(
    request: pytest.FixtureRequest, start: Callable[..., Any], browsers: Callable[[], Browser]
) -> Iterator[Listen]:
    sources: list[EventSource] = []

    def listen(server: LiveServer, path: str = "/events?topic=news") -> EventSource:
        url = server.url + path
        sources.append(OfNpm(start, url) if request.param == "npm" else OfChromium(browsers(), url))
        return sources[-1]

    if request.param == "npm":
        require("eventsource")
    yield listen
    for source in sources:
        source.leave()


@pytest.fixture(params=["--detach", "--no-detach"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_command("--retry", "0.05", "--pool-size", "2", request.param) as server:
        yield server


def test_it_receives_what_is_published(server: LiveServer, listen: Listen) -> None:
    source = listen(server)
    source.opened()
    ids = [server.publish("news", "plain"), server.publish("news", {"of": "a type\n"}, type="update")]
    ids.append(server.publish("news", "Zeilen\n\nmit Umläuten 🦫"))
    source.wait(lambda s: len(s.data) == 3)
    assert source.data == ["plain", '{"of": "a type\\n"}', "Zeilen\n\nmit Umläuten 🦫"]
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


@pytest.mark.parametrize(("begin", "newest"), [("last=2", ["2", "3"]), ("latest", ["3"])])
def test_it_begins_with_the_newest_and_comes_back_behind_what_it_had(
    server: LiveServer, listen: Listen, begin: str, newest: list[str]
) -> None:
    for number in (1, 2, 3):
        server.publish("news", str(number))
    source = listen(server, f"/events?topic=news&last_event_id={begin}")
    source.wait(lambda s: s.data == newest)
    assert server.request("DELETE", f"/connections/{source.opened()}?seconds=0")[0] == 204
    for number in (4, 5, 6):
        server.publish("news", str(number))
    source.opened(2)
    server.publish("news", "7")
    source.wait(lambda s: s.data[-1:] == ["7"])
    assert source.data == [*newest, "4", "5", "6", "7"]
    assert source.of_type("ssepool.gap") == []


@pytest.mark.parametrize(("begin", "told"), [("", "ssepool.open"), ("&last_event_id=latest", "ssepool.empty")])
def test_who_has_had_nothing_comes_back_to_the_place(server: LiveServer, listen: Listen, begin: str, told: str) -> None:
    source = listen(server, f"/events?topic=quiet{begin}")
    source.wait(lambda s: s.of_type(told))
    assert server.request("DELETE", f"/connections/{source.opened()}?seconds=0")[0] == 204
    for number in (1, 2, 3):
        server.publish("quiet", str(number))
    source.wait(lambda s: s.data[-1:] == ["3"])
    assert source.data == ["1", "2", "3"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_finds_a_server_that_was_restarted_and_is_told_of_the_gap(listen: Listen, number: signal.Signals) -> None:
    with serve_command("--retry", "0.05") as server:
        source = listen(server)
        source.opened()
        last = server.publish("news", "before", retry=500)
        source.wait(lambda s: s.data == ["before"])
        server.stop(number)
        source.wait(lambda s: s.states[-1] == "connecting")
    with serve_command(port=server.port) as server:
        source.opened(2)
        server.publish("news", "after")
        source.wait(lambda s: s.data == ["before", "after"])
        gap = json.loads(source.of_type("ssepool.gap")[0]["data"])
        assert (gap["requested"], gap["resumed"], gap["reason"]) == (last, None, "unknown_id")


@pytest.mark.parametrize("path", ["--detach", "--no-detach"])
def test_it_comes_back_from_every_cut_and_has_all_of_it_once(listen: Listen, path: str, tmp_path: Path) -> None:
    flags = ("--retry", "0.05", "--broker", f"sqlite:///{tmp_path}/events.db", path)
    sent: list[str] = []

    def publish(server: LiveServer) -> None:
        sent.append(str(len(sent)))
        server.publish("news", sent[-1])

    with serve_command(*flags, "--max-lifetime", "0.4", "--reap-interval", "0.05") as server:
        source = listen(server, "/events?topic=news&last_event_id=earliest")
        while len(source.of_type("ssepool.open")) < 3:
            publish(server)
        assert server.request("POST", "/pool/drain", {"seconds": 0})[0] == 202
        server.wait_pool(open=0)  # whether it sees the goodbye or not: a browser may drop what a cut is close behind
        publish(server)
        server.stop(signal.SIGKILL)
        source.wait(lambda s: s.states[-1] == "connecting")
    with serve_command(*flags, port=server.port) as server:
        publish(server)
        source.wait(lambda s: s.data[-1:] == sent[-1:])
        source.opened()
        # While it is open: here there is nothing but a crash to end it.
        server.stop(signal.SIGKILL)
        source.wait(lambda s: s.states[-1] == "connecting")
    assert source.data == sent
    assert source.of_type("ssepool.gap") == []
    assert "closed" not in source.states


@pytest.mark.parametrize("path", ["detached", "plain"])
def test_a_reader_with_fetch_in_chromium_can_tell_a_cut_from_an_end(browsers: Callable[[], Browser], path: str) -> None:
    with serve_app("stream_app:app", path) as server, contextlib.closing(browsers().new_page()) as page:
        page.goto(f"{server.url}/health/live")
        page.evaluate(
            """(names) => {
                window.ends = {};
                for (const name of names)
                    fetch(`/streams/${name}?own_events=false`)
                        .then((response) => response.text())
                        .then(() => { ends[name] = "done"; }, () => { ends[name] = "error"; });
            }""",
            ["over", "failed", "crashed"],
        )
        for name, items in {"over": ["one", "END"], "failed": ["one", "FAIL"], "crashed": ["one"]}.items():
            server.request("POST", f"/streams/{name}", items)
        wait_for(lambda: page.evaluate("ends") == {"over": "done", "failed": "error"})
        server.wait_pool(open=1)
        server.stop(signal.SIGKILL)
        wait_for(lambda: page.evaluate("ends.crashed") == "error")


@pytest.mark.parametrize("path", ["detached", "plain"])
def test_it_stops_at_the_end_of_a_generator_and_has_all_of_it_once(listen: Listen, path: str) -> None:
    with serve_app("stream_app:app", path) as server:
        answer = Source(server, named=True)
        answer.feed("Because ", "it ", "is ", "so. ", END)
        source = listen(server, answer.path)
        source.wait(lambda s: s.states[-1:] == ["closed"])
        assert "".join(source.data) == "Because it is so. "
        assert source.states == ["open", "connecting", "closed"]
        assert source.of_type("ssepool.close")[0]["lastEventId"] == "ssepool.completed"


def test_it_comes_back_when_its_ban_is_over(server: LiveServer, listen: Listen) -> None:
    source = listen(server)
    connection = source.opened()
    server.request("DELETE", f"/connections/{connection}?seconds=2")
    source.opened(2)
    # It was told so when it was kicked, once more when it came too early, and believed how long that would be.
    assert [event["data"] for event in source.of_type("ssepool.close")] == ['{"reason":"kicked"}'] * 2
    assert "closed" not in source.states


def test_it_stops_for_good_when_its_user_was_kicked(listen: Listen) -> None:
    with serve_app("stream_app:app", "plain") as server:
        source = listen(server, "/listen/news?as=mallory")
        connection = source.opened()
        assert server.request("POST", f"/kick/{connection}?seconds=30", {})[0] == 200
        source.wait(lambda s: s.states[-1] == "closed")
        assert source.log[-1].get("code", 204) == 204
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
