"""What a stranger writes is in no answer such that a browser or a proxy would take it for something else."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from live import LiveServer, Stream, serve

NASTY = "<script>alert(1)</script>\r\nX-Forged: 1\r\n\r\n\u202e\x1b[2J"
JSON = {"Content-Type": "application/json"}
PATHS = [
    *("/health/live", "/health/ready", "/pool", "/metrics", "/openapi.json", "/cluster", "/connections"),
    *(
        "/demo",
        "/dashboard",
        "/ssepool.js",
        "/web/base.css",
        "/nothing",
        "/connections/a-0-0",
        "/events",
        "/events?x=1",
    ),
    *(
        f"/{quote(NASTY)}",
        f"/events?{quote(NASTY)}=1",
        f"/events?pattern={quote(NASTY)}",
        f"/connections/{quote(NASTY)}",
    ),
    *(f"/connections?state={quote(NASTY)}", f"/connections?{quote(NASTY)}=1", f"/events?topic={quote(NASTY)}"),
]
BODIES = {
    "a topic": ("POST", "/events", {"topic": NASTY, "data": "x"}),
    "a field": ("POST", "/events", {"topic": "a", "data": "x", NASTY: 1}),
    "an id": ("POST", "/events", {"topic": "a", "data": "x", "id": NASTY}),
    "a type": ("POST", "/events", {"topic": "a", "data": "x", "type": NASTY}),
    "a publication": ("POST", "/events", {"topic": "a", "data": NASTY}),
    "a size": ("PATCH", "/pool", {"size": NASTY}),
    "a drain": ("POST", "/pool/drain", {"seconds": NASTY}),
    "a job": ("POST", "/demo/jobs", {"tab": NASTY}),
    "a message": ("POST", f"/connections/{quote(NASTY)}/messages?token={quote(NASTY)}", NASTY),
}


@pytest.fixture(scope="module", params=["detached", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=10) as server:
        yield server


def ask(server: LiveServer, method: str, path: str, body: object = None, **fields: str) -> http.client.HTTPResponse:
    import json

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Connection": "close", **(JSON if sent else {}), **fields})
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


def check(answer: http.client.HTTPResponse) -> None:
    """No browser takes this for a page, unless it is one of ours, which says what it may do."""
    assert answer.status < 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"].startswith(("no-store", "no-cache"))
    assert "X-Forged" not in answer.headers
    if answer.headers["Content-Type"].startswith("text/html"):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    if answer.status >= 400:
        text = answer.text  # type: ignore[attr-defined]
        assert answer.headers["Content-Type"] == "application/json"
        assert len(text) < 2000
        assert text.isprintable()


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_is_what_it_says(server: LiveServer, path: str) -> None:
    check(ask(server, "GET", path))


@pytest.mark.parametrize(("method", "path", "body"), BODIES.values(), ids=BODIES)
def test_the_answer_to_a_body_is_what_it_says(server: LiveServer, method: str, path: str, body: object) -> None:
    check(ask(server, method, path, body))


def test_values_in_a_refusal_are_short(server: LiveServer) -> None:
    for path in (f"/{'x' * 7000}", f"/events?{'x' * 7000}=1", f"/events?pattern={'(' * 7000}", f"/pool?{'x' * 7000}=1"):
        check(ask(server, "GET", path))
    for fields in ({"topic": "a" * 60_000}, {"topic": "a", "x" * 60_000: 1}, {"topic": "a", "id": "x" * 60_000}):
        check(ask(server, "POST", "/events", {"data": "", **fields}))
    check(ask(server, "POST", "/events", 1, Origin=f"http://{'x' * 7000}"))


def test_a_stream_is_no_page(server: LiveServer) -> None:
    with Stream(server, "a") as stream:
        assert stream.opened().headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/pool/", "/demo/", "/events/", "//evil.example/pool/", "/%5cevil.example/demo/"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1"])
def test_nobody_is_sent_anywhere(server: LiveServer, path: str, host: str) -> None:
    answer = ask(server, "GET", path, Host=host)
    assert answer.status == 404
    assert "Location" not in answer.headers


def test_a_name_in_host_gets_into_no_header(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET /pool/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 421 ")
    assert b"evil" not in head and b"'evil.example'" in body
