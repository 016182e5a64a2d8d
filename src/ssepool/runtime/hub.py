"""Hub: pool, feeds and broker put together. Subscribe, publish, send to one, kick, drain."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from random import random
from time import monotonic
from typing import Any, Self, TypeVar

import msgspec

from ssepool.brokers import connect
from ssepool.brokers.base import Stored
from ssepool.config import HubConfig
from ssepool.core.event import Entry, Event, encode
from ssepool.core.feed import Feed
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason, SlotState
from ssepool.core.topics import Subscription, check_topic
from ssepool.errors import InvalidTopic, PoolClosed
from ssepool.runtime import frames
from ssepool.runtime.admission import Reply
from ssepool.runtime.asgi import EventStream
from ssepool.runtime.bans import Bans
from ssepool.runtime.cluster import Cluster
from ssepool.runtime.connection import Connection
from ssepool.runtime.delivery import Delivery
from ssepool.runtime.feeds import Feeds
from ssepool.runtime.hooks import Hooks
from ssepool.runtime.link import Link
from ssepool.runtime.log import Log
from ssepool.runtime.monitor import Monitor
from ssepool.runtime.nodes import Nodes
from ssepool.runtime.production import Productions
from ssepool.runtime.reaper import Reaper
from ssepool.runtime.signals import before_others
from ssepool.runtime.stats import HubStats
from ssepool.runtime.streamer import AVAILABLE, Streamer
from ssepool.runtime.tasks import Tasks
from ssepool.runtime.visit import Request, Visit, ip_of, last_event_id

Hook = TypeVar("Hook", bound=Callable[..., Any])

KICK_SECONDS = 30.0
"""How long a kicked client is told to stay away, if nobody says otherwise."""

GOODBYE = 1.0
"""Seconds that streams have for their last words when the hub closes."""


class Hub:
    """The hub: `async with Hub() as hub`, or `hub.lifespan` given to an application.

    All calls belong to the event loop that opened it; from other threads use `loop.call_soon_threadsafe`.
    """

    def __init__(self, config: HubConfig | None = None) -> None:
        """Nothing is opened yet. Raises `ConfigError` for a broker that is not known."""
        self.config = config or HubConfig()
        self.node = secrets.token_hex(3)
        """Names this process in connection ids."""
        self.secret = secrets.token_bytes(32)
        self.pool = Pool(self.config.pool, jitter=random)
        self.broker = connect(self.config)
        self.log = Log(self.broker, self._dispatch, self._lost, self._room)
        self.streamer: Streamer | None = None
        self.delivery: Delivery
        self.feeds: Feeds
        self._reaper: Reaper | None = None
        self._monitor: Monitor | None = None
        self.tasks = Tasks()
        self.hooks = Hooks(self.tasks)
        self.bans = Bans()
        self.cluster = Cluster(self)
        self.nodes = Nodes(self, self.cluster)
        self._productions = Productions(self)
        self._emptied: asyncio.Event
        self._opened_at = 0.0
        self._published = self._delivered = self._bytes = self._skipped = 0

    # Opening and closing.

    async def open(self) -> None:
        """Make the slots and start: the broker, the streamer, the reaper.

        Raises `PoolClosed` the second time, `BrokerError` if the broker is not there, and `ConfigError` if it will not
        do.
        """
        self.pool.open()
        self._opened_at = self.now()
        self._emptied = asyncio.Event()
        self.delivery = Delivery(self.config)
        self.feeds = Feeds(self.delivery, self.now)
        await self._open_log()
        if AVAILABLE and self.config.detach:
            self.streamer = Streamer()
        await self.cluster.open()
        self._reaper = Reaper(self)
        self._monitor = Monitor(self)

    async def close(self) -> None:
        """Send all clients away with the reason `shutdown`, fail all waiters, and stop."""
        if self._reaper is None:
            return
        self.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                while self._held():
                    self._emptied.clear()
                    await self._emptied.wait()
        self.abort()
        self._reaper.stop()
        self._reaper = None
        if self._monitor is not None:
            self._monitor.stop()
        if self.streamer is not None:
            self.streamer.close()
            self.streamer = None
        await self.tasks.close(GOODBYE)
        await self.cluster.close()
        await self.log.close()

    async def _open_log(self) -> None:
        try:
            await self.log.open()
        except BaseException:
            self.pool.close()
            await self.log.close()
            raise

    def shutdown(self) -> None:
        """Begin to close: refuse waiters, say goodbye on every stream. Returns at once; `close` does the rest."""
        self._productions.cancel()
        if self.pool.state is PoolState.CLOSED:
            return
        for slot in self.pool.close():
            self.evict(slot, Reason.SHUTDOWN)
        if self._held():
            # Servers wait for their connections before they end the lifespan: stalled ones must not hold them up.
            asyncio.get_running_loop().call_later(GOODBYE, self.abort)

    def abort(self) -> None:
        """Cut every stream, whatever is still to be written."""
        for slot in self._held():
            if slot.holder is not None:
                slot.holder.end(Reason.SHUTDOWN)

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
        if self.pool.state is PoolState.NEW:  # the stand-alone server has opened it
            await self.open()
        try:
            with chained:
                yield
        finally:
            await self.close()

    @property
    def unready(self) -> str | None:
        """Why this hub takes no clients, or does not get what is published; None if all is well."""
        state = self.pool.state
        if state is not PoolState.OPEN:
            return f"the pool is {state.value}; it takes clients only while it is open"
        failing = self.log.failing
        return None if failing is None else f"the broker is away: {failing}"

    def check_open(self) -> None:
        """Raise `PoolClosed` if the hub was never opened: a mistake in the program, not a state of operation."""
        if self.pool.state is PoolState.NEW:
            raise PoolClosed(
                "the hub is not open: give your application lifespan=hub.lifespan, or use `async with hub`"
            )

    # Publishing.

    async def publish(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        type: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        private: bool = False,
    ) -> str:
        """Publish an event to a topic or several, and return its id. Waits while delivery is far behind.

        `retry` is in milliseconds. Raises `InvalidEvent`, `InvalidTopic`, `BrokerError` or `PoolClosed`.
        """
        event = Event(data, (topic,) if isinstance(topic, str) else tuple(topic), type, id, retry, private)
        return (await self.publish_many([event]))[0]

    async def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish a batch in order, all of it or nothing, and return the ids."""
        batch = list(events)
        self._check_publishable(batch)
        await self.delivery.room()
        return await self.log.publish(batch)

    async def store(self, events: Sequence[Event]) -> list[Stored]:
        """As `publish_many`, and says at which positions of the broker's order the events are."""
        self._check_publishable(events)
        await self.delivery.room()
        return await self.log.store(events)

    def publish_nowait(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        type: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        private: bool = False,
    ) -> str:
        """As `publish`, at once; for brokers that keep events in memory. Does not wait for slow delivery."""
        event = Event(data, (topic,) if isinstance(topic, str) else tuple(topic), type, id, retry, private)
        self._check_publishable((event,))
        return self.log.publish_nowait((event,))[0]

    def publish_at_once(self, events: Sequence[Event]) -> list[str] | None:
        """As `publish_many` where that has nothing to wait for; None where it has, and then nothing has been done."""
        if not self.log.complete or not self.delivery.has_room:
            return None
        self._check_publishable(events)
        return self.log.publish_nowait(events)

    def answer(self, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Reply | None:
        """What a plain POST is answered, if that needs no waiting; None: nothing has been done, the routes have it."""
        return None

    def announce(self, topic: str, data: Any, *, type: str) -> None:
        """Send an event to those who listen now: without an id, not kept for replay. `type` may be the hub's own."""
        if feeds := self.listeners(check_topic(topic)):
            text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
            self.feeds.announce(feeds, (topic,), encode(text, type=type))

    def listeners(self, topic: str) -> list[Feed]:
        """The feeds that get what is published to a topic; empty if nobody listens."""
        return self.feeds.listeners(topic)

    def _check_publishable(self, events: Sequence[Event]) -> None:
        if self.pool.state is not PoolState.OPEN:
            self.check_open()
            if self.pool.state is PoolState.CLOSED:
                raise PoolClosed("the hub is closed")
        for event in events:
            if not event.topics:
                raise InvalidTopic("an event needs at least one topic to be published to")

    def _dispatch(self, entries: Sequence[Entry]) -> None:
        self.feeds.dispatch(entries)
        self._published += len(entries)

    def _lost(self) -> None:
        self.feeds.announce_to_all(frames.gap(None, None, "broker_lost"))

    async def _room(self) -> None:
        await self.delivery.room()

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
        topics, so it also gets their private events, unless `private` is false. Raises `InvalidTopic`.
        """
        subscription = Subscription.of(topics, patterns, private)
        return EventStream(self, self._visit(request, subscription, user, data, last_event_id))

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

        With `topic` the events are published there as well, and the generator goes on if the client leaves: whoever
        asks again gets the rest (with `Last-Event-ID`) or everything (without), from the same run; its own `source`
        is then closed unused. Once the generator has ended and `history_age` has passed, the topic may be used anew.
        Raises `InvalidTopic`, and `TypeError` for a source that is not asynchronous.
        """
        if not hasattr(source, "__aiter__"):
            raise TypeError(
                f"source {source!r} cannot be iterated with `async for`; it takes an asynchronous generator"
            )
        # The application has let this client in, so private events are for it too.
        subscription = Subscription.of([topic], private=True) if topic is not None else None
        visit = self._visit(request, subscription, user, data, None)
        self._productions.give(visit, source, topic)
        return EventStream(self, visit)

    def _visit(
        self,
        request: Request,
        subscription: Subscription | None,
        user: str | None,
        data: Any,
        last_id: str | None,
    ) -> Visit:
        scope = request.scope
        return Visit(
            subscription=subscription,
            ip=ip_of(scope),
            user=user,
            data=data,
            last_event_id=last_id or last_event_id(scope),
        )

    def recognise(self, scope: Mapping[str, Any]) -> Visit | None:
        """What a plain GET asks for, if it is a subscription to this hub that needs nothing but a slot."""
        return None

    def released(self, connection: Connection, slot: Slot, visit: Visit, reason: Reason) -> None:
        """A connection's link has ended: free its slot and drop what only it used."""
        link = slot.holder
        was_open = slot.state is not SlotState.RESERVED
        reason = slot.reason or reason
        self._delivered += slot.events
        self._bytes += slot.bytes
        self._skipped += slot.skipped
        if slot.feed is not None:
            self.feeds.drop(slot.feed)
        if visit.production is not None:
            visit.production.unattend(link)
        self.pool.release(slot, self.now(), reason)
        if was_open:
            self.hooks.start("disconnect", connection, reason.value)
        if self.pool.count(SlotState.FREE) == len(self.pool.slots):
            self._emptied.set()

    # Managing.

    @property
    def connections(self) -> Iterator[Connection]:
        """The connections that are open now."""
        for slot in list(self.pool.slots):
            if slot.state in (SlotState.OPEN, SlotState.CLOSING):
                yield slot.holder.owner

    def connection(self, id: str) -> Connection | None:
        """The connection of this id, if it is open."""
        node, _, rest = id.partition("-")
        index, _, generation = rest.partition("-")
        if node != self.node or not (index.isascii() and index.isdigit() and len(index) < 8):
            return None
        slot = self.pool.slot(int(index))
        if slot is None or slot.state not in (SlotState.OPEN, SlotState.CLOSING) or str(slot.generation) != generation:
            return None
        found: Connection = slot.holder.owner
        return found

    def kick(self, connection: Connection, seconds: float = KICK_SECONDS) -> None:
        """Send a client away. One that looks like it and comes back within `seconds` is told to stay away (204)."""
        if seconds > 0:
            likeness = connection.visit.likeness
            self.bans.add(likeness, self.now() + seconds)
            self.cluster.spread("ban", {"likeness": likeness, "seconds": seconds})
        connection.close(Reason.KICKED.value)

    def resize(self, size: int) -> None:
        """Change the pool's size; see `Pool.resize`."""
        self.pool.resize(size, self.now())

    def drain(self, seconds: float = 30.0) -> None:
        """Take no more clients and send those that are here away, evenly over `seconds`."""
        self.pool.drain(self.now(), seconds)

    def evict(self, slot: Slot, reason: Reason) -> None:
        """Free a slot that a client holds."""
        link: Link | None = slot.holder
        if link is None:
            return  # its request is about to take it, and looks at the pool's state then
        if slot.state is SlotState.RESERVED or reason is Reason.SEND_TIMEOUT:
            if slot.state is SlotState.OPEN:
                self.pool.closing(slot, reason, self.now())
            link.end(reason)
        else:
            link.close(reason, retry=self.delivery.retry())

    def expire(self, now: float) -> None:
        """Forget what is too old. The reaper calls this."""
        self.log.expire()
        self.bans.expire(now)
        self._productions.expire(now)

    # Hooks.

    def on_connect(self, hook: Hook) -> Hook:
        """Call `hook(connection)` when a stream has opened, before its first event. A decorator."""
        self.hooks.add("connect", hook)
        return hook

    def on_disconnect(self, hook: Hook) -> Hook:
        """Call `hook(connection, reason)` when a client has gone; only `connection.id` is left then. A decorator."""
        self.hooks.add("disconnect", hook)
        return hook

    def on_message(self, hook: Hook) -> Hook:
        """Call `hook(connection, data)` for what a client sends while its stream is open. A decorator."""
        self.hooks.add("message", hook)
        return hook

    async def receive(self, connection: Connection, data: Any) -> None:
        """Hand a client's own data to the `on_message` hooks. Raises `ConnectionReleased`."""
        connection.touch(self.now())
        await self.hooks.run("message", connection, data)

    # What it says of itself.

    def stats(self) -> HubStats:
        """The numbers of this moment, frozen."""
        held = self._held()
        history = self.log.window.kept
        return HubStats(
            node=self.node,
            pool=self.pool.stats(),
            events_published=self._published,
            events_delivered=self._delivered + sum(slot.events for slot in held),
            events_skipped=self._skipped + sum(slot.skipped for slot in held),
            bytes_sent=self._bytes + sum(slot.bytes for slot in held),
            feeds=len(self.feeds) if self._opened_at else 0,
            history_events=history.events,
            history_bytes=history.bytes,
            uptime=self.now() - self._opened_at if self._opened_at else 0.0,
        )

    def now(self) -> float:
        """The hub's clock: seconds, monotonic."""
        return monotonic()

    def _held(self) -> list[Slot]:
        return [slot for slot in self.pool.slots if slot.state is not SlotState.FREE]

    def __repr__(self) -> str:
        return f"<Hub {self.node} {self.pool!r}>"
