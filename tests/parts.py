"""Parts of a hub for tests that build their subject without one: a link that writes into memory, what links share, a
running engine, a client that has its slot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from ssepool.config import HubConfig, PoolConfig
from ssepool.core.chunk import chunk
from ssepool.core.decoder import Decoder
from ssepool.core.event import Entry
from ssepool.core.frames import DIALECT, Dialect
from ssepool.core.grant import ANYBODY, STRANGER, Grant
from ssepool.core.pool import Pool
from ssepool.core.report import BrokerReport, NodeReport
from ssepool.core.rights import EVERYTHING
from ssepool.core.slot import Slot
from ssepool.core.states import LinkState, Reason, WaiterState
from ssepool.core.stats import HubStats
from ssepool.core.topics import OWN_TOPICS, Subscription
from ssepool.core.visit import Visit
from ssepool.http.access.asking import Asking
from ssepool.http.access.authorize import Authorize
from ssepool.http.access.door import Door
from ssepool.http.access.everybody import Everybody
from ssepool.http.app import HubApp, Surface
from ssepool.hub import Hub
from ssepool.runtime.admission.admission import welcome
from ssepool.runtime.connections import Connection
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.delivery import Delivery
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.streams.link import Link, LinkContext

TO_NEWS = Subscription.of(["news"])
NEWS = Visit(grant=STRANGER, subscription=TO_NEWS)

QUIET = PoolConfig(size=1000, heartbeat_interval=1e6, reap_interval=1e6)
"""Nothing happens by itself."""


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Let others work until the condition holds; fail after the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(config: HubConfig | None = None, **options: Any) -> AsyncIterator[Engine]:
    """An engine that is open. `options` are those of `Engine`."""
    engine = Engine(config or HubConfig(pool=QUIET, detach=False), **options)
    await engine.open()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.connections.abort()
        await engine.cut()
        await engine.close()


class Applicant:
    """What waits for a slot, and remembers what it was told."""

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.outcome: WaiterState | None = None
        self.told: list[tuple[int, int]] = []
        """Positions in the queue, and how many waited."""

    def granted(self, slot: Slot) -> bool:
        self.slot = slot
        return True

    def failed(self, outcome: WaiterState) -> None:
        self.outcome = outcome

    def announce(self, position: int, waiting: int, now: float) -> None:
        self.told.append((position, waiting))


class Paper(Link):
    """A link that writes into memory, as much as it has room for."""

    __slots__ = ("room_left", "written")

    def __init__(self, context: LinkContext, dialect: Dialect = DIALECT) -> None:
        super().__init__(context, dialect)
        self.written = b""
        self.room_left = 10**9
        self.become(LinkState.OPEN)

    def flush(self) -> None:
        if self.stalled or self.ended:
            return
        while (item := self.take()) is not None:
            data, start = bytes(item[0]), item[1]
            taken = min(len(data), self.room_left)
            self.room_left -= taken
            self.written += data[:taken]
            if self.slot is not None:
                self.slot.bytes += taken
            if taken < len(data):
                if start < 0:
                    self.rest = memoryview(data)[taken:]
                else:
                    assert self.slot is not None
                    assert self.feed is not None
                    reached = self.slot.cursor
                    self.slot.cursor, rest = self.feed.split(start, taken, self.chunked)
                    self.slot.events -= reached - self.slot.cursor
                    self.rest = rest or None
                self.stall()
                return
        if self.state is LinkState.ENDING:
            self.end(Reason.COMPLETED)

    def hang_up(self, before: LinkState) -> None:
        pass

    def make_room(self, room: int = 10**9) -> None:
        """The transport takes so many bytes more."""
        self.room_left = room
        self.go_on()
        self.flush()

    def events(self) -> list[str]:
        """Data of the messages so far that are not the hub's own, whose types are shown instead."""
        messages = Decoder().feed(self.written)
        return [message.type if message.type.startswith("ssepool.") else message.data for message in messages]


