"""Hub: the public face of its `Parts`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Self, TypeVar, Unpack

from ssepool.config import HubConfig
from ssepool.core.bans import KICK_SECONDS
from ssepool.core.event import Event, EventFields
from ssepool.core.grant import Grant
from ssepool.core.pool import DRAIN_SECONDS
from ssepool.core.states import PoolState
from ssepool.core.stats import HubStats
from ssepool.core.topics import Subscription
from ssepool.core.visit import Request, Visit
from ssepool.errors import ConfigError
from ssepool.http.access.authorize import AuthorizeFunction
from ssepool.http.access.door import Door
from ssepool.http.access.everybody import Developer
from ssepool.http.app import HubApp, Surface
from ssepool.parts import Parts
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.cluster.monitor import Monitor
from ssepool.runtime.connections import Connection
from ssepool.runtime.reaper import Reaper
from ssepool.runtime.signals import before_others

NOTHING_SAYS_WHO = """\
nothing says who may do what, and nothing is open by itself. Write one of

    Hub(authorize=function)                                            # a function of yours, asked about each request
    Hub(HubConfig(access=AccessConfig(public_topics=["news"])))        # what everybody may read
    Hub(HubConfig(access=AccessConfig(authorize_url="http://...")))    # your application, asked over HTTP
    hub.dev_app                                                        # everything, for programs of this machine alone

On the command line these are --public-topics news, --authorize-url http://..., and --dev. See docs/access.md"""
"""What `Hub.app` says where it would have to let everybody in or nobody."""

Hook = TypeVar("Hook", bound=Callable[..., Any])


