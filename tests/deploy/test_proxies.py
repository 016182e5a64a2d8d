"""Real nodes behind the real proxies of `deploy/`, over TLS and HTTP/2, with programs and a browser."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from deploy.conftest import NODES, Front, Subscriber
from deploy.proxies import DEPLOY, PROXIES, SILENCE, Place, check, free_port, run
from live import DEADLINE, serve, wait_for
from tools import CHROMIUM_FLAGS, require

PUBLIC = {("get", "/events"), ("post", "/connections/{id}/messages"), ("get", "/ssepool.js")}


# Streams


def test_events_arrive_one_by_one_over_http2(front: Front) -> None:
    with front.client() as client, Subscriber(client, "one-by-one") as subscriber:
        assert subscriber.response.http_version == "HTTP/2"
        assert subscriber.response.headers["content-type"] == "text/event-stream"
        subscriber.next("ssepool.open")
        for number in range(5):
            # The next is not published before this one is here: whatever holds events back holds this test up.
            front.publish("one-by-one", str(number))
            assert subscriber.next().data == str(number)


def test_a_quiet_stream_lives_by_heartbeats(front: Front) -> None:
    with front.client() as client, Subscriber(client, "quiet") as subscriber:
        subscriber.next("ssepool.open")
        while len(subscriber.comments) * 0.5 <= SILENCE + 0.5:
            subscriber.read()
        front.publish("quiet", "still here")
        assert subscriber.next().data == "still here"


def test_a_client_that_leaves_gives_its_slot_back(front: Front) -> None:
    with front.client() as client, Subscriber(client, "leaving") as subscriber:
        subscriber.next("ssepool.open")
        wait_for(lambda: sum(node.pool()["open"] for node in front.nodes) == 1)
    for node in front.nodes:
        node.wait_pool(open=0)


def test_caddy_lets_go_of_a_node_as_soon_as_its_client_has_left(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    # With `flush_interval -1` it notices at the next heartbeat only, and there is none within this test.
    with (
        serve(heartbeat_interval=600) as node,
        run("caddy", (node.port,) * NODES, tmp_path / "run", certificate) as url,
    ):
        with Front("caddy", url, [node], contextlib.ExitStack()).client() as client, Subscriber(client, "a") as stream:
            stream.next("ssepool.open")
        node.wait_pool(open=0)


CUTS = {"nginx": ["HTTP/2", "HTTP/1.1"], "caddy": [], "haproxy": ["HTTP/1.1"]}
"""Over what each passes a cut on, in the versions that docs/deploy/proxies.md names; else it looks like an end."""


def is_cut(stream: Subscriber) -> bool:
    """Whether a stream ends as if something were missing."""
    try:
        while True:
            stream.read()
    except StopIteration:
        return False
    except httpx.RemoteProtocolError:
        return True


@pytest.mark.parametrize("name", PROXIES)
def test_a_cut_reaches_the_client_as_one_and_an_end_as_an_end(
    name: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    with (
        serve() as node,
        run(name, (node.port,) * NODES, tmp_path / "run", certificate) as url,
        contextlib.ExitStack() as open,
    ):
        front = Front(name, url, [node], open)
        streams = []
        for http2 in (True, False):
            for topic in ("kicked", "cut"):
                client = open.enter_context(front.client(http2=http2))
                stream = open.enter_context(Subscriber(client, f"{topic}/{http2}"))
                connection = json.loads(stream.next("ssepool.open").data)["connection"]
                if topic == "cut":
                    streams.append(stream)
                    continue
                node.request("DELETE", f"/connections/{connection}")
                assert stream.next("ssepool.close")
                with pytest.raises(StopIteration):
                    stream.read()
        node.stop(signal.SIGKILL)
        cuts = [stream.response.http_version for stream in streams if is_cut(stream)]
        assert set(CUTS[name]) <= set(cuts)


def test_a_client_cannot_make_its_address_up(front: Front) -> None:
    with front.client() as client:
        client.headers["X-Forwarded-For"] = "203.0.113.7"
        with Subscriber(client, "address") as subscriber:
            subscriber.next("ssepool.open")
            pages = [node.request("GET", "/connections?topic=address")[1] for node in front.nodes]
            assert [connection["ip"] for page in pages for connection in page["connections"]] == ["127.0.0.1"]


def test_a_message_reaches_the_node_that_has_the_clients_stream(front: Front) -> None:
    for _ in range(2 * NODES):
        with front.client() as client, Subscriber(client, "messages") as subscriber:
            opened = json.loads(subscriber.next("ssepool.open").data)
            target, body = f"/connections/{opened['connection']}/messages", {"typing": True}
            sent = client.post(target, json=body, headers={"Authorization": f"Bearer {opened['token']}"})
            assert (sent.status_code, sent.json()) == (202, {"accepted": True})
            assert client.post(target, params={"token": opened["token"]}, json=body).status_code == 202
            assert client.post(target, json=body).status_code == 401


def test_a_message_to_nobody_is_answered_by_the_hub(front: Front) -> None:
    with front.client() as client:
        answer = client.post("/connections/nobody-1-1/messages", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# The public side


def test_only_what_is_public_passes(front: Front) -> None:
    node = front.nodes[0]
    before = state(front)
    operations = {
        (method, path)
        for path, item in node.request("GET", "/openapi.json")[1]["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }
    assert operations > PUBLIC
    with front.client() as client:
        for method, path in sorted(operations - PUBLIC):
            answer = client.request(method, path.replace("{id}", "x-1-1"), json={"topic": "t", "data": "x"})
            assert answer.status_code in (403, 404), (method, path)
            assert "json" not in answer.headers.get("content-type", ""), "the hub itself has answered"
        script = client.get("/ssepool.js")
        assert (script.status_code, script.text) == node.request("GET", "/ssepool.js")
    assert state(front) == before


@pytest.mark.parametrize(
    "request_line",
    [
        "POST //pool/drain",
        "POST /./pool/drain",
        "POST /%70ool/drain",
        "POST /pool/drain/",
        "POST /pool%2Fdrain",
        "POST /events/../pool/drain",
        "POST /events/%2e%2e/pool/drain",
        "POST /events%2F..%2Fpool%2Fdrain",
        "POST /ssepool.js/../pool/drain",
        "POST /connections/x/messages/../../../pool/drain",
        "POST /connections/x/../../pool/drain/messages",
        "POST /connections/..%2F..%2Fpool%2Fdrain%23/messages",
        "POST /connections/..%2Fpool%2Fdrain%3F/messages",
        "POST /pool/drain?/connections/x/messages",
        "POST /pool/drain;/connections/x/messages",
        "POST /pool/drain#/connections/x/messages",
        "POST http://localhost/pool/drain",
        "POST /events",
        "POST /events?topic=t",
        "PUT /events",
        "get /pool",
        "GET /events/../metrics",
        "GET /metrics#/events",
        "GET /connections/x/messages",
        "DELETE /connections/x/messages",
    ],
)
def test_no_spelling_of_a_path_gets_behind_the_public_side(front: Front, request_line: str) -> None:
    before = state(front)
    host = urlsplit(front.url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = f"{request_line} HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Type: application/json\r\nConnection: close"
    body = b'{"topic":"t","data":"x"}' if "events" in request_line else b'{"seconds":0}'
    with socket.create_connection((host.hostname, host.port), DEADLINE) as raw, context.wrap_socket(raw) as tls:
        tls.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = tls.recv(4096)
    assert int(answer.split()[1]) in (400, 403, 404, 405), answer
    assert state(front) == before


def state(front: Front) -> list[tuple[str, int]]:
    """What somebody who got behind the public side could have changed."""
    found = [node.request("GET", "/pool")[1] for node in front.nodes]
    return [(numbers["pool"]["state"], numbers["events"]["published"]) for numbers in found]


# A browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, front: Front) -> Iterator[Page]:
    """A blank page of the site that the hub is at."""
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(DEADLINE * 1000)
    page = context.new_page()
    page.route(f"{front.url}/page", lambda route: route.fulfill(body="<title>page</title>", content_type="text/html"))
    page.goto(f"{front.url}/page")
    yield page
    context.close()


def follow(page: Page, topic: str, count: int) -> None:
    """Open so many EventSources at once, and wait until all are open."""
    page.evaluate(
        """([topic, count]) => {
          window.sources = Array.from({ length: count }, (_, number) => {
            const source = new EventSource(`/events?topic=${topic}&data=${number}`);
            source.opened = 0;
            source.got = [];
            source.addEventListener("ssepool.open", () => { source.opened += 1; });
            source.addEventListener("message", (event) => source.got.push(event.data));
            return source;
          });
        }""",
        [topic, count],
    )
    wait_for(lambda: all(page.evaluate("sources.map((source) => source.opened)")), what="all are open")


def got(page: Page, data: str) -> bool:
    """Whether all EventSources of the page have this event."""
    return bool(page.evaluate("(data) => sources.every((source) => source.got.includes(data))", data))


def test_more_than_six_streams_of_one_browser_are_open_at_once(front: Front, page: Page) -> None:
    # Over HTTP/1.1 the seventh would wait for one of the others to end.
    follow(page, "many", 12)
    wait_for(lambda: sum(node.pool()["open"] for node in front.nodes) == 12)
    front.publish("many", "to all twelve")
    wait_for(lambda: got(page, "to all twelve"))


def test_a_page_may_send_messages(front: Front, page: Page) -> None:
    # The hub compares the page's origin with the Host that the proxy passes on, port included.
    status = page.evaluate(
        """() => new Promise((done, fail) => {
          const source = new EventSource("/events?topic=messages");
          source.addEventListener("ssepool.open", async (event) => {
            const { connection, token } = JSON.parse(event.data);
            const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
            const sent = await fetch(`/connections/${connection}/messages`, { method: "POST", headers, body: "1" });
            done(sent.status);
          });
          source.onerror = () => fail(new Error("no stream"));
        })"""
    )
    assert status == 202


def test_the_clients_of_a_node_that_drains_and_stops_come_back_on_another(front: Front, page: Page) -> None:
    follow(page, "drain", 6)
    held = [node.pool()["open"] for node in front.nodes]
    place = held.index(max(held))
    node = front.nodes[place]
    assert node.request("POST", "/pool/drain", {"seconds": 0.2})[0] == 202
    node.wait_pool(open=0, closing=0)
    # They are on the others while the node still runs: nobody need be without a stream for as long as a drain takes.
    wait_for(lambda: sum(other.pool()["open"] for other in front.nodes if other is not node) == 6, what="all elsewhere")
    assert node.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    front.publish("drain", "to all, elsewhere")
    wait_for(lambda: got(page, "to all, elsewhere"))
    page.close()
    front.restart(place)


# No node at all


@pytest.fixture(params=PROXIES)
def alone(request: pytest.FixtureRequest, certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a proxy whose nodes are all gone."""
    nodes = tuple(free_port() for _ in range(NODES))
    with (
        run(request.param, nodes, tmp_path / "run", certificate) as url,
        httpx.Client(base_url=url, verify=False, timeout=DEADLINE, http2=True) as client,
    ):
        yield client


def test_while_no_node_answers_streams_are_told_to_come_back(alone: httpx.Client) -> None:
    # An EventSource that gets a 502 or 503 gives up for good.
    for _ in range(2):  # the second finds the proxy knowing of it
        answer = alone.get("/events?topic=a")
        assert (answer.status_code, answer.text) == (200, "retry: 5000\n\n")
        assert answer.headers["content-type"] == "text/event-stream"
    assert alone.post("/connections/x-1-1/messages", json={}).status_code in (502, 503)
    assert alone.post("/events", json={}).status_code in (403, 404)


@pytest.mark.parametrize("name", PROXIES)
def test_the_proxy_has_nothing_to_say_against_its_file(
    name: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    place = Place(tmp_path, free_port(), free_port(), (1, 2, 3), *certificate)
    assert check(name, place) == ""


def test_the_caddyfile_is_laid_out_as_caddy_does() -> None:
    file = DEPLOY / "caddy" / "Caddyfile"
    shown = subprocess.run([require("caddy"), "fmt", str(file)], capture_output=True, text=True, check=False)
    assert shown.stdout == file.read_text("utf-8")
