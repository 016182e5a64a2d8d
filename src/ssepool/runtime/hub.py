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
from ssepool.config import HubConfig
from ssepool.core.event import Event, encode
from ssepool.core.feed import Entry, Feed
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason, SlotState
from ssepool.core.topics import Subscription, TopicIndex, check_topic
from ssepool.errors import InvalidTopic, PoolClosed
from ssepool.runtime import frames
from ssepool.runtime.asgi import EventStream
from ssepool.runtime.bans import Bans
from ssepool.runtime.connection import Connection
from ssepool.runtime.delivery import Delivery
from ssepool.runtime.hooks import Hooks
from ssepool.runtime.link import Link
from ssepool.runtime.monitor import Monitor
from ssepool.runtime.production import Production, Productions
from ssepool.runtime.reaper import Reaper
from ssepool.runtime.replay import Replay
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
        self.position = 0
        """The position of the newest entry that feeds have been given."""
        self.streamer: Streamer | None = None
        self.delivery: Delivery
        self._reaper: Reaper | None = None
        self._monitor: Monitor | None = None
        self._index: TopicIndex[Feed] = TopicIndex()
        self._feeds: dict[Subscription, Feed] = {}
        self.tasks = Tasks()
        self._hooks = Hooks(self.tasks)
        self.bans = Bans()
        self._productions = Productions(self)
        self._emptied: asyncio.Event
        self._opened_at = 0.0
        self._published = self._delivered = self._bytes = self._skipped = 0

    # Opening and closing.

    async def open(self) -> None:
        """Make the slots and start: the reaper, the streamer, the broker. Raises `PoolClosed` the second time."""
        self.pool.open()
        self._opened_at = self.now()
        self._emptied = asyncio.Event()
        self.delivery = Delivery(self.config)
        if AVAILABLE and self.config.detach:
            self.streamer = Streamer()
        await self.broker.open(self._dispatch)
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
        await self.broker.close()

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
        await self.open()
        try:
            with chained:
                yield
        finally:
            await self.close()

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
        return await self.broker.append(batch)

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
        return self.broker.append_nowait((event,))[0]

    def announce(self, topic: str, data: Any, *, type: str) -> None:
        """Send an event to those who listen now: without an id, not kept for replay. `type` may be the hub's own."""
        if feeds := self.listeners(check_topic(topic)):
            text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
            entry = Entry(0, None, (topic,), encode(text, type=type))
            for feed in feeds:
                self.delivery.append(feed, entry, self.now())

    def listeners(self, topic: str) -> list[Feed]:
        """The feeds that get what is published to a topic; empty if nobody listens."""
        return self._index.match((topic,), False)

    def _check_publishable(self, events: Sequence[Event]) -> None:
        self.check_open()
        if self.pool.state is PoolState.CLOSED:
            raise PoolClosed("the hub is closed")
        for event in events:
            if not event.topics:
                raise InvalidTopic("an event needs at least one topic to be published to")

    def _dispatch(self, entries: Sequence[Entry]) -> None:
        """Give entries, in the broker's order, to the feeds that want them."""
        now = self.now()
        match, append = self._index.match, self.delivery.append
        for entry in entries:
            for feed in match(entry.topics, entry.private):
                append(feed, entry, now)
        self._published += len(entries)
        self.position = entries[-1].position if entries else self.position

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

    def connect(self, slot: Slot, link: Link, visit: Visit) -> Connection:
        """Bind a reserved slot, a link and a request together. The slot is freed when the link ends."""
        if visit.subscription is not None and (feed := self._feeds.get(visit.subscription)):
            visit.subscription = feed.subscription  # equal, but one object for all instead of one for each
        connection = Connection(self, slot, link, visit)
        slot.holder = link
        link.slot = slot
        link.owner = connection
        return connection

    async def welcome(self, connection: Connection, link: Link, visit: Visit) -> None:
        """Open the stream: the first event, the hooks, what the client missed, and then what is live."""
        if not link.ended and self._begin(connection, link):  # a task that was made for this may come too late
            await self._hooks.run("connect", connection)
            self._go_on(connection, link, visit)

    def welcome_now(self, connection: Connection, link: Link, visit: Visit) -> None:
        """As `welcome`, for callers that cannot wait: a task is made only if there are hooks to wait for."""
        if "connect" in self._hooks:
            self.tasks.start(self.welcome(connection, link, visit))
        elif self._begin(connection, link):
            self._go_on(connection, link, visit)

    def _begin(self, connection: Connection, link: Link) -> bool:
        assert link.slot is not None
        self.pool.start(link.slot, self.now())
        if link.stalled:  # already before it had a slot to be judged by
            self.pool.block(link.slot, self.now())
        if self.pool.state is not PoolState.OPEN:  # it began to drain or close while the head was on its way
            self.evict(link.slot, Reason.DRAINED if self.pool.state is PoolState.DRAINING else Reason.SHUTDOWN)
            return False
        link.push(frames.opened(connection.id, connection.token, self.node))
        return True

    def _go_on(self, connection: Connection, link: Link, visit: Visit) -> None:
        if link.ended or link.ending:
            return
        production = visit.production
        if production is not None:
            production.attend(connection, link)
        if visit.subscription is not None:
            self._join_or_replay(link, visit, production)
        link.flush()

    def _join_or_replay(self, link: Link, visit: Visit, production: Production | None) -> None:
        subscription = visit.subscription
        assert subscription is not None
        position = self.position
        if visit.last_event_id is not None:
            found = self.broker.find(visit.last_event_id)
            position = found.position
            if not found.complete:
                entries = self.broker.read(position, most=1)
                resumed = entries[0].id if entries else None
                link.push(frames.gap(visit.last_event_id, resumed, "unknown_id"))
        elif production is not None:
            position = production.start
        if position < self.position:
            link.replay = Replay(self.broker, subscription, position, lambda: self.position, self._join)
        else:
            self._join(link, subscription)

    def _join(self, link: Link, subscription: Subscription) -> None:
        feed = self._feeds.get(subscription)
        if feed is None:
            feed = self._feeds[subscription] = Feed(subscription)
            self._index.add(subscription, feed)
        link.follow(feed)

    def released(self, connection: Connection, slot: Slot, visit: Visit, reason: Reason) -> None:
        """A connection's link has ended: free its slot and drop what only it used."""
        link = slot.holder
        was_open = slot.state is not SlotState.RESERVED
        reason = slot.reason or reason
        self._delivered += slot.events
        self._bytes += slot.bytes
        self._skipped += slot.skipped
        feed = slot.feed
        if feed is not None and not feed.members and self._feeds.get(feed.subscription) is feed:
            del self._feeds[feed.subscription]
            self._index.discard(feed.subscription, feed)
        if visit.production is not None:
            visit.production.unattend(link)
        self.pool.release(slot, self.now(), reason)
        if was_open:
            self._hooks.start("disconnect", connection, reason.value)
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
            self.bans.add(connection.visit, self.now() + seconds)
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
        self.broker.expire()
        self.bans.expire(now)
        self._productions.expire(now)

    # Hooks.

    def on_connect(self, hook: Hook) -> Hook:
        """Call `hook(connection)` when a stream has opened, before its first event. A decorator."""
        self._hooks.add("connect", hook)
        return hook

    def on_disconnect(self, hook: Hook) -> Hook:
        """Call `hook(connection, reason)` when a client has gone; only `connection.id` is left then. A decorator."""
        self._hooks.add("disconnect", hook)
        return hook

    def on_message(self, hook: Hook) -> Hook:
        """Call `hook(connection, data)` for what a client sends while its stream is open. A decorator."""
        self._hooks.add("message", hook)
        return hook

    async def receive(self, connection: Connection, data: Any) -> None:
        """Hand a client's own data to the `on_message` hooks. Raises `ConnectionReleased`."""
        connection.touch(self.now())
        await self._hooks.run("message", connection, data)

    # What it says of itself.

    def stats(self) -> HubStats:
        """The numbers of this moment, frozen."""
        held = self._held()
        history = self.broker.history()
        return HubStats(
            node=self.node,
            pool=self.pool.stats(),
            events_published=self._published,
            events_delivered=self._delivered + sum(slot.events for slot in held),
            events_skipped=self._skipped + sum(slot.skipped for slot in held),
            bytes_sent=self._bytes + sum(slot.bytes for slot in held),
            feeds=len(self._feeds),
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
