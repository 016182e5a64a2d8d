"""Hub: the public face of its `Parts`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar, Unpack

from ssepool import clock
from ssepool.config import HubConfig
from ssepool.core.bans import KICK_SECONDS
from ssepool.core.data import JSONEncoder
from ssepool.core.frames import Dialect, DialectFields
from ssepool.core.grant import Grant, effect
from ssepool.core.pool import DRAIN_SECONDS
from ssepool.core.revocations import Revocation
from ssepool.core.rights import NOTHING
from ssepool.core.stats import HubStats
from ssepool.core.topics import Subscription
from ssepool.core.visit import Request, Visit
from ssepool.errors import AlreadyOpen, ConfigError
from ssepool.http.access.authorize import AuthorizeFunction
from ssepool.http.access.door import Door
from ssepool.http.access.everybody import Developer
from ssepool.http.access.tokens import Tokens
from ssepool.http.app import HubApp, Surface
from ssepool.parts import TOKENS_TAKE, Parts
from ssepool.publishing import Publishing
from ssepool.runtime.admission.fields import answered_with
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.cluster.monitor import Monitor
from ssepool.runtime.connections import Connection
from ssepool.runtime.reaper import Reaper
from ssepool.runtime.serving import at_its_end
from ssepool.runtime.siblings import Siblings
from ssepool.runtime.signals import before_others
from ssepool.runtime.threads import Threads

NOTHING_SAYS_WHO = """\
nothing says who may do what, and nothing is open by itself. Write one of

    Hub(authorize=function)                                            # a function of yours, asked about each request
    Hub(HubConfig(access=AccessConfig(public_topics=["news"])))        # what everybody may read
    AccessConfig(token_keys=["key.txt"], token_issuers=["me"], token_audience="hub")    # who has a token
    AccessConfig(authorize_url="http://...")                           # your application, asked over HTTP
    hub.dev_app                                                        # everything, for programs of this machine alone

On the command line these are --public-topics news, --token-keys key.txt --token-issuers me --token-audience hub,
--authorize-url http://..., and --dev. See docs/access.md"""
"""What `Hub.app` says where it would have to let everybody in or nobody."""

Hook = TypeVar("Hook", bound=Callable[..., Any])


