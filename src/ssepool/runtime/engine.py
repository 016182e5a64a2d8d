"""Engine: what every way in and out of a hub shares. It publishes, and knows whether clients can be taken."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import random

from ssepool import clock
from ssepool.brokers import connect
from ssepool.brokers.base import Broker, Stored
from ssepool.config import HubConfig
from ssepool.core.bans import Bans
from ssepool.core.data import DataEncoder, JSONEncoder
from ssepool.core.event import Event
from ssepool.core.frames import jittered
from ssepool.core.grant import ANYBODY, STRANGER, Grant
from ssepool.core.keys import token_key
from ssepool.core.pool import Pool
from ssepool.core.rates import Rates
from ssepool.core.revocations import Revocations
from ssepool.core.slot import NEVER
from ssepool.core.states import PoolState, Reason
from ssepool.core.stats import HubStats
from ssepool.core.term import ENDLESS, Term, term_of
from ssepool.core.topics import shown
from ssepool.errors import ConfigError, InvalidEvent, InvalidTopic, PoolClosed
from ssepool.runtime.connections import Connections
from ssepool.runtime.files import max_clients
from ssepool.runtime.handover import AVAILABLE
from ssepool.runtime.hooks import Hooks
from ssepool.runtime.streams.delivery import Delivery
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.streams.link import LinkContext
from ssepool.runtime.streams.log import EventLog
from ssepool.runtime.streams.progress import MAX_BEHIND_SECONDS
from ssepool.runtime.streams.slices import Slice, Wakes, in_slices
from ssepool.runtime.streams.socket import Streamer
from ssepool.runtime.tasks import Tasks

STEP_SLOTS = 64
"""Slots that are made or given up between two looks at the clock: some 0.1 ms."""

GOODBYE_SECONDS = 1.0
"""How long streams have for their last words when the hub closes."""

HOOK_SECONDS = 5.0
"""How long the hooks of the clients that are sent away then have: they may still publish."""


class Engine:
    """Pool, log, feeds, delivery and connections of one process, put together.

    Opened with `open`, closed with `shutdown`, `cut` and `close`, in this order. Everything belongs to the event loop
    that opened it.
    """

    is_open = False
    """Whether there can be published: from the opening to the end of the closing, when no stream is open any more."""
    _opened_at: float | None = None
    streamer: Streamer | None = None
    """Watches detached sockets; None where sockets cannot be taken over, or are not to be."""
    missing: Callable[[], str | None] | None = None
    """Says what else has to be there before clients can be taken, or None; set by who puts the parts together."""
    _resizing = False

    def __init__(
        self,
        config: HubConfig,
        *,
        broker: Broker | None = None,
        now: Callable[[], float] = clock.now,
        chance: Callable[[], float] = random,
        wall_clock: Callable[[], float] = clock.wall_clock,
        json_encoder: JSONEncoder | None = None,
    ) -> None:
        """Nothing is opened yet. `broker` is made of the configuration if none is given, `json_encoder` says what
        stands for objects in the data of events that are not known, `now` is the one clock and
        `wall_clock` the time since the epoch, both in seconds, and `chance` returns numbers from 0 to 1. Raises
        `ConfigError` for a broker that is not known."""
        self.config = config
        """The settings."""
        self.now = now
        """The one clock, in seconds."""
        self.wall_clock = wall_clock
        """The time since the epoch, in seconds: for what comes from elsewhere and says times. It may jump."""
        self.chance = chance
        """Numbers from 0 to 1, by chance."""
        self.node = secrets.token_hex(3)
        """Names this process in its connections' ids."""
        self.pool = Pool(config.pool, jitter=chance)
        """The slots and the queue."""
        self.wakes = Wakes()
        """Has requests go on that waited for a slot."""
        self.tasks = Tasks()
        """What goes on beside, until the hub closes."""
        self.hooks = Hooks()
        """The application's functions."""
        self.bans = Bans()
        """Clients that are to stay away."""
        self.revocations = Revocations()
        """Grants that have been taken back."""
        self.rates = Rates(config)
        """What each address may do a second."""
        self.encoder = DataEncoder(json_encoder, config.max_event_size)
        """Makes text of the data of events."""
        self._put_together(broker or connect(config))

    def _put_together(self, broker: Broker) -> None:
        config, now = self.config, self.now
        self.delivery = Delivery(config, now)
        """Brings every connection up to the head of its feed."""
        self.feeds = Feeds(self.delivery, now)
        """The feeds of all subscriptions."""
        self.log = EventLog(
            broker, self.feeds.dispatch, self.feeds.announce_loss, self.delivery.room, now, self.wall_clock
        )
        """What is at hand of the broker's order."""
        shared = token_key(config)
        self.connections = Connections(
            self.pool,
            self.feeds,
            self.hooks,
            node=self.node,
            secret=shared or secrets.token_bytes(32),
            now=now,
            wall_clock=self.wall_clock,
            encoder=self.encoder,
        )
        """Who holds the slots."""
        self.knows_all_tokens = shared is not None
        """Whether the connections of other nodes have tokens of the same key."""
        self.links = LinkContext(self.pool, self.delivery, now, self.retry, config.lag_policy)
        """What each link is made with."""

    # Opening and closing.

    async def open(self) -> None:
        """Make the slots, connect to the broker, and watch sockets.

        Raises `PoolClosed` the second time, `BrokerError` if the broker is not there, and `ConfigError` if it will not
        do.
        """
        self.pool.open()
        self._opened_at = self.now()
        try:
            await self.log.open()
        except BaseException:  # cancelled too: what has been opened must not be left open
            self.pool.close()
            await self.log.close()
            raise
        if AVAILABLE and self.config.detach:
            self.streamer = Streamer(self.now)
        self.is_open = True

    def shutdown(self) -> None:
        """Begin to close: refuse waiters, say goodbye on every stream. Returns at once. What is published until
        `close` is kept as ever: requests are still under way, and hooks."""
        if self.pool.state is PoolState.CLOSED:
            return
        in_slices(self.connections.evict_all([(slot, Reason.SHUTDOWN) for slot in self.pool.close()]), self.now)
        if self.connections.held():
            # Servers wait for their connections before they end the lifespan: stalled ones must not hold them up.
            asyncio.get_running_loop().call_later(GOODBYE_SECONDS, self.connections.abort)

    async def cut(self) -> None:
        """End every stream, and then the hooks and the tasks; each has a moment to end by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.connections.all_gone()
        self.connections.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.connections.aborted()
        if self.streamer is not None:
            self.streamer.close()
            self.streamer = None
        await self.hooks.close(HOOK_SECONDS)
        await self.tasks.close(GOODBYE_SECONDS)

    async def close(self) -> None:
        """Let the broker go. Nothing can be published any more."""
        self.is_open = False
        await self.log.close()

    @property
    def unready(self) -> str | None:
        """Why this hub takes no clients, or does not get what is published; None if all is well."""
        state = self.pool.state
        if state is not PoolState.OPEN:
            return f"the pool is {state.value}; it takes clients only while it is open"
        failing = self.log.failing
        if failing is not None:
            return f"the broker is away: {failing}"
        late = self.log.late
        if late > MAX_BEHIND_SECONDS:
            return f"what the broker had {late:.0f} s ago has not come; this node is at position {self.log.position}"
        return self.missing() if self.missing is not None else None

    def check_open(self) -> None:
        """Raise `PoolClosed` if the hub was never opened: a mistake in the program, not a state of operation."""
        if self.pool.state is PoolState.NEW:
            raise PoolClosed(
                "the hub is not open: give your application lifespan=hub.lifespan, or use `async with hub`; under a "
                "server that sends no lifespan, such as daphne, `await hub.open()` with the first request "
                "(docs/servers.md)"
            )

    # Publishing.

    async def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish a batch in order, all of it or nothing, and return the ids. Waits while delivery is far behind.

        Raises `InvalidEvent`, `InvalidTopic`, `BrokerError` or `PoolClosed`.
        """
        batch = list(events)
        self._check_publishable(batch)
        await self.delivery.room()
        return await self.log.publish(batch)

    async def store(self, events: Sequence[Event]) -> list[Stored]:
        """As `publish_many`, and says at which positions of the broker's order the events are."""
        self._check_publishable(events)
        await self.delivery.room()
        return await self.log.store(events)

    def publish_nowait(self, events: Sequence[Event]) -> list[str]:
        """As `publish_many`, at once; for brokers that keep events in memory. Does not wait for slow delivery."""
        self._check_publishable(events)
        return self.log.publish_nowait(events)

    def try_publish(self, events: Sequence[Event]) -> list[str] | None:
        """As `publish_many` where that has nothing to wait for; None where it has, and then nothing has been done."""
        if not self.log.complete or not self.log.settled or not self.delivery.has_room:
            return None
        return self.publish_nowait(events)

    def slice(self) -> Slice:
        """A slice for work on behalf of one request, which begins now."""
        return Slice(self.now)

    def _check_publishable(self, events: Sequence[Event]) -> None:
        if not self.is_open:
            self.check_open()
            raise PoolClosed("the hub is closed")
        try:
            for event in events:
                if not event.topics:
                    raise InvalidTopic("an event needs at least one topic to be published to")
        except AttributeError:
            raise InvalidEvent(f"{shown(event)} is no event; a batch takes Event(data, topics) objects") from None

    # The pool's size.

    def check_size(self, size: int) -> None:
        """Raise `ConfigError` for more new slots in this process than there are descriptors, unless `max_size` says how
        many there may be. What there is may stay."""
        clients = max_clients()
        if self.config.pool.max_size is None and clients is not None and len(self.pool.slots) < size > clients:
            raise ConfigError(
                f"size = {size} is not allowed; the limit on open files leaves this process {clients} clients: raise "
                "it (ulimit -n) or set max_size"
            )

    def resize(self, size: int) -> None:
        """Change the number of slots; see `Pool.aim`. Many come, or go, over the next turns of the event loop. Raises
        `ConfigError` and `PoolClosed`."""
        self.check_size(size)
        self.pool.aim(size)
        if not self._resizing:
            in_slices(self._resize(), self.now)

    async def resized(self) -> None:
        """Return when the pool has the size that it was told, but for slots that clients have still."""
        while self._resizing:
            await asyncio.sleep(0)

    def _resize(self) -> Iterator[int]:
        self._resizing = True
        try:
            while self.pool.approach(self.now(), STEP_SLOTS):
                yield 0
        finally:
            self._resizing = False

    # For all who send clients away, look at the clock or count.

    def retry(self) -> int:
        """Milliseconds after which a client is to come back, with jitter."""
        return jittered(self.config.retry, self.chance())

    def term(self, grant: Grant, *, from_door: bool) -> Term:
        """How long a stream may go on that begins now with this grant. What the application has decided by itself it
        need not be asked again, unless its grant ends.

        Here alone the time since the epoch becomes the hub's own: a stream ends as long after as it was to, whatever
        the clock on the wall is set to meanwhile.
        """
        ends = grant.expires_at is not None
        if grant is ANYBODY or grant is STRANGER or not (from_door or ends):
            return ENDLESS
        return term_of(
            grant.expires_at - self.wall_clock() if grant.expires_at is not None else NEVER,
            self.config.access.max_grant_age,
            now=self.now(),
            look=self.config.pool.reap_interval,
            chance=self.chance(),
        )

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        self.log.expire()
        window = self.log.window
        self.feeds.relieve(window.newest - window.kept.events)  # where it would begin without holes
        self.bans.expire(now)
        self.revocations.expire(self.wall_clock())

    def stats(self) -> HubStats:
        """The numbers of this moment, frozen."""
        history, totals = self.log.window.kept, self.connections.totals()
        return HubStats(
            node=self.node,
            pool=self.pool.stats(),
            events_published=self.feeds.dispatched,
            events_delivered=totals.events,
            events_skipped=totals.skipped,
            bytes_sent=totals.bytes,
            feeds=len(self.feeds),
            history_events=history.events,
            history_bytes=history.bytes,
            uptime=self.now() - self._opened_at if self._opened_at is not None else 0.0,
            rate_refused=dict(self.rates.refused),
            history_dropped=dict(self.log.window.dropped),
        )
