from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from parts import open_app
from ssepool import Hub, HubConfig
from ssepool.http.hosts import Hosts
from ssepool.http.origin import Pages, SameOrigin
from ssepool.runtime.handover import FORWARDED_HOST


async def ask(
    method: str,
    host: str,
    *origins: str,
    allowed: tuple[str, ...] = (),
    publishers: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    path: str = "/",
) -> httpx.Response:
    """What a request is answered with: 200 where the application behind the middleware got it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(SameOrigin(app, Pages(Hosts(names), allowed, publishers)))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as http:
        return await http.request(method, path, headers=[("Host", host), *(("Origin", origin) for origin in origins)])


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE", "ANYTHING"])
async def test_a_page_of_another_site_may_not_change_anything(method: str) -> None:
    answer = await ask(method, "localhost:8000", "https://evil.example")
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == "forbidden_origin"
    assert "https://evil.example" in error["message"] and "only the hub's own pages" in error["message"]


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
        (("https://app.example",), "http://app.example", 403),
        (("https://app.example",), "https://app.example.evil.example", 403),
        (("null",), "null", 200),
        (("*",), "https://any.example", 200),
    ],
)
async def test_sites_that_are_allowed_pass_for_what_they_are_allowed(
    allowed: tuple[str, ...], origin: str, status: int
) -> None:
    messages, events = "/connections/x-1-2/messages", "/events"
    assert (await ask("POST", "hub", origin, path=messages, allowed=allowed)).status_code == status
    assert (await ask("POST", "hub", origin, path=messages, publishers=allowed)).status_code == 403
    assert (await ask("POST", "hub", origin, path=events, publishers=allowed)).status_code == status
    assert (await ask("POST", "hub", origin, path=events, allowed=allowed)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("PATCH", "/pool"), ("POST", "/pool/drain"), ("DELETE", "/connections/a-1-2"), ("POST", "/demo/jobs")),
        *(("POST", "/connections/a-1-2/messages/"), ("POST", "/connections/a/b/messages"), ("POST", "/events/")),
        *(("PUT", "/events"), ("DELETE", "/events"), ("POST", "/ssepool.js"), ("POST", "/sse/events")),
    ],
)
async def test_no_list_lets_other_sites_manage(method: str, path: str) -> None:
    answer = await ask(method, "hub", "https://a.example", path=path, allowed=("*",), publishers=("*",))
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("path", "setting"), [("/events", "publish_origins"), ("/connections/a-1-2/messages", "allow_origins")]
)
async def test_a_refusal_names_the_setting_that_would_help(path: str, setting: str) -> None:
    error = (await ask("POST", "hub", "https://a.example", path=path)).json()["error"]
    assert error["message"].endswith(f"{setting} takes the origins of other sites that may")


# What browsers are told

STREAMS, PUBLISHES = "https://reader.example", "https://writer.example"
MAY: dict[tuple[str, str], str] = {
    ("GET", "/events"): STREAMS,
    ("GET", "/ssepool.js"): STREAMS,
    ("POST", "/connections/a-1-2/messages"): STREAMS,
    ("POST", "/events"): PUBLISHES,
}
MAY_NOT = [
    *(("GET", "/pool"), ("PATCH", "/pool"), ("POST", "/pool/drain"), ("GET", "/connections"), ("GET", "/cluster")),
    *(("DELETE", "/connections/a-1-2"), ("GET", "/connections/a-1-2"), ("GET", "/metrics"), ("GET", "/dashboard")),
    *(("GET", "/openapi.json"), ("POST", "/demo/jobs"), ("DELETE", "/events"), ("GET", "/connections/a-1-2/messages")),
]


async def allowed_by(hub: Hub, method: str, path: str, origin: str) -> tuple[bool, bool]:
    """Whether a page of this origin may send such a request, as its preflight is told, and whether it may read the
    answer."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.dev_app), base_url="http://hub") as http:
        ask = {"Origin": origin, "Access-Control-Request-Method": method}
        preflight = await http.options(path, headers=ask)
        methods = preflight.headers.get("access-control-allow-methods", "").split(", ")
        allows = preflight.headers.get("access-control-allow-origin") in (origin, "*")
        answer = await http.request(method, path, headers={"Origin": origin})
        reads = answer.headers.get("access-control-allow-origin") in (origin, "*")
        return preflight.status_code == 200 and allows and method in methods, reads


