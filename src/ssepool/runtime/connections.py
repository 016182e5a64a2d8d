"""Connection, what the application sees of a client; and Connections: who holds the pool's slots."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ssepool import clock
from ssepool.core.data import DATA, DataEncoder
from ssepool.core.event import Event, EventFields
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState
from ssepool.core.visit import Visit
from ssepool.errors import ConnectionReleased
from ssepool.runtime.departed import Departed
from ssepool.runtime.hooks import Hooks
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.streams.link import Link
from ssepool.runtime.streams.slices import in_slices


class Connection:
    """A client that is connected now. Once it has left, everything but `id` and `is_open` raises
    `ConnectionReleased`: the slot may serve another client, which an old handle must not reach."""

    __slots__ = ("_generation", "_home", "_link", "_slot", "_visit")

    def __init__(self, home: Connections, slot: Slot, link: Link, visit: Visit) -> None:
        self._home = home
        self._slot = slot
        self._generation = slot.generation
        self._link = link
        self._visit = visit

    @property
    def id(self) -> str:
        """Names this connection in the whole lifetime of the hub: node, slot and the slot's generation."""
        return f"{self._home.node}-{self._slot.index}-{self._generation}"

    @property
    def is_open(self) -> bool:
        """Whether the client still holds its slot; it does until its stream has ended."""
        return self._slot.generation == self._generation

    @property
    def user(self) -> str | None:
        """Who the client is, as the application said; None if it said nothing."""
        self._check()
        return self._visit.user

    @property
    def ip(self) -> str | None:
        """The address that the client comes from, behind trusted proxies; None where the server knows none."""
        self._check()
        return self._visit.ip

    @property
    def data(self) -> Any:
        """The client's own data, as it sent it when it connected."""
        self._check()
        return self._visit.data

    @property
    def visit(self) -> Visit:
        """What the client asked for."""
        self._check()
        return self._visit

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of the topics that the client follows, sorted."""
        self._check()
        subscription = self._visit.subscription
        return tuple(sorted(subscription.topics)) if subscription else ()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The texts of the URL Patterns that the client follows, sorted."""
        self._check()
        subscription = self._visit.subscription
        return tuple(sorted(pattern.text for pattern in subscription.patterns)) if subscription else ()

    @property
    def opened_at(self) -> float:
        """When the stream opened, in seconds since the epoch."""
        self._check()
        return self._home.wall_clock() - (self._home.now() - self._slot.opened_at)

    @property
    def events_sent(self) -> int:
        """Events written to this client so far."""
        self._check()
        return self._slot.events

    @property
    def bytes_sent(self) -> int:
        """Bytes written to this client so far, the response's head among them where the socket was taken over."""
        self._check()
        return self._slot.bytes

    @property
    def events_skipped(self) -> int:
        """Events that this client did not get because it was too slow."""
        self._check()
        return self._slot.skipped

    @property
    def state(self) -> str:
        """`open` or `closing`."""
        self._check()
        return self._slot.state.value

    @property
    def token(self) -> str:
        """What the client proves itself with when it sends data: a keyed hash of the id, so nothing need be stored."""
        self._check()
        return self._home.token(self.id)

    def accepts(self, token: str) -> bool:
        """Whether this is the token; takes as long for a wrong one as for the right one."""
        self._check()
        return self._home.is_token(self.id, token)

    async def send(
        self, data: Any, *, type: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        """Send an event to this client alone; it is kept nowhere. `retry` is in milliseconds.

        It comes behind all that was published before, unless the client is still being given what it missed. Waits
        while the client's outbox is full. Does nothing once the client has been told goodbye. Raises `InvalidEvent`,
        and `ConnectionReleased` if the client leaves before there is room.
        """
        event = data if isinstance(data, Event) else self._home.event(data, type, id, retry)
        self._check()
        if self._link.full:
            await self._link.room()
            self._check()
        if self._link.is_leaving:
            return
        self._slot.events += 1
        self._slot.sent_at = self._home.now()
        self._link.send(event.encode())

    def close(self, reason: str = "kicked") -> None:
        """End the stream now, after what is already half-written; the client is told the reason.

        Raises `ValueError` for a word that is not a reason of the design.
        """
        self._check()
        self._link.close(Reason(reason))

    def touch(self) -> None:
        """The client has sent something."""
        self._check()
        self._slot.received_at = self._home.now()

    def link_ended(self, reason: Reason) -> None:
        """The link tells that the client has gone."""
        self._check()
        self._home.release(self, self._slot, self._link, self._visit, reason)

    def _check(self) -> None:
        if self._slot.generation != self._generation:
            raise ConnectionReleased(f"the client of connection {self.id} has left")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Connection, Departed)) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Connection {self.id} {'open' if self.is_open else 'released'}>"


