"""Each way in x each route x each kind of bad credentials: refused, and nothing has come of it.

The routes and what they need are read off the hub's surfaces. A route that is no `Gate`, or that nothing is expected of
here, fails the first tests.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from door_hub import FUNCTIONS, GRANTED, PREFIX, VOID, WAYS, at_once
from live import DEADLINE, TESTS, LiveServer, Stream, running
from ssepool import Hub
from ssepool.http.access.gate import Gate
from ssepool.http.app import HubApp
from ssepool.http.subscribe import StreamGate

SURFACES = ("world", "admin")
METHODS = ("GET", "HEAD", "QUERY", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
Headers = list[tuple[str, str]]

STRANGERS: dict[str, tuple[Headers, set[int]]] = {
    "nothing": ([], {401}),
    "an unknown name": ([("X-Grant", "root")], {401}),
    "garbage": ([("Authorization", "Bearer garbage")], {401}),
    "a forged token": ([("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9.")], {401}),
    "a password": ([("Authorization", "Basic dTE6dTE=")], {401}),
    "an empty token": ([("Authorization", "Bearer ")], {400, 401}),
    "two tokens": ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], {400, 401}),
    **{f"{name} grant": ([("X-Grant", name)], {401}) for name in VOID},
}
"""Credentials that do not count, and how they are answered."""


@dataclass(frozen=True)
class Try:
    """A request to a route, and its answer to whoever may."""

    good: int
    query: str = ""
    body: Any = None
    path: str = ""
    needs: str = ""
    """Another need than the route says: of just this topic, or part of an event."""
    accept: str = "*/*"
    """What it accepts: of POST /events the stream."""


STREAM = "text/event-stream"
EVENT = {"topic": "news", "data": "x"}
FILE = [Try(200)]
GONE = "/connections/abc-1-def"
COMMON: dict[tuple[str, str], list[Try]] = {
    ("GET", "/events"): [
        Try(200, "topic=news"),
        Try(200, "topic=news&last_event_id=earliest"),
        Try(200, "topic=news&topic=news&data=1"),
        Try(200, "topic=ssepool/pool", needs="metrics"),
        Try(200, "topic=news&topic=secret", needs="*"),
        Try(200, "pattern=*", needs="*"),
        Try(200, "pattern=new:x", needs="*"),
        Try(200, "topic=news&pattern=secret/:id", needs="*"),
    ],
    ("HEAD", "/events"): [Try(200, "topic=news"), Try(200, "pattern=*", needs="*")],
    ("QUERY", "/events"): [
        Try(200, body={"topics": ["news"]}),
        Try(200, body={"topics": ["news"], "last_event_id": "earliest", "data": 1}),
        Try(200, body={"topics": ["ssepool/pool"]}, needs="metrics"),
        Try(200, body={"topics": ["news", "secret"]}, needs="*"),
        Try(200, body={"patterns": ["new:x"]}, needs="*"),
    ],
    ("POST", "/events"): (
        POSTED := [
            Try(200, body={"topics": ["news"]}, needs="subscribe", accept=STREAM),
            Try(200, body={"topics": ["news", "secret"]}, needs="*", accept=STREAM),
            Try(200, body={"patterns": ["*"]}, needs="*", accept=STREAM),
        ]
    ),
    **{
        (method, path): FILE
        for path in ("/health/live", "/health/ready", "/openapi.json", "/ssepool.js", "/web/base.css", "/web/page.js")
        for method in ("GET", "HEAD")
    },
    ("GET", "/web/pool.js"): FILE,
    ("HEAD", "/web/pool.js"): FILE,
}
EXPECTED: dict[str, dict[tuple[str, str], list[Try]]] = {
    "world": {
        **COMMON,
        ("POST", "/events"): [
            *POSTED,
            Try(201, body=EVENT),
            Try(201, body=[EVENT, EVENT]),
            Try(201, body={**EVENT, "private": False}, needs="public"),
            Try(201, body={"topics": ["news", "secret"], "data": "x"}, needs="*"),
            Try(201, body=[EVENT, {"topic": "secret", "data": "x"}], needs="*"),
            Try(0, body={**EVENT, "id": "mine"}, needs="no grant here"),
            Try(0, body={**EVENT, "retry": 1000}, needs="no grant here"),
            Try(0, body={"topic": "ssepool/pool", "data": "x"}, needs="no grant here"),
        ],
        ("POST", "/tickets"): [
            Try(201, body={"topics": ["news"]}),
            Try(201, body={"topics": ["news", "secret"]}, needs="*"),
            Try(201, body={"patterns": ["*"]}, needs="*"),
        ],
        ("POST", "/connections/{id}/messages"): [Try(202, body="hello", path=f"{GONE}/messages")],
    },
    "admin": {
        **COMMON,
        **{
            (method, path): FILE
            for path in (
                "/dashboard",
                "/dashboard/dashboard.css",
                "/dashboard/dashboard.js",
                "/dashboard/connections.js",
                "/dashboard/series.js",
                "/dashboard/topics.js",
                "/metrics",
                "/pool",
                "/cluster",
                "/connections",
                "/topics",
                "/audit",
            )
            for method in ("GET", "HEAD")
        },
        ("GET", "/connections/{id}"): [Try(404, path=GONE)],
        ("HEAD", "/connections/{id}"): [Try(404, path=GONE)],
        ("DELETE", "/connections/{id}"): [Try(404, path=GONE)],
        ("GET", "/revocations"): [Try(200)],
        ("HEAD", "/revocations"): [Try(200)],
        ("POST", "/revocations"): [Try(201, body={"subject": "nobody", "issued_before": "now"})],
        ("DELETE", "/connections"): [Try(200, "topic=nobody"), Try(200, "user=nobody")],
        ("PATCH", "/pool"): [Try(200, body={"size": 8})],
        ("POST", "/pool/drain"): [Try(202, body={"seconds": 0})],  # the last: it is over with this hub then
    },
}
"""What is tried of each route of each surface."""


NEEDS = {
    ("GET", "/events"): "subscribe",
    ("HEAD", "/events"): "subscribe",
    ("QUERY", "/events"): "subscribe",
    ("POST", "/events"): "publish",
    ("POST", "/tickets"): "subscribe",
    ("POST", "/connections/{id}/messages"): "connection",
    **{(method, path): "metrics" for path in ("/metrics", "/pool", "/cluster") for method in ("GET", "HEAD")},
    **{
        (method, path): "connections"
        for path in ("/connections", "/connections/{id}", "/topics")
        for method in ("GET", "HEAD")
    },
    ("DELETE", "/connections/{id}"): "kick",
    ("DELETE", "/connections"): "kick",
    **{(method, "/revocations"): "kick" for method in ("GET", "HEAD", "POST")},
    **{(method, "/audit"): "audit" for method in ("GET", "HEAD")},
    ("PATCH", "/pool"): "pool",
    ("POST", "/pool/drain"): "pool",
}
"""What the routes need that need something."""


def surfaces(hub: Hub) -> dict[str, HubApp]:
    return {"world": hub.app, "admin": hub.admin_app}


def gates(surface: str) -> Iterator[tuple[str, str, str]]:
    """Method, path and need of each route of a surface."""
    for route in surfaces(Hub(authorize=at_once))[surface].routes:
        assert isinstance(route, Gate), route
        for method in sorted(route.methods or ()):
            yield method, route.path, route.needs


def rows(surface: str) -> list[tuple[str, str, Try]]:
    """Method, need and request: for each route what is tried of it, in the order of `EXPECTED`."""
    needs = {(method, path): need for method, path, need in gates(surface)}
    return [
        (method, attempt.needs or needs[method, path], attempt)
        if attempt.path
        else (method, attempt.needs or needs[method, path], _at(path, attempt))
        for (method, path), attempts in EXPECTED[surface].items()
        for attempt in attempts
    ]


def _at(path: str, attempt: Try) -> Try:
    return replace(attempt, path=path)


@pytest.mark.parametrize("surface", SURFACES)
def test_each_route_of_a_surface_is_a_gate_and_is_tried_here(surface: str) -> None:
    assert {(method, path) for method, path, _ in gates(surface)} == set(EXPECTED[surface])


def test_each_route_needs_what_it_does() -> None:
    needed = {gate for surface in SURFACES for gate in gates(surface) if gate[2] != "nothing"}
    posted = ("POST", "/events", "subscribe")  # for those who say that they accept a stream
    assert needed == {(*route, need) for route, need in NEEDS.items()} | {posted}


def test_what_is_for_development_needs_as_much() -> None:
    for route in Hub().dev_app.routes:
        assert isinstance(route, Gate), route
        for method in route.methods or ():
            demo = "publish" if route.path == "/demo/jobs" else "nothing"
            needs = NEEDS.get((method, route.path), demo)
            assert route.needs == ("subscribe" if isinstance(route, StreamGate) else needs)


@dataclass
class Way:
    """A hub of which one surface is reached in one way."""

    server: LiveServer
    prefix: str
    surface: str
    numbers_at: Path

    def ask(self, method: str, attempt: Try, headers: Headers, shape: str = "plain") -> tuple[int, Any]:
        """Status and head of the answer. The shape of a request is `plain`, where the shortest way takes it; `longer`,
        with a field for which it goes to the routes; or `head`, whose body never comes."""
        target = f"{self.prefix}{attempt.path}{'?' + attempt.query if attempt.query else ''}"
        data = None if attempt.body is None else json.dumps(attempt.body).encode()
        fields = [*headers, ("Accept", attempt.accept), *([("Connection", "close")] if shape == "longer" else [])]
        if data is not None:
            fields += [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        elif shape == "longer":
            fields.append(("Content-Length", "0"))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=DEADLINE)) as client:
            client.putrequest(method, target)
            for name, value in fields:
                client.putheader(name, value)
            client.endheaders(None if shape == "head" else data)
            with client.getresponse() as answer:
                return answer.status, answer.headers

    def numbers(self) -> Any:
        """What has been published and asked of the pool so far; None where several processes share that."""
        if not self.numbers_at.exists():
            return None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.numbers_at))
            return json.loads(client.makefile("rb").read())


@contextlib.contextmanager
def entered(way: str, surface: str, kind: str, folder: Path) -> Iterator[Way]:
    command = [sys.executable, str(TESTS / "door_hub.py"), way, surface, kind, str(folder)]
    with running(command, r"^ready (http\S*)") as server:
        yield Way(server, PREFIX if way == "mounted" else "", surface, folder / "numbers")


def credentials(need: str) -> Iterator[tuple[str, Headers, set[int]]]:
    """Everything that does not open a route of this need, and how it is answered."""
    if need == "nothing":
        return
    # No grant opens a connection's messages. Of what no node has, nothing can be learned.
    connection = {400, 401, 404} if need == "connection" else set()
    for name, (headers, statuses) in STRANGERS.items():
        yield name, headers, connection or statuses
    for name, words in GRANTED.items():
        if not opens(words, need):
            yield name, [("X-Grant", name)], connection or {403}


def opens(words: frozenset[str], need: str) -> bool:
    return need in words


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("way", WAYS)
def test_only_the_right_grant_opens_a_route(way: str, surface: str, kind: str, tmp_path: Path) -> None:
    with entered(way, surface, kind, tmp_path) as hub:
        before = hub.numbers()
        holes = [*refused_wrongly(hub, ["plain", "longer"] if kind == "def" else ["plain"]), *other_methods(hub)]
        assert holes == []
        assert hub.numbers() == before
        assert list(let_in_wrongly(hub)) == []
        if surface == "world":
            send_a_message(hub)
        assert hub.server.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in "".join(hub.server.log)


def refused_wrongly(hub: Way, shapes: list[str]) -> Iterator[tuple[Any, ...]]:
    """What was answered otherwise than with a refusal."""
    for method, need, attempt in rows(hub.surface):
        for name, headers, statuses in credentials(need):
            # Who may publish something is refused by what they publish; all others before that comes.
            unread = attempt.body is not None and "publish" not in GRANTED.get(name, ()) and name != "another topic"
            # The body of a wish is what is asked about.
            unread = unread and attempt.path != "/tickets" and method != "QUERY" and attempt.accept != STREAM
            for shape in [*shapes, *(["head"] if unread else [])]:
                status, fields = hub.ask(method, attempt, headers, shape)
                if status not in statuses or (status == 401) > ("WWW-Authenticate" in fields):
                    yield method, attempt, name, shape, status


def other_methods(hub: Way) -> Iterator[tuple[Any, ...]]:
    """What was answered to a method that a route does not have, and to the other surface's routes."""
    paths = {attempt.path: set[str]() for _, _, attempt in rows(hub.surface)}
    for method, _, attempt in rows(hub.surface):
        paths[attempt.path].add(method)
    elsewhere = {attempt.path for surface in SURFACES for _, _, attempt in rows(surface)} - set(paths)
    for path in [*paths, *elsewhere]:
        for method in METHODS:
            if method in paths.get(path, ()):
                continue
            status, _ = hub.ask(method, Try(0, path=path), [("X-Grant", "all topics")])
            if status != (404 if path in elsewhere else 204 if method == "OPTIONS" else 405):
                yield method, path, status


