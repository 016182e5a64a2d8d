"""Server: what it makes of a hub, an application and a configuration, before and beside serving."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parts import until
from ssepool.config import AccessConfig, HubConfig, PoolConfig, ServerConfig
from ssepool.core.callers import MAX_CALLERS, MIN_CALLERS
from ssepool.core.frames import DIALECT, Dialect
from ssepool.errors import ConfigError
from ssepool.hub import Hub
from ssepool.runtime.handover import AVAILABLE
from ssepool.server import server
from ssepool.server.balance import ROW_FIELDS, Balance
from ssepool.server.listener import Accepted, subscription_scope
from ssepool.server.server import Server

SUBSCRIBE = b"GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n"

DATE = [(b"date", b"today")]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Loud(Dialect):
    """Another dialect."""

    headers = ((b"content-type", b"text/loud"),)


@contextlib.asynccontextmanager
async def opened(hub: Hub) -> AsyncIterator[None]:
    """Open the engine of a hub, and nothing else of it."""
    engine = hub.parts.engine
    await engine.open()
    try:
        yield
    finally:
        engine.shutdown()
        await engine.cut()
        await engine.close()


def test_an_address_that_others_can_reach_is_refused_at_once() -> None:
    hub = Hub(HubConfig(access=AccessConfig(public_topics=("news",))))
    with pytest.raises(ConfigError, match=r"host '0\.0\.0\.0' is not a loopback address"):
        Server(hub, hub.dev_app, ServerConfig(host="0.0.0.0"))
    Server(hub, hub.app, ServerConfig(host="0.0.0.0"))


@pytest.mark.parametrize("own", [True, False], ids=["hub.dev_app", "another application"])
async def test_only_the_hubs_own_application_has_shortcuts(own: bool) -> None:
    hub = Hub()
    subject = Server(hub, hub.dev_app if own else hello)._uvicorn
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        listener = subject._listen(sock)
        assert (listener._take_in is not None) is own
        listener.close()
    protocol: Any = subject.config.http
    assert (protocol.answer is not None) is own


SETTINGS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "backlog": ({"backlog": 77}, "backlog", 77),
    "log level": ({"log_level": "error"}, "log_level", "error"),
    "shutdown timeout": ({"shutdown_timeout": 5.0}, "timeout_graceful_shutdown", 5),
    "half a second more": ({"shutdown_timeout": 5.5}, "timeout_graceful_shutdown", 6),
    "proxies are looked at by us": ({"trusted_proxies": ("*",)}, "proxy_headers", False),
}


@pytest.mark.parametrize(("given", "name", "value"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_those_of_the_server_underneath(given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(Server(Hub(), hello, ServerConfig(**given))._uvicorn.config, name) == value


def test_the_deadline_of_a_head_is_that_of_the_protocol() -> None:
    protocol: Any = Server(Hub(), hello, ServerConfig(head_timeout=7.5))._uvicorn.config.http
    assert protocol.head_timeout == 7.5


class Run:
    """Stands for the serving, and sees what it is given."""

    def __init__(self, subject: Server, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.sockets: list[socket.socket] = []
        self.clients: list[int] = []
        self._error = error
        monkeypatch.setattr(subject._uvicorn, "run", self._run)
        monkeypatch.setattr(server, "raise_limit", self.clients.append)

    def _run(self, sockets: list[socket.socket]) -> None:
        assert [sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in sockets] == [1]
        self.sockets = sockets
        if self._error is not None:
            raise self._error


def test_it_listens_while_it_runs_and_has_descriptors_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Server(Hub(HubConfig(pool=PoolConfig(size=7, max_waiting=5))), hello, ServerConfig(port=0))
    run = Run(subject, monkeypatch)
    subject.run()
    ((sock,), clients) = run.sockets, run.clients
    assert (sock.fileno(), clients) == (-1, [12])
    assert subject._uvicorn.urls[0].startswith("http://127.0.0.1:")


def test_a_worker_serves_the_socket_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        subject = Server(Hub(), hello, listener=listener)
        run = Run(subject, monkeypatch)
        port = listener.getsockname()[1]
        subject.run()
        assert (run.sockets, subject._uvicorn.urls) == ([listener], [f"http://127.0.0.1:{port}"])


def test_the_socket_is_closed_also_when_serving_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Server(Hub(), hello, ServerConfig(port=0))
    run = Run(subject, monkeypatch, RuntimeError("on purpose"))
    with pytest.raises(RuntimeError, match="on purpose"):
        subject.run()
    assert run.sockets[0].fileno() == -1


def test_where_it_cannot_listen_it_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        subject = Server(Hub(), hello, ServerConfig(port=other.getsockname()[1]))
        run = Run(subject, monkeypatch)
        with pytest.raises(ConfigError, match="Address already in use"):
            subject.run()
        assert run.sockets == []


# The head of a stream.


def test_a_head_has_the_servers_headers_and_those_of_the_dialect() -> None:
    subject = Server(Hub(), hello)._uvicorn
    subject.server_state.default_headers = DATE
    assert subject._head_of(Loud()) == (
        b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-type: text/loud\r\ntransfer-encoding: chunked\r\n\r\n"
    )


def test_a_head_is_rendered_once_for_each_dialect_until_the_servers_headers_change() -> None:
    subject = Server(Hub(), hello)._uvicorn
    loud = Loud()
    subject.server_state.default_headers = DATE
    first = subject._head_of(DIALECT), subject._head_of(loud)
    assert first[0] != first[1]
    assert (subject._head_of(DIALECT), subject._head_of(loud)) == first
    assert subject._head_of(DIALECT) is first[0]
    subject.server_state.default_headers = [(b"date", b"tomorrow")]
    second = subject._head_of(DIALECT), subject._head_of(loud)
    assert second == tuple(head.replace(b"today", b"tomorrow") for head in first)


# Single connections.


@pytest.mark.skipif(not AVAILABLE, reason="sockets are detached on Linux only")
async def test_a_subscription_is_admitted_with_its_head() -> None:
    hub = Hub()
    subject = Server(hub, hub.dev_app)._uvicorn
    subject.server_state.default_headers = DATE
    here, there = socket.socketpair()
    there.setblocking(False)
    with here:
        async with opened(hub):
            scope = subscription_scope(SUBSCRIBE, ("127.0.0.1", 5))
            assert scope is not None
            assert subject._admit(scope, Accepted(there.detach()).take)
            received = await asyncio.to_thread(here.recv, 10_000)
            assert received.startswith(subject._head_of(DIALECT))
            assert hub.parts.engine.pool.cells().count("o") == 1


@pytest.mark.parametrize("trouble", ["not a subscription", "the pool is full", "the hub is not open"])
async def test_what_is_out_of_the_ordinary_is_not_admitted(trouble: str) -> None:
    def take() -> Any:
        raise AssertionError("it is to be left")

    hub = Hub(HubConfig(pool=PoolConfig(size=1)))
    engine = hub.parts.engine
    subject = Server(hub, hub.dev_app)._uvicorn
    request = SUBSCRIBE if trouble != "not a subscription" else SUBSCRIBE.replace(b"/events", b"/pool")
    scope = subscription_scope(request, ("127.0.0.1", 5))
    assert scope is not None
    if trouble == "the hub is not open":
        assert not subject._admit(scope, take)
        return
    async with opened(hub):
        if trouble == "the pool is full":
            slot: Any = engine.pool.acquire(engine.now(), None)  # type: ignore[arg-type]
        assert not subject._admit(scope, take)
        if trouble == "the pool is full":
            engine.pool.release(slot, engine.now())


async def test_a_connection_that_is_handed_on_is_served_from_its_first_byte() -> None:
    subject = Server(Hub(), hello)._uvicorn
    subject.config.load()
    subject.lifespan = subject.config.lifespan_class(subject.config)
    here, there = socket.socketpair()
    here.setblocking(False)
    with here:
        place = subject._entrance.callers.enter("a", lambda: None)
        subject._hand_on(there, b"GET / HTTP/1.1\r\nHo", place)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(here, b"st: x\r\nConnection: close\r\n\r\n")
        received = b""
        async with asyncio.timeout(10):
            while data := await loop.sock_recv(here, 10_000):
                received += data
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\nhello")
        await until(lambda: not subject.server_state.connections and not subject.server_state.tasks)
        assert len(subject._entrance.callers) == 0


async def test_a_connection_that_gave_way_before_it_is_served_is_closed() -> None:
    subject = Server(Hub(), hello)._uvicorn
    subject.config.load()
    subject.lifespan = subject.config.lifespan_class(subject.config)
    here, there = socket.socketpair()
    here.setblocking(False)
    with here:
        place = subject._entrance.callers.enter("a", lambda: None)
        subject._hand_on(there, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", place)
        place.leave()
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(here, 10) == b""
        await until(lambda: not subject.server_state.connections)


async def test_a_connection_that_breaks_before_it_is_served_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: Any) -> Any:
        raise OSError("the client was faster")

    subject = Server(Hub(), hello)._uvicorn
    here, there = socket.socketpair()
    with here:
        monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", fail)
        place = subject._entrance.callers.enter("a", lambda: None)
        subject._hand_on(there, b"GET / HTTP/1.1\r\n", place)
        await until(lambda: there.fileno() == -1)
        assert len(subject._entrance.callers) == 0


@pytest.mark.parametrize(("descriptors", "most"), [(5000, 5000 - 7 - 3), (9, MIN_CALLERS), (None, MAX_CALLERS)])
async def test_what_the_pool_leaves_of_the_descriptors_is_for_all_else(descriptors: int | None, most: int) -> None:
    hub = Hub(HubConfig(pool=PoolConfig(size=5, max_waiting=3)))
    server = Server(hub, hello)
    server._descriptors = descriptors
    hub.parts.engine.pool.open()
    hub.parts.engine.pool.resize(7, 0.0)
    assert server._max_callers() == most


# Among other workers.


@pytest.mark.parametrize("listens", [True, False])
async def test_a_worker_without_a_listener_of_its_own_says_itself_that_it_lives(listens: bool) -> None:
    table = [0.0] * ROW_FIELDS
    hub = Hub(HubConfig(pool=PoolConfig(size=5)))
    hub.parts.engine.now = lambda: 77.0
    hub.parts.engine.pool.open()
    subject = Server(hub, hello, balance=Balance(table, 0))._uvicorn
    if listens:
        subject._listeners = [None]  # type: ignore[list-item]
    assert not await subject.on_tick(1)
    assert table == ([0.0] * ROW_FIELDS if listens else [5, 0, 77.0])
    subject.should_exit = True
    assert await subject.on_tick(1)
