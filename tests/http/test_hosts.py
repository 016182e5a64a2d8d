"""Under which names a hub is reached, on every way in."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from parts import open_app
from ssepool import AccessConfig, Hub, HubConfig, ServerConfig
from ssepool.http.hosts import MAX_HOST_BYTES, Hosts
from ssepool.runtime.handover import FORWARDED_HOST
from ssepool.server.server import Server

JSON = (b"content-type", b"application/json")
EVENT = b'{"topic":"a","data":"x"}'

ALWAYS = [
    *(b"localhost", b"localhost:8000", b"LOCALHOST", b"localhost.", b"hub.localhost:8000", b"127.0.0.1:8000"),
    *(b"127.0.0.1", b"10.0.0.7:80", b"[::1]:8000", b"[::1]", b"[fe80::1]:1"),
]
STRANGE = [
    *(b"evil.example", b"evil.example:8000", b"localhost.evil.example", b"localhost@evil.example", b"evil-localhost"),
    *(b"127.0.0.1.evil.example", b"127.0.0.1.nip.io", b"", b":8000", b"[evil.example]", b"::1", b"[::1", b"a b"),
    *(b"localhost:8000:1", b"localhost/", b"localhost, evil.example", b"\xff", b"2130706433x", b"localhost:port", b"*"),
]


def hosts(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), *((b"host", value) for value in values)]


def strict(*allowed: str) -> Hosts:
    made = Hosts(allowed)
    made.enforce()
    return made


@pytest.mark.parametrize("host", ALWAYS)
def test_addresses_and_the_names_of_loopback_are_always_allowed(host: bytes) -> None:
    assert strict().admits(hosts(host))
    assert strict("events.example.com").admits(hosts(host))


@pytest.mark.parametrize("host", STRANGE)
def test_any_other_name_has_to_be_listed(host: bytes) -> None:
    assert not strict().admits(hosts(host))
    assert not strict("events.example.com").admits(hosts(host))
    assert strict("*").admits(hosts(host))


@pytest.mark.parametrize("host", [b"events.example.com", b"EVENTS.example.com:8443", b"events.example.com."])
def test_a_name_that_is_listed_is_allowed_with_any_port(host: bytes) -> None:
    assert Hosts(["Events.Example.com"]).admits(hosts(host))
    assert not Hosts(["example.com"]).admits(hosts(host))


def test_what_is_longer_than_any_name_is_not_looked_at_and_not_remembered() -> None:
    hosts = Hosts(["*"])
    assert hosts.admits([(b"host", b"x" * MAX_HOST_BYTES)])
    assert not hosts.admits([(b"host", b"x" * (MAX_HOST_BYTES + 1))])
    assert hosts._allows.cache_info().currsize == 1


def test_without_a_list_nothing_is_checked_until_a_server_asks_for_it() -> None:
    subject = Hosts()
    assert subject.admits(hosts(b"evil.example")) and subject.admits([])
    subject.enforce("hub.internal")
    assert not subject.admits(hosts(b"evil.example"))
    assert subject.admits(hosts(b"hub.internal:8000"))
    assert not subject.lists("hub.internal")  # where it listens is no word on whose pages are its own


@pytest.mark.parametrize(
    ("version", "given", "status"),
    [
        ("1.1", [], 400),
        ("1.1", [b"localhost", b"localhost"], 400),
        ("1.1", [b"localhost", b"evil.example"], 400),
        ("1.0", [b"localhost", b"localhost"], 400),
        ("1.0", [], 0),
        ("1.0", [b"evil.example"], 421),
        ("1.1", [b"evil.example"], 421),
        ("2", [b"evil.example"], 421),
        ("1.1", [b"localhost"], 0),
    ],
)
def test_a_request_has_one_host_that_is_allowed(version: str, given: list[bytes], status: int) -> None:
    refusal = strict().refusal({"type": "http", "http_version": version, "headers": hosts(*given)})
    assert (refusal.status_code if refusal else 0) == status
    if status == 421 and refusal:
        assert b"evil.example" in refusal.body and b"--allowed-hosts" in refusal.body


@pytest.mark.parametrize(
    ("host", "forwarded", "named"),
    [
        (b"localhost", "evil.example", b"X-Forwarded-Host 'evil.example'"),
        (b"evil.example", "localhost", b"Host 'evil.example'"),
        (b"localhost", "hub.example", b""),
    ],
)
def test_the_host_that_a_proxy_was_asked_for_has_to_be_allowed_too(host: bytes, forwarded: str, named: bytes) -> None:
    scope = {"type": "http", "http_version": "1.1", "headers": hosts(host), "extensions": {FORWARDED_HOST: forwarded}}
    refusal = strict("hub.example").refusal(scope)
    assert (refusal is None) == (not named)
    if refusal is not None:
        assert refusal.status_code == 421 and named in refusal.body


# Every way in


def scope_of(host: bytes) -> dict[str, Any]:
    return {
        **{"type": "http", "method": "GET", "path": "/events", "root_path": "", "query_string": b"topic=a"},
        **{"headers": hosts(host), "client": ("127.0.0.1", 1), "http_version": "1.1"},
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("PATCH", "/pool"), ("POST", "/pool/drain"), ("POST", "/events"), ("DELETE", "/connections/a")),
        *(("GET", "/events?topic=a"), ("GET", "/pool"), ("GET", "/connections"), ("GET", "/health/live")),
        *(("GET", "/ssepool.js"), ("GET", "/nothing"), ("OPTIONS", "/events")),
    ],
)
async def test_the_stand_alone_server_turns_names_away_that_it_does_not_have(method: str, path: str) -> None:
    async with Hub(HubConfig(allow_origins=("http://evil.example",))) as hub:
        Server(hub, hub.dev_app, ServerConfig(port=0))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(hub.dev_app), base_url="http://evil.example"
        ) as http:
            answer = await http.request(method, path, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 421
    assert answer.json()["error"]["code"] == "misdirected_request"


async def test_the_shortcuts_leave_such_requests_to_the_application() -> None:
    async with Hub() as hub:
        shortcuts = open_app(hub).shortcuts
        assert shortcuts.subscription(scope_of(b"evil.example")) is not None
        assert shortcuts.publication(b"/events", [*hosts(b"evil.example"), JSON], EVENT) is not None
        Server(hub, hub.dev_app, ServerConfig(port=0))
        published = hub.stats().events_published
        for bad in ([b"evil.example"], [], [b"localhost"] * 2):
            assert shortcuts.subscription({**scope_of(b""), "headers": hosts(*bad)}) is None
            assert shortcuts.publication(b"/events", [*hosts(*bad), JSON], EVENT) is None
        assert hub.stats().events_published == published
        assert shortcuts.subscription(scope_of(b"localhost:8000")) is not None
        assert shortcuts.publication(b"/events", [*hosts(b"127.0.0.1"), JSON], EVENT) is not None


async def test_the_name_that_a_server_listens_on_is_allowed() -> None:
    hub = Hub(HubConfig(access=AccessConfig(public_topics=("news",))))
    Server(hub, hub.app, ServerConfig(host="hub.internal"))
    assert hub.parts.hosts.admits(hosts(b"hub.internal:8000"))


def test_another_application_decides_for_itself() -> None:
    for config, status in ((HubConfig(), 200), (HubConfig(access=AccessConfig(allowed_hosts=("hub.example",))), 421)):
        hub = Hub(config)
        app = Starlette(routes=[Mount("/sse", hub.dev_app)], lifespan=hub.lifespan)
        Server(hub, app, ServerConfig(port=0))
        with TestClient(app) as client:
            assert client.get("/sse/pool").status_code == status
            assert client.get("/sse/pool", headers={"Host": "hub.example"}).status_code == 200