class Hub:
    """The hub: `async with Hub() as hub`, or `hub.lifespan` given to an application.

    All calls belong to the event loop that opened it; from other threads use `loop.call_soon_threadsafe`.
    """

    def __init__(self, config: HubConfig | None = None, *, authorize: AuthorizeFunction | None = None) -> None:
        """Nothing is opened yet. `authorize` is asked about each request to `app` and `admin_app`, and returns its
        `Grant`, or None for who is not known. Raises `ConfigError` for settings that cannot be obeyed."""
        self.config = config or HubConfig()
        """The settings."""
        self.parts = Parts.of(self.config, authorize)
        """What the hub is made of. For servers and tests; it may change with any version."""
        self._engine = self.parts.engine
        self._reaper: Reaper | None = None
        self._monitor: Monitor | None = None
        self._learning: asyncio.Task[None] | None = None

    # Opening and closing.

    async def open(self) -> None:
        """Make the slots and start: the broker, the streamer, the reaper.

        Raises `PoolClosed` the second time, `BrokerError` if the broker is not there, and `ConfigError` if it will not
        do.
        """
        engine, parts = self._engine, self.parts
        await engine.open()
        await parts.cluster.open()
        self._learning = engine.tasks.start(parts.nodes.learn_bans())
        self._reaper = Reaper(engine.pool, evict_all=engine.connections.evict_all, expire=self._expire, now=engine.now)
        self._monitor = Monitor(parts.nodes, engine.feeds, engine.tasks)

    def shutdown(self) -> None:
        """Begin to close: refuse waiters, say goodbye on every stream. Returns at once; `close` does the rest."""
        self.parts.runs.cancel()
        if self._learning is not None:
            self._learning.cancel()
        self._engine.shutdown()

    async def close(self) -> None:
        """Send all clients away with the reason `shutdown`, fail all waiters, and stop."""
        reaper, self._reaper = self._reaper, None
        if reaper is None or self._monitor is None:
            return
        self.shutdown()
        await self._engine.cut()
        reaper.stop()
        self._monitor.stop()
        if self.parts.authorize_url is not None:
            await self.parts.authorize_url.close()
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

        SIGTERM and SIGINT also go to the hub, before the server's own handlers (`handle_signals`).
        """
        chained = before_others(self.shutdown) if self.config.handle_signals else contextlib.nullcontext()
        if self._engine.pool.state is PoolState.NEW:  # the stand-alone server has opened it
            await self.open()
        try:
            with chained:
                yield
        finally:
            await self.close()

    def _expire(self, now: float) -> None:
        self._engine.expire(now)
        self.parts.runs.expire(now)

    # Publishing.

    async def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to a topic or several, and return its id. Waits while delivery is far behind.

        `fields` are `type`, `id`, `retry` (milliseconds) and `private`, as `Event` has them. Raises `InvalidEvent`,
        `InvalidTopic`, `BrokerError` or `PoolClosed`.
        """
        return (await self.publish_many([Event.of(topic, data, **fields)]))[0]

    async def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish a batch in order, all of it or nothing, and return the ids. Raises as `publish` does."""
        return await self._engine.publish_many(events)

    def publish_nowait(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """As `publish`, at once; for brokers that keep events in memory. Does not wait for slow delivery.

        Raises `NotImplementedError` if the broker is not in this process.
        """
        return self._engine.publish_nowait((Event.of(topic, data, **fields),))[0]

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
    ) -> EventStream:
        """A response that streams these topics and patterns to the client of `request`, through the pool.

        `user` and `data` are kept on the connection. The application has decided that this client may have these
        topics, so it also gets their private events, unless `private` is false. `last_event_id` wins over what the
        client asks for. Raises `InvalidTopic`.
        """
        subscription = Subscription.of(topics, patterns, private)
        visit = Visit.of(request.scope, subscription, Grant(subject=user), data=data, last_event_id=last_event_id)
        return EventStream(self._engine, visit)

    def stream(
        self,
        request: Request,
        source: AsyncIterable[Any],
        *,
        topic: str | None = None,
        user: str | None = None,
        data: Any = None,
    ) -> EventStream:
        """A response that sends what an asynchronous generator yields, data or `Event`s, and then ends.

        With `topic` the events are published there as well, and the generator goes on if the client leaves. A client
        that asks again gets the rest (with `Last-Event-ID`) or everything (without), from the same run; its own
        `source` is then closed unused. Once the generator has ended and `history_age` has passed, the topic may be used
        anew. Raises `InvalidTopic`, and `TypeError` for a source that is not asynchronous.
        """
        if not hasattr(source, "__aiter__"):
            raise TypeError(
                f"source {source!r} cannot be iterated with `async for`; it takes an asynchronous generator"
            )
        # The application has let this client in, so private events are for it too.
        subscription = Subscription.of([topic], private=True) if topic is not None else None
        visit = Visit.of(request.scope, subscription, Grant(subject=user), data=data)
        self.parts.runs.give(visit, source, topic)
        return EventStream(self._engine, visit)

    # The HTTP surface, as ASGI applications: to be mounted at any prefix, or served alone.

    @cached_property
    def app(self) -> HubApp:
        """What the world may reach: the stream, publishing with a right, messages, the browser client, probes.

        Raises `ConfigError` if nothing says who may do what.
        """
        return self._surface(Surface.WORLD, self.parts.door)

    @cached_property
    def admin_app(self) -> HubApp:
        """What operators may reach, each with the rights of its grant: connections, the pool, numbers, the dashboard.

        Raises `ConfigError` if nothing says who may do what.
        """
        return self._surface(Surface.ADMIN, self.parts.door)

    @cached_property
    def dev_app(self) -> HubApp:
        """Everything, and the demo, open to programs of this machine: to develop with. What came through a proxy is
        turned away, for with a proxy on this machine everybody comes from here."""
        return self._surface(Surface.DEVELOPMENT, Door([Developer()], wall_clock=time.time))

    def _surface(self, surface: Surface, door: Door | None) -> HubApp:
        if door is None:
            raise ConfigError(NOTHING_SAYS_WHO)
        parts = self.parts
        return HubApp(surface, self._engine, parts.nodes, parts.hosts, parts.budget, door, self.lifespan)

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
        """Call `hook(connection, reason)` when a client has gone; only `connection.id` is left then. A decorator."""
        self._engine.hooks.add("disconnect", hook)
        return hook

    def on_message(self, hook: Hook) -> Hook:
        """Call `hook(connection, data)` for what a client sends while its stream is open. A decorator."""
        self._engine.hooks.add("message", hook)
        return hook

    def __repr__(self) -> str:
        return f"<Hub {self._engine.node} {self._engine.pool!r}>"