@pytest.mark.parametrize(("method", "path"), [*MAY, *MAY_NOT])
async def test_a_browser_is_told_of_each_use_by_its_own_list(method: str, path: str) -> None:
    async with Hub(HubConfig(allow_origins=(STREAMS,), publish_origins=(PUBLISHES,))) as hub:
        for origin in (STREAMS, PUBLISHES, "https://other.example"):
            may = MAY.get((method, path)) == origin
            # A preflight does not tell that a POST is for a stream, and the answer to one that publishes stays unread.
            asks = may or ((method, path) == ("POST", "/events") and origin == STREAMS)
            assert await allowed_by(hub, method, path, origin) == (asks, may)
    async with Hub(HubConfig(allow_origins=("*",), publish_origins=("*",))) as hub:
        may = (method, path) in MAY
        assert await allowed_by(hub, method, path, "https://other.example") == (may, may)


async def test_the_lists_hold_behind_the_prefix_of_a_mount() -> None:
    hub = Hub(HubConfig(allow_origins=(STREAMS,), publish_origins=(PUBLISHES,)))
    app = Starlette(routes=[Mount("/sse", hub.dev_app)])
    async with hub, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as http:
        for origin, status in ((PUBLISHES, 201), (STREAMS, 403)):
            answer = await http.post("/sse/events", json={"topic": "a", "data": 1}, headers={"Origin": origin})
            assert answer.status_code == status
            assert answer.headers.get("access-control-allow-origin") == (origin if status == 201 else None)


async def test_a_preflight_allows_no_more_than_its_own_use() -> None:
    async with Hub(HubConfig(allow_origins=("*",))) as hub:
        assert await allowed_by(hub, "POST", "/events", STREAMS) == (True, False)
        assert await allowed_by(hub, "POST", "/demo/jobs", STREAMS) == (False, False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.dev_app), base_url="http://hub") as http:
            ask = {"Origin": STREAMS, "Access-Control-Request-Method": "GET"}
            told = (await http.options("/events", headers=ask)).headers["access-control-allow-methods"]
    assert set(told.split(", ")) == {"GET", "HEAD", "QUERY"}  # a browser would remember POST for this address


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


# Behind a proxy, and without an origin


async def status_of(method: str = "POST", path: str = "/events", forwarded: str | None = None, **fields: str) -> int:
    """The status of a request with these header fields, whose `Host` a trusted proxy may have told."""
    app = SameOrigin(answer_ok, Pages(Hosts()))
    extensions = {} if forwarded is None else {FORWARDED_HOST: forwarded}
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "hub", **fields}.items()]
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    await app({**scope, "extensions": extensions, "http_version": "1.1"}, None, send)  # type: ignore[arg-type]
    return int(sent[0]["status"])


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("forwarded", "origin", "status"),
    [
        ("page.example", "https://page.example", 200),
        ("page.example:8443", "https://page.example:8443", 200),
        ("page.example", "https://page.example:8443", 403),
        ("page.example", "https://evil.example", 403),
        ("page.example", "http://hub", 403),  # the browser has never been there
        (None, "http://hub", 200),
        (None, "https://page.example", 403),
    ],
)
async def test_an_origin_is_compared_with_the_host_that_a_proxy_was_asked_for(
    forwarded: str | None, origin: str, status: int
) -> None:
    assert await status_of(forwarded=forwarded, origin=origin) == status


async def test_what_a_client_calls_forwarded_is_not_looked_at() -> None:
    assert await status_of(origin="https://evil.example", x_forwarded_host="evil.example") == 403


EMBEDDED = {
    "an image": ("cross-site", "no-cors", "image", 403),
    "fetch that cannot read": ("cross-site", "no-cors", "empty", 403),
    "a frame": ("cross-site", "navigate", "iframe", 403),
    "a page of another port": ("same-site", "no-cors", "empty", 403),
    "EventSource of another site": ("cross-site", "cors", "empty", 200),
    "a link": ("cross-site", "navigate", "document", 200),
    "the hub's own page": ("same-origin", "no-cors", "image", 200),
    "somebody who typed it": ("none", "navigate", "document", 200),
}


@pytest.mark.parametrize(("site", "mode", "dest", "status"), EMBEDDED.values(), ids=EMBEDDED)
async def test_a_stream_is_not_embedded_by_pages_that_cannot_read_it(
    site: str, mode: str, dest: str, status: int
) -> None:
    fields = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": dest}
    assert await status_of("GET", **fields) == status
    assert await status_of("GET", path="/ssepool.js", **fields) == 200
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    async with Hub() as hub:
        scope = {"type": "http", "path": "/events", "query_string": b"topic=a", "headers": headers, "client": None}
        assert (open_app(hub).shortcuts.subscription(scope) is not None) == (status == 200)


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
async def test_a_page_that_names_no_origin_changes_nothing(site: str, status: int) -> None:
    assert await status_of(sec_fetch_site=site) == status
    assert await status_of(sec_fetch_site=site, origin="http://hub") == 200