class Streams:
    """What links share, where there is no engine: a pool, and feeds with their delivery."""

    RETRY = 4321
    """Milliseconds after which clients that are sent away are to come back."""

    def __init__(self, *, now: Callable[[], float] = lambda: 0.0, **settings: Any) -> None:
        """`settings` are those of the hub."""
        config = HubConfig(pool=PoolConfig(size=100), **settings)
        self.now = now
        self.pool = Pool(config.pool)
        self.pool.open()
        self.delivery = Delivery(config, now)
        self.feeds = Feeds(self.delivery, now)
        self.links = LinkContext(self.pool, self.delivery, now, lambda: self.RETRY, config.lag_policy)

    def give_slot(self, link: Link) -> Slot:
        """A slot for a link, whose stream is open from here on."""
        slot = self.pool.acquire(self.now(), Applicant())
        assert isinstance(slot, Slot)
        self.pool.start(slot, self.now())
        slot.holder, link.slot = link, slot
        return slot

    def paper(self, subscription: Subscription = TO_NEWS) -> Paper:
        """A client that is up to date."""
        link = Paper(self.links)
        self.give_slot(link)
        self.feeds.join(link, subscription)
        link.flush()
        return link

    def publish(self, *data: str, topic: str = "news", private: bool = False) -> None:
        """Give events to the feeds."""
        self.feeds.dispatch(
            [Entry(0, None, (topic,), chunk(b"data: %s\n\n" % each.encode()), private) for each in data]
        )


def bound(engine: Engine, link: Link, visit: Visit = NEWS) -> Slot:
    """Give a link a reserved slot; its stream is to be opened with `welcome`."""
    slot = engine.pool.acquire(engine.now(), Applicant())
    assert isinstance(slot, Slot)
    engine.connections.bind(slot, link, visit)
    return slot


def connection_of(link: Link) -> Connection:
    """The connection that a link belongs to."""
    assert isinstance(link.owner, Connection)
    return link.owner


async def opened(engine: Engine, visit: Visit = NEWS) -> tuple[Paper, Slot]:
    """A client whose stream is open."""
    link = Paper(engine.links)
    slot = bound(engine, link, visit)
    await welcome(engine, connection_of(link), link, visit)
    return link, slot


def report_of(pool: Pool, *, node: str = "abc", published: int = 0, uptime: float = 1.0) -> NodeReport:
    """The numbers of a process that has this pool and has done next to nothing."""
    stats = HubStats(node, pool.stats(), published, 0, 0, 0, 0, 0, 0, uptime)
    broker = BrokerReport("memory://", published, 0, None)
    return NodeReport.of(stats, host="here", pid=1, worker=None, broker=broker, cells=pool.cells())


async def delivered(engine: Engine | Streams) -> None:
    """Return when delivery has nothing to do."""
    await until(lambda: not engine.delivery._rounds)


def check_promises(link: Link) -> None:
    """What each state of a link promises."""
    if link.state is LinkState.NEW:
        assert link.feed is None
        assert link.replay is None
    elif link.state is LinkState.FOLLOWING:
        assert link.feed is not None
        assert (link.replay, link.rest, link.finishing) == (None, None, None)
        assert not (link.outbox or link.held or link.stalled)
    elif link.state is LinkState.ENDING:
        assert (link.feed, link.replay) == (None, None)
    elif link.state is LinkState.ENDED:
        assert (link.feed, link.replay, link.rest, link.outbox, link.held, link.owner, link.slot) == (None,) * 7
    assert (link.finishing is not None) == (link.state is LinkState.FINISHING) or link.is_leaving
    assert link.feed is None or link in link.feed.members


def open_app(hub: Hub, door: Door | None = None) -> HubApp:
    """All that a hub has, for whoever reaches it, also through a proxy; or for whom `door` lets in."""
    parts, door = hub.parts, door or Door([Everybody()], wall_clock=time.time)
    return HubApp(
        Surface.DEVELOPMENT, parts.engine, parts.nodes, parts.revoking, parts.hosts, parts.budget, door, hub.lifespan
    )


def public_app(hub: Hub) -> HubApp:
    """As `open_app`, but who only reads is a stranger: private events are for those whom an application lets in."""
    return open_app(hub, Door([Authorize(_by_action)], EVERYTHING, wall_clock=time.time))


def _by_action(asking: Asking) -> Grant:
    wants_own = any(topic.startswith(OWN_TOPICS) for topic in asking.topics)
    return STRANGER if asking.action == "subscribe" and not wants_own else ANYBODY
