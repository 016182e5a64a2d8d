"""Clients of web pages in Chromium, against real servers: fetch-event-source, htmx 2 and 4, Datastar and Turbo.
docs/clients.md says what is seen here."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from live import LiveServer, running, wait_for
from ssepool import Event, Publisher
from tools import CHROMIUM_FLAGS, NODE_MODULES, require

PAGES = {
    "fetch-event-source": """
        <div id="out"></div>
        <script type="module">
          import { fetchEventSource } from "/pages/fetch-event-source.js";
          const onmessage = ({ event, data }) => {
            if (!event) document.getElementById("out").insertAdjacentHTML("beforeend", data);
          };
          fetchEventSource("STREAM", { onmessage, openWhenHidden: true });
        </script>""",
    "htmx 2": """
        <script src="/pages/htmx2.js"></script>
        <script src="/pages/htmx2-sse.js"></script>
        <div id="out" hx-ext="sse" sse-connect="STREAM" sse-swap="message" sse-close="done" hx-swap="beforeend"></div>
        """,
    "htmx 4": """
        <script src="/pages/htmx4.js"></script>
        <script src="/pages/htmx4-sse.js"></script>
        <div id="out" hx-sse:connect="STREAM" hx-sse:close="done" hx-swap="beforeend"
             hx-config='{"sse": {"pauseOnBackground": false}}'></div>""",
    "Turbo": """
        <script type="module" src="/pages/turbo.js"></script>
        <turbo-stream-source src="STREAM"></turbo-stream-source>
        <div id="out"></div>""",
    "Datastar": """
        <script type="module" src="/pages/datastar.js"></script>
        <div data-on-load="@get('STREAM', {openWhenHidden: true, retryInterval: 100})"></div>
        <div id="out"></div>""",
}
SCRIPTS = {
    "htmx2.js": "htmx2/dist/htmx.js",
    "htmx2-sse.js": "htmx-ext-sse/sse.js",
    "htmx4.js": "htmx4/dist/htmx.js",
    "htmx4-sse.js": "htmx4/dist/ext/hx-sse.js",
    "turbo.js": "@hotwired/turbo/dist/turbo.es2017-esm.js",
}
BUNDLED = {
    "fetch-event-source.js": "@microsoft/fetch-event-source/lib/esm/index.js",
    "datastar.js": "@starfederation/datastar/dist/bundles/datastar.js",
}
"""Modules of many files, which one tool of the tests puts together."""

SERVERS = {
    "application": ["uvicorn", "--http", "ssepool.uvicorn:Protocol", "stream_app:app"],
    "application, plain": ["uvicorn", "--http", "httptools", "stream_app:app"],
    "stand-alone": ["ssepool", "serve", "--dev"],
    "stand-alone, plain": ["ssepool", "serve", "--dev", "--no-detach"],
}


class Site:
    """A server that can be started again, at the same port and with the same history."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.is_application = kind.startswith("application")
        self._command = [sys.executable, "-m", *SERVERS[kind]]
        self.broker = f"sqlite:///{folder}/events.db"
        self._env = {"SSEPOOL_BROKER": self.broker, "SSEPOOL_RETRY": "0.05"}
        self._port = 0
        self._running = contextlib.ExitStack()
        self.server = self._start()

    def _start(self) -> LiveServer:
        command = [*self._command, "--port", str(self._port or free_port())]
        server = self._running.enter_context(running(command, r"(?:running|serving) on (http\S*)", self._env))
        self._port = server.port
        return server

    def restart(self, number: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.server.stop(number)
        self._running.close()
        meanwhile()
        self.server = self._start()

    def close(self) -> None:
        self._running.close()

    def stream(self, topic: str) -> str:
        return f"/listen/{topic}?end_event=done" if self.is_application else f"/events?topic={topic}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(request.param, tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require("playwright")
    path = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The clients' code by name, from their packages."""
    found = {name: (NODE_MODULES / path).read_text("utf-8") for name, path in SCRIPTS.items() if needed(path)}
    for name, path in BUNDLED.items():
        needed(path)
        command = [f"{require('esbuild')}/bin/esbuild", "--bundle", "--format=esm", str(NODE_MODULES / path)]
        found[name] = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return found


def needed(path: str) -> str:
    parts = path.split("/")
    return require("/".join(parts[: 2 if path.startswith("@") else 1]))


class Client:
    """A page with a client on it, which puts what it is told at the end of its text."""

    def __init__(self, name: str, site: Site, page: Page) -> None:
        self.name = name
        self.site = site
        self.topic = name.replace(" ", "-")
        self._page = page
        self.requests: list[str] = []
        """The answers to its requests for the stream."""
        url = site.stream(self.topic)
        page.on("request", lambda request: self._note(request.url, "asked"))
        page.on("response", lambda response: self._note(response.url, str(response.status)))
        page.goto(f"{site.server.url}/pages/{self.topic}.html?{url}")

    def _note(self, url: str, what: str) -> None:
        if self.site.stream("").split("?")[0] in url and "/pages/" not in url:
            self.requests.append(what)

    def publish(self, text: str) -> None:
        if self.name == "Datastar":
            fields = {"type": "datastar-merge-fragments"}
            data = f"selector #out\nmergeMode append\nfragments <i>{text}</i>"
        elif self.name == "Turbo":
            fields, data = {}, f'<turbo-stream action="append" target="out"><template>{text}</template></turbo-stream>'
        else:
            fields, data = {}, f"<i>{text}</i>"
        self.site.server.publish(self.topic, data, **fields)

    @property
    def last_answer(self) -> str:
        """To the last of its requests, once the stream is complete."""
        return "204" if self.name == "Turbo" else "200"

    @property
    def text(self) -> str:
        return "".join((self._page.locator("#out").text_content() or "").split())

    def wait(self, text: str) -> None:
        try:
            wait_for(lambda: self.text == text)
        except AssertionError:
            raise AssertionError(f"{self.name} shows {self.text!r}, not {text!r}; {self.requests}") from None


@pytest.fixture
def clients(site: Site, browser: Browser, scripts: dict[str, str]) -> Iterator[list[Client]]:
    context = browser.new_context()
    context.route("**/pages/**", lambda route: fulfil(route, scripts))
    yield [Client(name, site, context.new_page()) for name in PAGES]
    context.close()


def fulfil(route: Route, scripts: dict[str, str]) -> None:
    path, _, stream = route.request.url.partition("/pages/")[2].partition("?")
    if path in scripts:
        route.fulfill(content_type="text/javascript", body=scripts[path])
    else:
        page = next(html for name, html in PAGES.items() if name.replace(" ", "-") + ".html" == path)
        route.fulfill(content_type="text/html", body="<!doctype html>" + page.replace("STREAM", stream))


def test_pages_get_everything_once_over_a_restart_and_ask_for_nothing_after_the_end(
    site: Site, clients: list[Client]
) -> None:
    site.server.wait_pool(open=len(clients))
    for client in clients:
        client.publish("1")
        client.publish("2")
    for client in clients:
        client.wait("12")
    site.restart(signal.SIGTERM)
    for client in clients:
        client.publish("3")
    for client in clients:
        client.wait("123")
    site.server.wait_pool(open=len(clients))

    if site.is_application:
        for client in clients:
            site.server.request("POST", f"/complete/{client.topic}")
        site.server.wait_pool(open=0)
        # Turbo cannot be told the end: it comes back, and stays away when it is told 204. Who else would, has by then.
        wait_for(lambda: all(client.text and client.requests[-1] == client.last_answer for client in clients))
        assert [client.text for client in clients] == ["123"] * len(clients)


ROWS = """<!doctype html><div id="out"></div><script>
  const rows = {}, gone = [];
  const show = () => document.getElementById("out").textContent =
    Object.keys(rows).sort().map((id) => id + rows[id]).join(" ") + " gone " + gone;
  const stream = new EventSource("STREAM");
  stream.onmessage = ({ data }) => { const row = JSON.parse(data); rows[row.id] = row.text; show(); };
  stream.addEventListener("removed", ({ data }) => { delete rows[data]; gone.push(data); show(); });
</script>"""


def row(id: int, text: str) -> Event:
    return Event(f'{{"id": {id}, "text": "{text}"}}', ("rows",), key=str(id))


def test_a_table_of_rows_is_right_over_a_restart(site: Site, browser: Browser) -> None:
    with Publisher(site.broker) as publisher, browser.new_context() as context:
        publisher.publish_many([row(1, "a"), row(2, "b"), row(3, "c"), Event.tombstone("rows", "3"), row(2, "B")])
        stream = site.stream("rows") + "&last_event_id=earliest"
        context.route("**/pages/**", lambda route: route.fulfill(content_type="text/html", body=page_of(stream)))
        page = context.new_page()
        page.goto(f"{site.server.url}/pages/rows.html")

        def shows(text: str) -> None:
            wait_for(lambda: page.locator("#out").text_content() == text, what=text)

        shows("1a 2B gone ")
        site.restart(signal.SIGTERM, lambda: publisher.publish_many([Event.tombstone("rows", "1"), row(4, "d")]))
        shows("2B 4d gone 1")
        publisher.remove("rows", "4")
        shows("2B gone 1,4")


def page_of(stream: str) -> str:
    return ROWS.replace("STREAM", stream)