def let_in_wrongly(hub: Way) -> Iterator[tuple[Any, ...]]:
    """What the right grant was refused."""
    for method, need, attempt in rows(hub.surface):
        for name, words in GRANTED.items():
            if need == "nothing" or opens(words, need):
                status, _ = hub.ask(method, attempt, [("X-Grant", name)])
                if status != attempt.good:
                    yield method, attempt, name, status
                if (method, attempt.path) == ("POST", "/pool/drain"):
                    return


def send_a_message(hub: Way) -> None:
    """The token of a stream opens its messages, once and alone."""
    path = f"{hub.prefix}/events?topic=news"
    with Stream(hub.server, path=path, headers={"X-Grant": "subscribe"}).opened() as stream:
        opened = stream.of_type("ssepool.open")[0]
        attempt = Try(202, body="hello", path=f"/connections/{opened['connection']}/messages")
        right, wrong = ("Authorization", f"Bearer {opened['token']}"), ("Authorization", "Bearer wrong")
        for name, headers, _ in credentials("connection"):
            assert hub.ask("POST", attempt, headers)[0] in (400, 401), name
        for headers, status in ([right], 202), ([wrong], 401), ([wrong, right], 400), ([right, wrong], 400):
            assert hub.ask("POST", attempt, headers)[0] == status, headers