class Hub(Publishing):
    """The hub: `async with Hub() as hub`, or `hub.lifespan` given to an application.

    Once it has closed it may be opened anew, also in another event loop or process: with its settings, hooks and
    applications of before, and everything else made afresh.

    All calls belong to the event loop that opened it, but for `publish_sync` and `publish_threadsafe`.
    """

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        authorize: AuthorizeFunction | None = None,
        json_encoder: JSONEncoder | None = None,
    ) -> None:
        """Nothing is opened yet. `authorize` is asked about each request to `app` and `admin_app`, and returns its
        `Grant`, or None for who is not known. `json_encoder` is asked about objects in the data of events that are not
        known, and returns what stands for them. Raises `ConfigError` for settings that cannot be obeyed."""
        self.config = config or HubConfig()
        """The settings."""
        self.parts = Parts.of(self.config, authorize, json_encoder)
        """What the hub is made of, for one opening. For servers and tests; it may change with any version."""
        self._engine = self.parts.engine
        self._threads = Threads(self._engine.publish_many, self._engine.tasks)
        self._authorize = authorize
        self._apps: dict[Surface, HubApp] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where the hub is open, or being opened or closed."""
        self._hearing = contextlib.ExitStack()
        """What hears that the process, or its server, is to end."""
        self._reaper: Reaper | None = None
        self._monitor: Monitor | None = None
        self._siblings: Siblings | None = None
        self._learning: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    # Opening and closing.

    async def open(self) -> None:
        """Make the slots and start: the broker, the streamer, the reaper.

        SIGTERM and SIGINT go to the hub from now on, before they go to the server, and so does the end of a uvicorn
        that comes without a signal (`handle_signals`). Raises `AlreadyOpen`, `BrokerError` if the broker is not there,
        and `ConfigError` if it will not do. After an error it may be opened again.
        """
        if self._is_open:
            raise AlreadyOpen(
                "the hub is open already: it has one life at a time. Close it first, or make a Hub for each application"
            )
        self._loop = asyncio.get_running_loop()
        try:
            await self._open()
        except BaseException:  # cancelled too: it may be opened again
            self._loop = None
            raise

    @property
    def _is_open(self) -> bool:
        """A loop that was closed, and a process that was left by a fork, can close nothing any more."""
        loop = self._loop
        return loop is not None and not loop.is_closed() and self.parts.process == os.getpid()

    async def _open(self) -> None:
        self._hearing.close()  # of a life that was never closed
        if not self.parts.are_fresh:
            self._renew()
        engine, parts = self._engine, self.parts
        await engine.open()
        try:
            await parts.cluster.open()
            await parts.revoking.open()
        except BaseException:  # cancelled too: what has been opened must not be left open
            engine.shutdown()
            await engine.cut()
            await self._stop()
            raise
        self._threads.open()
        self._learning = engine.tasks.start(parts.nodes.learn_bans())
        if parts.tokens is not None:
            self._watching = engine.tasks.start(parts.tokens.ring.watch())
        self._reaper = Reaper(engine.pool, evict_all=engine.connections.evict_all, expire=self._expire, now=engine.now)
        self._monitor = Monitor(parts.nodes, engine.feeds, engine.tasks)
        if engine.log.complete:
            self._siblings = Siblings()
        if self.config.handle_signals:
            self._hearing.enter_context(before_others(self.shutdown))
            self._hearing.enter_context(at_its_end(self.shutdown))

    def _renew(self) -> None:
        """Nothing of an opening is used in the next, so that whoever still holds something of the one before, such as a
        request that has outlived it, does no harm to this one."""
        parts = self.parts = self.parts.renewed(self.config, self._authorize)
        self._engine = parts.engine
        self._threads = Threads(parts.engine.publish_many, parts.engine.tasks)
        for app in self._apps.values():
            app.serve(parts.engine, parts.nodes, parts.revoking, parts.budget, self._door(app.surface))

    def shutdown(self) -> None:
        """Begin to close: refuse waiters, say goodbye on every stream. Returns at once; `close` does the rest. Until
        then events may be published."""
        self.parts.runs.cancel()
        for task in (self._learning, self._watching):
            if task is not None:
                task.cancel()
        if self._siblings is not None:
            self._siblings.close()
        self._engine.shutdown()

    async def close(self) -> None:
        """Send all clients away with the reason `shutdown`, fail all waiters, let the `on_disconnect` hooks come to
        their end, and stop."""
        reaper, self._reaper = self._reaper, None
        if reaper is None or self._monitor is None:
            return
        try:
            self.shutdown()
            await self._engine.cut()
            reaper.stop()
            self._monitor.stop()
            await self._stop()
        finally:
            self._hearing.close()
            self._loop = None

    async def _stop(self) -> None:
        if self.parts.authorize_url is not None:
            await self.parts.authorize_url.close()
        await self.parts.revoking.close()
        self._threads.close()
        await self.parts.cluster.close()  # it says goodbye over the broker, so the engine comes last
        await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Open the hub for the life of an application: `FastAPI(lifespan=hub.lifespan)`.

        A hub that is open in this event loop is left to whoever has opened it; in another, this raises `AlreadyOpen`.
        """
        if self._is_open and self._loop is asyncio.get_running_loop():
            # The server may have begun since then, and have put its own handlers in the place of ours.
            with before_others(self.shutdown) if self.config.handle_signals else contextlib.nullcontext():
                yield
            return
        async with self:
            yield

    def _expire(self, now: float) -> None:
        self._engine.expire(now)
        self.parts.runs.expire(now)

    # Subscribing.

    def response(
        self,
        request: Request,
        *,
        topics: Iterable[str] = (),
        patterns: Iterable[str] = (),
        user: str | None = None,
        data: Any = None,
        private: bool = True,
        last_event_id: str | None = None,
        grant: Grant | None = None,
        headers: Mapping[str, str] | None = None,
        **wire: Unpack[DialectFields],
    ) -> EventStream:
        """A response that streams these topics and patterns to the client of `request`, through the pool.

        `user` and `data` are kept on the connection. The application has decided that this client may have these
        topics, so it also gets their private events, unless `private` is false. A client that names no id begins
        behind `last_event_id`. `headers`, and what is added to those of the response later, go with every answer. A
        `grant` stands in the place of `user`: its rights decide about each topic and its private events, and the stream
        ends with it. `wire` says what the stream looks like to clients that are particular about it, as `DialectFields`
        has it; a stream of topics is complete when `Connection.close("completed")` says so. Raises `InvalidTopic`,
        `InvalidEvent`, `Forbidden` for what a grant does not cover, and `ValueError` for a header that no answer can
        have.
        """
        with answered_with(headers):
            subscription = Subscription.of(topics, patterns, private)
            visit = self._visit(request, subscription, user, grant, data, Dialect.of(**wire), last_event_id)
        return EventStream(self._engine, visit, headers)

    def stream(
        self,
        request: Request,
        source: AsyncIterable[Any],
        *,
        topic: str | None = None,
        user: str | None = None,
        data: Any = None,
        grant: Grant | None = None,
        headers: Mapping[str, str] | None = None,
        **wire: Unpack[DialectFields],
    ) -> EventStream:
        """A response that sends what an asynchronous generator yields, data or `Event`s, and then ends.

        With `topic` the events are published there as well, and the generator goes on if the client leaves. A client
        that asks again gets the rest (with `Last-Event-ID`) or everything (without), from the same run; its own
        `source` is then closed unused. Once the generator has ended and `history_age` has passed, the topic may be used
        anew. The request whose generator runs is kept until that has ended, with its dependencies and context
        variables; it raises what the generator raises before its first event. `grant`, `headers` and `wire` are as for
        `response`: `own_events=False, final="[DONE]"` is what clients of OpenAI's chat completions take. Raises
        `InvalidTopic`, `InvalidEvent`, `Forbidden`, `ValueError`, and `TypeError` for a source that is not
        asynchronous.
        """
        if not hasattr(source, "__aiter__"):
            raise TypeError(
                f"source {source!r} cannot be iterated with `async for`; it takes an asynchronous generator"
            )
        # The application has let this client in, so private events are for it too.
        with answered_with(headers):
            subscription = Subscription.of([topic], private=True) if topic is not None else None
            visit = self._visit(request, subscription, user, grant, data, Dialect.of(**wire))
        response = EventStream(self._engine, visit, headers)
        self.parts.runs.give(visit, source, topic)
        return response

    def _visit(
        self,
        request: Request,
        subscription: Subscription | None,
        user: str | None,
        grant: Grant | None,
        data: Any,
        dialect: Dialect,
        last_event_id: str | None = None,
    ) -> Visit:
        engine = self._engine
        if grant is None:
            grant = Grant(subject=user)
        elif user is not None:
            raise TypeError(f"user={user!r} and a grant are given; the grant's subject is the user")
        elif subscription is not None:
            door = self.parts.door
            subscription = effect(subscription, grant, NOTHING if door is None else door.public)
        grant = grant.asked(engine.wall_clock())
        term = engine.term(grant, from_door=False)
        return Visit.of(
            request.scope, subscription, grant, data=data, last_event_id=last_event_id, term=term, dialect=dialect
        )

    # The HTTP surface, as ASGI applications: to be mounted at any prefix, or served alone.

    @property
    def app(self) -> HubApp:
        """What the world may reach: the stream, publishing with a right, messages, the browser client, probes.

        Raises `ConfigError` if nothing says who may do what.
        """
        return self._surface(Surface.WORLD)

    @property
    def admin_app(self) -> HubApp:
        """What operators may reach, each with the rights of its grant: connections, the pool, numbers, the dashboard.

        Raises `ConfigError` if nothing says who may do what.
        """
        return self._surface(Surface.ADMIN)

    @property
    def dev_app(self) -> HubApp:
        """Everything, and the demo, open to programs of this machine: to develop with. What came through a proxy is
        turned away, for with a proxy on this machine everybody comes from here."""
        return self._surface(Surface.DEVELOPMENT)

    def _surface(self, surface: Surface) -> HubApp:
        if surface not in self._apps:
            parts, door = self.parts, self._door(surface)
            self._apps[surface] = HubApp(
                surface, parts.engine, parts.nodes, parts.revoking, parts.hosts, parts.budget, door, self.lifespan
            )
        return self._apps[surface]

    def _door(self, surface: Surface) -> Door:
        if surface is Surface.DEVELOPMENT:
            return Door([Developer()], wall_clock=clock.wall_clock)
        if self.parts.door is None:
            raise ConfigError(NOTHING_SAYS_WHO)
        return self.parts.door

    @property
    def tokens(self) -> Tokens:
        """What issues tokens: `hub.tokens.issue(subject="u1", subscribe=["users/u1"])`. Raises `ConfigError` without
        `token_keys`."""
        if self.parts.tokens is None:
            raise ConfigError(f"there are no token_keys: {TOKENS_TAKE}")
        return self.parts.tokens

    # Managing.

    @property
    def connections(self) -> Iterator[Connection]:
        """The connections of this process that are open now."""
        return iter(self._engine.connections)

    def connection(self, id: str) -> Connection | None:
        """The connection of this id, if it is open in this process."""
        return self._engine.connections.find(id)

    def kick(self, connection: Connection, seconds: float = KICK_SECONDS) -> None:
        """Send a client away. If its user comes back within `seconds` it is told to stay away (204); without a user,
        one that looks like it is told when to come back.

        Raises `ConnectionReleased` if it has left.
        """
        self.parts.nodes.send_away(connection, seconds)

    async def revoke(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        issued_before: float | None = None,
        issuer: str | None = None,
    ) -> None:
        """Take grants back of which all that is said is true: their streams end on all nodes, and they let nobody in
        any more, also after a restart, for as long as a token may live.

        `revoke(subject="u1", issued_before=time.time())` logs a user out everywhere: what is issued later counts. One
        that does not say when it was issued counts as issued when it was presented. Raises `ValueError` without a
        subject and a token's id, `RevocationsFull`, and `BrokerError` if the broker does not keep it.
        """
        now = self._engine.wall_clock()
        revocation = Revocation.of(
            subject=subject,
            issuer=issuer,
            token_id=token_id,
            issued_before=issued_before,
            now=now,
            max_token_age=self.config.access.max_token_age,
        )
        await self.parts.revoking.revoke(revocation)

    def resize(self, size: int) -> None:
        """Change the number of slots of this process. New ones go to waiters at once; surplus ones go as their clients
        leave. Many thousands come, or go, over the next turns of the event loop. Raises `ConfigError`, also for more
        than `max_size` or file descriptors allow, and `PoolClosed`."""
        self._engine.resize(size)

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Take no more clients and send those that are here away, evenly over `seconds`."""
        self._engine.pool.drain(self._engine.now(), seconds)

    def stats(self) -> HubStats:
        """The numbers of this moment, frozen."""
        return self._engine.stats()

    # Hooks.

    def on_connect(self, hook: Hook) -> Hook:
        """Call `hook(connection)` when a stream has opened, before its first event. A decorator."""
        self._engine.hooks.add("connect", hook)
        return hook

    def on_disconnect(self, hook: Hook) -> Hook:
        """Call `hook(connection, reason)` when a client has gone, with a copy of what was known of it (`Departed`). A
        decorator."""
        self._engine.hooks.add("disconnect", hook)
        return hook

    def on_error(self, hook: Hook) -> Hook:
        """Call `hook(connection, error)` when a generator of `stream` has failed and somebody's stream ends for that:
        before it does, so the hook may still send to the client. `connection` is that of the client whose request
        brought the generator; None if it has had no stream. A decorator."""
        self._engine.hooks.add("error", hook)
        return hook

    def on_message(self, hook: Hook) -> Hook:
        """Call `hook(connection, data)` for what a client sends while its stream is open. A decorator."""
        self._engine.hooks.add("message", hook)
        return hook

    def __repr__(self) -> str:
        return f"<Hub {self._engine.node} {self._engine.pool!r}>"
