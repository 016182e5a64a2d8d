from __future__ import annotations

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from ssepool.http.hosts import Hosts
from ssepool.http.origin import SameOrigin


async def ask(
    method: str, host: str, *origins: str, allowed: tuple[str, ...] = (), names: tuple[str, ...] = ()
) -> httpx.Response:
    """What a request is answered with: 200 where the application behind the middleware got it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(SameOrigin(app, Hosts(names), allow_origins=allowed))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as http:
        return await http.request(method, "/", headers=[("Host", host), *(("Origin", origin) for origin in origins)])


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE", "ANYTHING"])
async def test_a_page_of_another_site_may_not_change_anything(method: str) -> None:
    answer = await ask(method, "localhost:8000", "https://evil.example")
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == "forbidden_origin"
    assert "https://evil.example" in error["message"] and "allow_origins" in error["message"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_what_changes_nothing_passes(method: str) -> None:
    assert (await ask(method, "localhost:8000", "https://evil.example")).status_code == 200


async def test_what_comes_from_no_page_passes() -> None:
    assert (await ask("POST", "localhost:8000")).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://LocalHost:8000"),
        ("hub.example", "https://hub.example"),
        ("hub.example:443", "https://hub.example"),
        ("hub.example", "http://hub.example:80"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
async def test_a_page_of_the_same_site_passes(host: str, origin: str) -> None:
    assert (await ask("POST", host, origin)).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8001"),
        ("localhost:8000", "http://localhost"),
        ("localhost", "http://localhost:8000"),
        ("localhost:8000", "http://localhost:8000.evil.example"),
        ("hub.example", "https://evil.hub.example"),
        ("hub.example", "http://hub.example:443"),
        ("localhost:8000", "null"),
        ("localhost:8000", ""),
        ("", "null"),
        ("localhost:8000", "localhost:8000"),
        ("localhost:8000", "http://[::1"),
        ("localhost:8000", "http://user@localhost:8000"),
    ],
)
async def test_an_origin_that_only_resembles_the_host_is_foreign(host: str, origin: str) -> None:
    assert (await ask("POST", host, origin)).status_code == 403


async def test_one_foreign_origin_among_several_is_enough() -> None:
    assert (await ask("POST", "hub", "http://hub", "http://evil.example")).status_code == 403


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        (("https://app.example",), "https://app.example", 200),
        (("https://App.example/",), "https://app.example", 200),
        (("https://app.example",), "http://app.example", 403),
        (("https://app.example",), "https://app.example.evil.example", 403),
        (("null",), "null", 200),
        (("*",), "https://any.example", 200),
    ],
)
async def test_sites_that_are_allowed_pass(allowed: tuple[str, ...], origin: str, status: int) -> None:
    assert (await ask("POST", "hub", origin, allowed=allowed)).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://events.example.com", 200),
        ("http://events.example.com:80", 200),
        ("https://events.example.com:8443", 403),  # another port may be anybody's
        ("https://www.example.com", 403),
        ("https://evil.events.example.com", 403),
        ("https://user@events.example.com", 403),
        ("*", 403),
    ],
)
async def test_a_page_of_a_name_of_the_hub_passes_whatever_host_a_proxy_sends(origin: str, status: int) -> None:
    assert (await ask("POST", "node-1:8000", origin, names=("events.example.com", "*"))).status_code == status
