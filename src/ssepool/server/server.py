"""The stand-alone server: uvicorn around a hub's application, with what a hub needs of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from ssepool.config import ServerConfig
from ssepool.core.callers import MIN_CALLERS, Callers, Place, most_callers
from ssepool.core.frames import Dialect
from ssepool.errors import ConfigError
from ssepool.http.app import HubApp
from ssepool.hub import Hub
from ssepool.runtime.admission.admission import admit_nowait
from ssepool.runtime.entrance import Entrance
from ssepool.runtime.files import max_clients
from ssepool.runtime.handover import AVAILABLE, Handover, Reply
from ssepool.runtime.proxies import App, Peer, TrustedProxies
from ssepool.runtime.streams.slices import Wakes
from ssepool.runtime.tasks import Tasks
from ssepool.runtime.wire import render_head
from ssepool.server.address import check_address, close, inherited, listen, release, remove, url_of
from ssepool.server.administration import check_administration, hosts_of, listen_for_operators, operators_app
from ssepool.server.audit import written_to
from ssepool.server.balance import Balance
from ssepool.server.files import raise_limit
from ssepool.server.listener import Listener
from ssepool.server.repeats import Repeats
from ssepool.server.systemd import notify
from ssepool.uvicorn import Answer, protocol

try:
    import uvloop  # noqa: F401

    LOOP = "uvloop"
except ImportError:  # it has no Windows build
    LOOP = "asyncio"

LOGS = ("uvicorn.error", "ssepool")
"""Where what a stranger causes is logged."""


class Server:
    """Serves a hub until SIGTERM or SIGINT."""

    def __init__(
        self,
        hub: Hub,
        app: App,
        config: ServerConfig | None = None,
        *,
        on_started: Callable[..., None] = lambda *urls: None,
        listener: socket.socket | None = None,
        administered: bool = False,
        admin: Sequence[socket.socket] = (),
        balance: Balance | None = None,
    ) -> None:
        """`app` is one of the hub's own, or an application that the hub is part of. `on_started` is called with the
        server's URL once it takes connections, and with those of administration behind it if it is `administered`. A
        worker accepts on the `listener` and the `admin` sockets that it shares with the others, as its `balance` with
        them says. An application of the hub turns requests for names away that are not allowed
        (`AccessConfig.allowed_hosts`).

        Raises `ConfigError` for an address other than loopback with `hub.dev_app`, and for administration at a port
        where nothing says whose credentials count.
        """
        self.hub = hub
        """What is served."""
        self.config = config or ServerConfig()
        """The settings."""
        check_address(self.config, dev=app is hub.dev_app)
        # Another application decides by itself what is answered under which name and path.
        own = app if isinstance(app, HubApp) else None
        if own is not None:
            hub.parts.hosts.enforce(self.config.host, *hosts_of(self.config))
        self._administered = administered
        if administered:
            check_administration(hub, self.config)
        self._admin = admin
        proxies = TrustedProxies(self.config.trusted_proxies)
        entrance = Entrance(proxies.forwarded(app), proxies, Callers(self._max_callers))
        self._uvicorn = _Uvicorn(
            _uvicorn_config(entrance, self.config, own),
            hub,
            own,
            entrance,
            self.config,
            on_started,
            balance,
        )
        self._listener = listener
        self._descriptors = max_clients()

    def run(self) -> None:
        """Serve, and return when the server has been told to end. Raises `ConfigError` if it cannot listen."""
        pool = self.hub.config.pool
        raise_limit(pool.size + pool.max_waiting)
        self._descriptors = max_clients()
        listener = self._listener or listen(self.config, pool.ack_timeout)
        try:
            admin = self._admin
            if self._administered and self._listener is None:
                admin = listen_for_operators(self.config, listener, self.hub.config)
        except ConfigError:
            release(self.config, listener)
            raise
        self._serve(listener, admin)

    def _serve(self, listener: socket.socket, admin: Sequence[socket.socket]) -> None:
        sockets = [listener, *admin]
        urls = self._uvicorn.urls = [url_of(each) for each in sockets]
        self._uvicorn.made = urls if inherited(self.config) is None else urls[1:]
        self._uvicorn.admin = admin
        logs, repeats = [logging.getLogger(name) for name in LOGS], Repeats(self.hub.parts.engine.now)
        for log in logs:
            log.addFilter(repeats)
        try:
            with written_to(self.config.audit_log):
                self._uvicorn.run(sockets=[listener])
        finally:
            for log in logs:
                log.removeFilter(repeats)
            for each, url in zip(sockets, urls, strict=True):
                close(each, url if self._listener is None and url in self._uvicorn.made else "")

    def _max_callers(self) -> int:
        """How many connections there may be that are no streams: what these and waiters leave of the descriptors."""
        pool = self.hub.parts.engine.pool
        return most_callers(self._descriptors, len(pool.slots) + self.hub.config.pool.max_waiting)


NOTHING_OPENS = """\
nothing says who may do what, and nothing is open by itself. Give one of

    --public-topics news     what everybody may read; a pattern as pattern:news/*
    --token-keys key.txt --token-issuers me --token-audience hub
                             who has a token; `ssepool token` makes some
    --authorize-url http://127.0.0.1:5000/sse-auth
                             who your own application says may do what
    --dev                    everything, to programs of this machine alone: to develop with

All are settings of the environment and of ssepool.toml, too; docs/access.md has more"""
"""What a stand-alone hub says that would have to let everybody in or nobody."""


def surface(hub: Hub, config: ServerConfig) -> HubApp:
    """The application that a stand-alone hub serves. Raises `ConfigError` if nothing says who may do what."""
    if not config.dev and hub.parts.door is None:
        raise ConfigError(NOTHING_OPENS)
    return hub.dev_app if config.dev else hub.app


def _answer_of(app: HubApp, proxies: TrustedProxies) -> Answer:
    """What answers publications at once. It looks for the client behind a proxy only where that is of use."""
    asks = app.shortcuts.asks_who_publishes

    def answer(url: bytes, headers: list[tuple[bytes, bytes]], body: bytes, peer: Peer | None) -> Reply | None:
        return app.shortcuts.publication(url, headers, body, proxies.client(peer, headers) if asks else None)

    return answer


def _uvicorn_config(entrance: Entrance, config: ServerConfig, own: HubApp | None) -> uvicorn.Config:
    answer = _answer_of(own, entrance.proxies) if own is not None else None
    return uvicorn.Config(
        entrance.app,
        http=protocol(config.head_timeout, answer, entrance),
        loop=LOOP,
        lifespan="on",
        ws="none",
        log_level=config.log_level,
        access_log=False,
        backlog=config.backlog,
        proxy_headers=False,  # with `*` uvicorn believes what the client itself has written in front
        timeout_graceful_shutdown=math.ceil(config.shutdown_timeout),
        server_header=False,
    )


def _nothing() -> None:
    pass


class _Uvicorn(uvicorn.Server):
    """uvicorn's server with a listener of ours, which takes subscriptions before a protocol is made for them."""

    urls: Sequence[str] = ("",)
    made: Sequence[str] = ()
    """Those of sockets that this process has made."""
    admin: Sequence[socket.socket] = ()

    def __init__(
        self,
        config: uvicorn.Config,
        hub: Hub,
        own: HubApp | None,
        entrance: Entrance,
        settings: ServerConfig,
        started: Callable[..., None],
        balance: Balance | None,
    ) -> None:
        super().__init__(config)
        self._hub = hub
        self._own = own
        """The application, if it is the hub's own."""
        self._entrance = entrance
        self._settings = settings
        self._balance = balance
        self._on_started = started
        self._listeners: list[Listener] = []
        self._tasks = Tasks()
        self._entries = Wakes()
        """Has the connections that are handed on begin a few at a time."""
        self._heads: dict[Dialect, bytes] = {}
        """The head of every stream, by dialect."""
        self._heads_of: list[tuple[bytes, bytes]] | None = None
        """The default headers of uvicorn that stand in them."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        listens = AVAILABLE and self._hub.config.detach
        # Not only in the application's lifespan, where what fails would be told with a traceback.
        await self._hub.open()
        try:
            await super().startup([] if listens else sockets)
        finally:
            if not self.started:
                await self._hub.close()
        if not self.started:
            return
        if listens:
            self._listeners = [self._listen(sock) for sock in sockets or ()]
        for sock in self.admin:
            await self._listen_for_operators(sock, operators_app(self._hub, sock))
        # What is here now stays: without this every full collection looks through all modules and slots, and holds the
        # event loop for tens of milliseconds.
        gc.collect()
        gc.freeze()
        asyncio.get_running_loop().call_soon(self._on_started, *self.urls)

    async def on_tick(self, counter: int) -> bool:
        # Ten times a second. Where uvicorn accepts, no listener says that this worker lives, and it would be killed.
        if self._balance is not None and not self._listeners:
            self._balance.tell(self._hub.parts.engine.pool, self._hub.parts.engine.now())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self._listeners:
            listener.close()
        if self._balance is None:  # else others listen there. uvicorn ends with the signal, so nothing comes after this
            notify("STOPPING=1")
            for url in self.made:
                remove(url)
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._hub.close()

    def _listen(self, sock: socket.socket) -> Listener:
        return Listener(
            sock,
            admit=None if self._own is None else self._admit,
            hand_on=self._hand_on,
            head_timeout=self._settings.head_timeout,
            proxies=self._entrance.proxies,
            callers=self._entrance.callers,
            pool=self._hub.parts.engine.pool,
            now=self._hub.parts.engine.now,
            balance=self._balance,
        )

    async def _listen_for_operators(self, sock: socket.socket, app: HubApp) -> None:
        """Accept on a socket of administration, with room of its own: a crowd outside must not keep operators out."""
        proxies = self._entrance.proxies
        entrance = Entrance(proxies.forwarded(app), proxies, Callers(lambda: MIN_CALLERS, shared=False))
        kind = protocol(self._settings.head_timeout, None, entrance)

        def make() -> asyncio.Protocol:
            return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        self.servers.append(await asyncio.get_running_loop().create_server(make, sock=sock))

    def _admit(self, scope: dict[str, Any], take: Callable[[], Handover]) -> bool:
        assert self._own is not None
        visit = self._own.shortcuts.subscription(scope)
        return visit is not None and admit_nowait(self._hub.parts.engine, visit, take, self._head_of)

    def _hand_on(self, conn: socket.socket, data: bytes, place: Place) -> None:
        self._tasks.start(self._serve_connection(conn, data, place))

    async def _serve_connection(self, conn: socket.socket, data: bytes, place: Place) -> None:
        def make() -> asyncio.Protocol:
            made = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            made.early, made.place = data, place  # type: ignore[attr-defined]
            return made

        try:
            # A protocol takes a hundred times as long to be made as a connection to be accepted. Who has to give way
            # until then holds no descriptor any more; later the protocol sees to it.
            place.give_way = conn.close
            await self._entries.turn()
            if not place.is_taken:
                conn.close()
                return
            place.give_way = _nothing
            await asyncio.get_running_loop().connect_accepted_socket(make, conn)
        except OSError:
            place.leave()
            conn.close()  # the client was faster
        except asyncio.CancelledError:
            place.leave()
            conn.close()
            raise

    def _head_of(self, dialect: Dialect) -> bytes:
        """The head of a stream, rendered anew when uvicorn changes the date in its default headers."""
        if self._heads_of is not self.server_state.default_headers:
            self._heads_of = self.server_state.default_headers
            self._heads.clear()
        head = self._heads.get(dialect)
        if head is None:
            head = self._heads[dialect] = render_head(200, [*self._heads_of, *dialect.headers], chunked=True)
        return head
