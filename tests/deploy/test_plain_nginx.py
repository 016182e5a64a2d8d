"""nginx as it is without any of our settings but one, in front of a hub: over TCP, and over a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from deploy.proxies import TEMPORARY, free_port, listens
from live import DEADLINE, TESTS, LiveServer, Stream, running, serve, wait_for
from tools import CHROMIUM_FLAGS, require

SETTINGS = {"heartbeat_interval": 0.5, "reap_interval": 0.05, "max_per_ip": 2, "on_full": "reject"}


@contextlib.contextmanager
def nginx(upstream: str, folder: Path, *lines: str) -> Iterator[str]:
    """nginx that passes everything on, with these lines beside `proxy_pass`; its URL."""
    port = free_port()
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn; user {user()};"
        f"events {{ worker_connections 100; }} http {{ access_log off; {temporary}"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; {' '.join(lines)} }} }} }}"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([require("nginx"), "-e", "stderr", "-c", str(main)], stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or listens(port), what="nginx listens")
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def user() -> str:
    return "root" if os.geteuid() == 0 else "nobody"


PROTOCOL = ("--http", "ssepool.uvicorn:Protocol")
PORTLESS = "proxy_set_header X-Forwarded-Host $host;"
FORWARDED_HOST = "proxy_set_header X-Forwarded-Host $http_host;"
FORWARDED_FOR = "proxy_set_header X-Forwarded-For $remote_addr;"


def message(url: str, origin: str, **headers: str) -> int:
    """The status of a message that a page of this origin sends to its own stream through the proxy."""
    with Stream(url, "a") as stream:
        [opened] = stream.opened().of_type("ssepool.open")
        answer = httpx.post(
            f"{url}/connections/{opened['connection']}/messages",
            json=1,
            headers={"Origin": origin, "Authorization": f"Bearer {opened['token']}", **headers},
        )
    return answer.status_code


@pytest.fixture(scope="module")
def hub() -> Iterator[LiveServer]:
    with serve(heartbeat_interval=0.5, allowed_hosts=["hub.example"]) as server:
        yield server


def test_the_pages_own_messages_pass_where_the_forwarded_host_is_told(hub: LiveServer, tmp_path: Path) -> None:
    with nginx(hub.url, tmp_path) as url:
        # nginx has put another Host there, and nobody knows what the page's was.
        assert message(url, url) == 403
    with nginx(hub.url, tmp_path, FORWARDED_HOST) as url:
        assert message(url, url) == 202
        assert message(url, "http://127.0.0.1:1") == 403
        assert message(url, "http://hub.example", Host="hub.example") == 202
        assert httpx.get(f"{url}/pool", headers={"Host": "evil.example"}).status_code == 421
    with nginx(hub.url, tmp_path, PORTLESS) as url:
        # On its usual port, which an origin leaves out as `$host` does.
        assert message(url, "https://localhost", Host="localhost") == 202


def test_the_demo_talks_through_it(hub: LiveServer, tmp_path: Path) -> None:
    with nginx(hub.url, tmp_path, FORWARDED_HOST) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=list(CHROMIUM_FLAGS))
        page = browser.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        page.goto(f"{url}/demo")
        page.fill("#chat-text", "through nginx")
        page.press("#chat-text", "Enter")
        page.locator("#chat-log .said p").get_by_text("through nginx", exact=True).wait_for()
        browser.close()


# Over a Unix socket.


@contextlib.contextmanager
def over_a_unix_socket(path: str, place: Path) -> Iterator[None]:
    """A hub that listens there, on one of the ways in, with two streams for each address."""
    if path == "serve workers":
        workers = ("--workers", "2", "--broker", f"sqlite:///{place.parent}/events")
        command = ["-m", "ssepool", "serve", "--uds", str(place), "--public-topics", "a", "--admin", "none", *workers]
        said = "serving on (unix:.*)"
    elif path == "serve":
        command = [str(TESTS / "live_hub.py"), "detached", "0", json.dumps({"uds": str(place), **SETTINGS})]
        said = "^ready (unix:.*)"
    else:
        command = [
            "-m",
            "uvicorn",
            "--app-dir",
            str(place.parent),
            "--uds",
            str(place),
            "--http",
            "ssepool.uvicorn:Protocol",
            "two_each:app",
        ]
        said = "running on unix socket (.*) \\("
        (place.parent / "two_each.py").write_text(
            "from parts import open_app\nfrom ssepool import Hub, HubConfig, PoolConfig\n"
            f"hub = Hub(HubConfig(detach={path == 'uvicorn'}, "
            "pool=PoolConfig(max_per_ip=2, on_full='reject', heartbeat_interval=0.5)))\n"
            "app = open_app(hub)\n"
        )
    with running([sys.executable, *command], f"(?i){said}"):
        yield


@pytest.mark.parametrize("path", ["serve", "uvicorn", "uvicorn plain"])
def test_the_peer_of_a_unix_socket_is_a_proxy_and_addresses_have_their_limit(path: str, tmp_path: Path) -> None:
    place = tmp_path / "hub.sock"
    with over_a_unix_socket(path, place), nginx(f"http://unix:{place}:", tmp_path, FORWARDED_FOR) as url:
        # What a client writes itself is replaced by nginx.
        spoofed = {"X-Forwarded-For": "9.9.9.9"}
        with Stream(url, "a", headers=spoofed) as one, Stream(url, "a", source="127.0.0.1") as two:
            one.opened()
            two.opened()
            with Stream(url, "a", headers=spoofed) as refused:
                refused.until(lambda stream: stream.status)
                assert refused.status == 503
            with Stream(url, "a", source="127.0.0.2") as other:
                other.opened()
                found = httpx.get(f"{url}/connections").json()["connections"]
                assert sorted(one["ip"] for one in found) == ["127.0.0.1", "127.0.0.1", "127.0.0.2"]
    if path == "serve":
        assert not place.exists()


def test_workers_share_a_unix_socket(tmp_path: Path) -> None:
    place = tmp_path / "hub.sock"
    with over_a_unix_socket("serve workers", place):
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(place))
                client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.1 200"
    assert not place.exists()