class Totals(NamedTuple):
    """Numbers of all clients since the hub was opened."""

    events: int
    """Events handed to transports, one for each connection that got one."""
    skipped: int
    """Events that clients did not get because they were too slow."""
    bytes: int
    """Bytes handed to transports."""


class Connections:
    """Who holds the pool's slots: binds clients to them, finds them, sends them away and sees them leave."""

    def __init__(
        self,
        pool: Pool,
        feeds: Feeds,
        hooks: Hooks,
        *,
        node: str,
        secret: bytes,
        now: Callable[[], float],
        wall_clock: Callable[[], float] = clock.wall_clock,
        encoder: DataEncoder = DATA,
    ) -> None:
        """`node` begins each connection's id and `secret` is the key of their tokens. `now` is the hub's clock and
        `wall_clock` the time since the epoch, in seconds. `encoder` makes text of what is sent to one client."""
        self.node = node
        """The name of this process, with which each connection's id begins."""
        self.now = now
        """The hub's clock, in seconds."""
        self.wall_clock = wall_clock
        """The time since the epoch, in seconds."""
        self._pool = pool
        self._feeds = feeds
        self._hooks = hooks
        self._keyed = hashlib.blake2b(key=secret, digest_size=16)
        self._encoder = encoder
        self._emptied = asyncio.Event()
        self._delivered = self._bytes = self._skipped = 0
        """Of clients that have left."""

    def bind(self, slot: Slot, link: Link, visit: Visit) -> Connection:
        """Bind a reserved slot, a link and a visit together. The slot is freed when the link ends."""
        if visit.subscription is not None:
            visit.subscription = self._feeds.shared(visit.subscription, link.dialect)
        connection = Connection(self, slot, link, visit)
        slot.holder = link
        link.slot = slot
        link.owner = connection
        return connection

    def __iter__(self) -> Iterator[Connection]:
        """The connections that are open now."""
        for slot in list(self._pool.slots):
            if (connection := self._of(slot)) is not None:
                yield connection

    def find(self, id: str) -> Connection | None:
        """The connection of this id, if it is open."""
        node, _, rest = id.partition("-")
        index = rest.partition("-")[0]
        if node != self.node or not (index.isascii() and index.isdigit() and len(index) < 8):
            return None
        slot = self._pool.slot(int(index))
        connection = None if slot is None else self._of(slot)
        return connection if connection is not None and connection.id == id else None

    def token(self, id: str) -> str:
        """The token of a connection, from its id."""
        keyed = self._keyed.copy()
        keyed.update(id.encode(errors="replace"))
        return keyed.hexdigest()

    def is_token(self, id: str, token: str) -> bool:
        """Whether this is the token of a connection; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(token.encode(errors="replace"), self.token(id).encode())

    async def receive(self, connection: Connection, data: Any) -> None:
        """Hand a client's own data to the `on_message` hooks. Raises `ConnectionReleased`."""
        connection.touch()
        await self._hooks.run("message", connection, data)

    def event(self, data: Any, type: str | None, id: str | None, retry: int | None) -> Event:
        """An event for one client. Raises `InvalidEvent`."""
        fields: EventFields = {"key": None, "removed": False}  # nothing is kept that it could replace
        if type is not None:
            fields["type"] = type
        if id is not None:
            fields["id"] = id
        if retry is not None:
            fields["retry"] = retry
        return Event.of((), data, encoder=self._encoder, **fields)

    def evict(self, slot: Slot, reason: Reason) -> None:
        """Send the client of a slot away."""
        link = slot.holder
        if link is None:
            return  # its request is about to take it, and looks at the pool's state then
        if slot.state is SlotState.RESERVED or reason is Reason.SEND_TIMEOUT:
            if slot.state is SlotState.OPEN:
                self._pool.closing(slot, reason, self.now())
            link.end(reason)
        else:
            link.close(reason)

    def evict_all(self, slots: Iterable[tuple[Slot, Reason]]) -> Iterator[int]:
        """Send the clients of these slots away, one with each step; a step tells how many tasks that wakes. A client
        that has taken such a slot meanwhile stays."""
        for slot, generation, reason in [(slot, slot.generation, reason) for slot, reason in slots]:
            if slot.generation == generation:
                weight = 0 if slot.holder is None else slot.holder.weight
                self.evict(slot, reason)
                yield weight

    def kick_all(self, connections: Iterable[Connection]) -> int:
        """Send these clients away: some now, the others over the next turns of the loop. Returns how many are here."""
        kicked = [(connection._slot, Reason.KICKED) for connection in connections if connection.is_open]
        in_slices(self.evict_all(kicked), self.now)
        return len(kicked)

    def release(self, connection: Connection, slot: Slot, link: Link, visit: Visit, reason: Reason) -> None:
        """A connection's link has ended: free its slot and drop what only it used."""
        was_open = slot.state is not SlotState.RESERVED
        reason = slot.reason or reason
        departed = self._departed(connection, reason) if was_open and "disconnect" in self._hooks else None
        self._delivered += slot.events
        self._bytes += slot.bytes
        self._skipped += slot.skipped
        if slot.feed is not None:
            self._feeds.drop(slot.feed)
        if visit.source is not None:
            visit.source.unattend(link)
        self._pool.release(slot, self.now(), reason)
        if visit.background is not None:
            visit.background()
        if departed is not None:
            self._hooks.start("disconnect", departed, reason.value)
        if self._pool.count(SlotState.FREE) == len(self._pool.slots):
            self._emptied.set()

    def _departed(self, connection: Connection, reason: Reason) -> Departed:
        """What is known of a client that leaves now, before its slot forgets it."""
        slot = connection._slot
        return Departed(
            id=connection.id,
            user=connection.user,
            ip=connection.ip,
            data=connection.data,
            topics=connection.topics,
            patterns=connection.patterns,
            opened_at=connection.opened_at,
            seconds=self.now() - slot.opened_at,
            events_sent=slot.events,
            events_skipped=slot.skipped,
            bytes_sent=slot.bytes,
            reason=reason.value,
        )

    def held(self) -> list[Slot]:
        """The slots that clients have, open or not yet."""
        free, slots = SlotState.FREE, self._pool.slots
        return [slot for slot in slots if slot.state is not free] if self._pool.count(free) < len(slots) else []

    async def all_gone(self) -> None:
        """Return when no client holds a slot any more."""
        while self.held():
            self._emptied.clear()
            await self._emptied.wait()

    def abort(self) -> None:
        """Cut every stream, whatever is still to be written: some now, the others over the next turns of the loop."""
        in_slices(self._end_all(), self.now)

    async def aborted(self) -> None:
        """Return when `abort` has cut every stream."""
        while any(slot.holder is not None for slot in self.held()):
            await asyncio.sleep(0)

    def _end_all(self) -> Iterator[int]:
        for slot in self.held():
            if slot.holder is not None:
                weight = slot.holder.weight
                slot.holder.end(Reason.SHUTDOWN)
                yield weight

    def totals(self) -> Totals:
        """What all clients had, those that have left and those that are here."""
        held = self.held()
        return Totals(
            self._delivered + sum(slot.events for slot in held),
            self._skipped + sum(slot.skipped for slot in held),
            self._bytes + sum(slot.bytes for slot in held),
        )

    def _of(self, slot: Slot) -> Connection | None:
        """The connection that has a slot; None if none has it, or its stream has not opened."""
        if slot.state not in (SlotState.OPEN, SlotState.CLOSING) or slot.holder is None:
            return None
        owner = slot.holder.owner
        assert isinstance(owner, Connection)
        return owner
