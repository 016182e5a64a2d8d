"""Link: the way to one client, over whatever transport. It knows what is written next and where writing stopped.

Its states and their legal steps stand in `core.states`; docs/design/feeds.md tells why nothing is lost or doubled.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from errno import EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT
from typing import Protocol

from ssepool.config import LagPolicy, MiB
from ssepool.core.chunk import LAST_CHUNK, chunk
from ssepool.core.feed import Feed
from ssepool.core.frames import COMPLETED_ID, DIALECT, FAILED_ID, Dialect
from ssepool.core.pool import Pool
from ssepool.core.slot import Slot
from ssepool.core.states import LINK_STEPS, LinkState, Reason, SlotState, check_step
from ssepool.runtime.streams.delivery import Delivery
from ssepool.runtime.streams.latest import Latest

Bytes = bytes | memoryview
"""What a transport writes."""

OUTBOX_FRAMES = 256
"""Frames for one connection alone that may wait to be written; senders wait while there are more."""

OUTBOX_BYTES = MiB
"""Bytes of these frames, likewise."""

PEER_DEAD = frozenset({ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN})
"""Errors that say that the kernel gave the peer up, as opposed to the peer's own FIN or RST."""

NEW, OPEN, FOLLOWING = LinkState.NEW, LinkState.OPEN, LinkState.FOLLOWING
FINISHING, ENDING, ENDED = LinkState.FINISHING, LinkState.ENDING, LinkState.ENDED


def reason_of(code: int) -> Reason:
    """Why a connection with this `errno` ended."""
    return Reason.PEER_DEAD if code in PEER_DEAD else Reason.CLIENT_CLOSED


class Owner(Protocol):
    """What is told that a link has ended: a connection, or a request that still waits for its slot."""

    def link_ended(self, reason: Reason) -> None:
        """The transport is done with. Called exactly once."""


class Backlog(Protocol):
    """What a client missed and is given before its feed: a replay, or what it lagged behind."""

    taken: int
    """Events in the page returned last."""

    @property
    def waiting(self) -> bool:
        """Whether the broker has been asked, and the link is flushed when it has answered."""

    def next(self, link: Link) -> bytes:
        """The next page; empty if this step found none, or if there is nothing left and the link has joined its
        feed."""


@dataclass(frozen=True, slots=True)
class LinkContext:
    """What all links of a hub share."""

    pool: Pool
    """The pool whose slots the links serve."""
    delivery: Delivery
    """What has a link flushed in its turn."""
    now: Callable[[], float]
    """The hub's clock, in seconds."""
    retry: Callable[[], int]
    """Milliseconds after which a client that is sent away is to come back, with jitter."""
    lag_policy: LagPolicy
    """What to do with a client whose cursor has fallen off its feed."""


class Link(ABC):
    """Writes to one client: its outbox, then its replay, then its feed; never inside a half-written frame.

    A link lives from the moment a request is taken over until its client is gone. It has no slot while the request
    waits in the queue. `owner.link_ended` is called exactly once, with the reason, when the transport is done with.
    """

    __slots__ = (
        "_room",
        "chunked",
        "context",
        "dialect",
        "feed",
        "finishing",
        "held",
        "outbox",
        "owner",
        "replay",
        "rest",
        "slot",
        "stalled",
        "state",
        "whole",
    )

    weight = 0
    """What a flush costs later in this turn of the event loop; delivery limits the sum per slice."""

    def __init__(self, context: LinkContext, dialect: Dialect = DIALECT) -> None:
        self.context = context
        """What it shares with all other links."""
        self.dialect = dialect
        """How the hub speaks to this client."""
        self.chunked = False
        """Whether each frame is written as a chunk. Where a server writes, the coding is its own business."""
        self.whole = False
        """Whether the end, once it comes, is a clean one; else the stream is cut."""
        self.state = NEW
        """How far the stream has come."""
        self.stalled = False
        """The transport takes no more at the moment."""
        self.slot: Slot | None = None
        """The client's slot; None while it waits for one, and once it has left."""
        self.feed: Feed | None = None
        """The feed that the client follows; None before and after that."""
        self.replay: Backlog | None = None
        """What the client missed, until it has it."""
        self.outbox: list[bytes] | None = None
        """Frames for this client alone, in order."""
        self.held: list[tuple[int, bytes]] | None = None
        """Events of this client's own that wait until its cursor has come to their place in the feed."""
        self.rest: Bytes | None = None
        """What the transport has not taken of a frame."""
        self.finishing: Reason | None = None
        """The reason to close for, in the state FINISHING."""
        self.owner: Owner | None = None
        """What is told of the end."""
        self._room: asyncio.Future[None] | None = None
        """Set when the outbox has been emptied; made by the first sender that waits for it."""

    # What others ask of a link.

    @property
    def started(self) -> bool:
        """Whether the response's head is out, or first in the outbox."""
        return self.state is not NEW

    @property
    def ended(self) -> bool:
        """Whether the transport is done with."""
        return self.state is ENDED

    @property
    def is_leaving(self) -> bool:
        """Whether the client has been told that this is the end."""
        return self.state is ENDING or self.state is ENDED

    @property
    def cursor(self) -> int:
        """The place in the feed up to which this client has been written to."""
        assert self.slot is not None
        return self.slot.cursor

    def push(self, frame: bytes) -> None:
        """Queue a frame for this client alone; goes out with the next flush. Nothing comes behind the goodbye."""
        self.queue(chunk(frame) if self.chunked else frame)

    def queue(self, data: bytes) -> None:
        """As `push`, for bytes that are coded already, or are no part of the body."""
        state = self.state
        if state is ENDING or state is ENDED:
            return
        if state is FOLLOWING:
            self.become(OPEN)
        if self.outbox is None:
            self.outbox = [data]
        else:
            self.outbox.append(data)

    def send(self, frame: bytes) -> None:
        """Write an event of this client's own, behind everything that was published before it."""
        if self.is_leaving:
            return
        feed = self.feed
        if feed is not None and self.slot is not None and (self.held or self.slot.cursor < feed.head):
            if self.state is FOLLOWING:
                self.become(OPEN)
            self.held = self.held or []
            self.held.append((feed.head, frame))
        else:
            self.push(frame)
        self.flush()

    @property
    def full(self) -> bool:
        """Whether there is as much for this client alone as there may be."""
        waiting = [*(self.outbox or ()), *(frame for _, frame in self.held or ())]
        return len(waiting) >= OUTBOX_FRAMES or sum(map(len, waiting)) >= OUTBOX_BYTES

    async def room(self) -> None:
        """Return once there is room for a frame for this client alone, or the link has ended."""
        while self.full:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)  # other senders wait for it too

    def follow(self, feed: Feed) -> None:
        """Join a feed at its head: everything published from now on."""
        assert self.slot is not None
        self.feed = self.slot.feed = feed
        self.slot.cursor = feed.head
        feed.members[self] = None
        if self.stalled:  # no flush will say so: without this the feed would keep nothing for it
            feed.behind[self] = None

    def beat(self) -> None:
        """Write a heartbeat, if nothing else is about to be written."""
        if not self.stalled and not self.is_leaving and self.rest is None and not self.outbox:
            self.push(self.dialect.heartbeat)
            self.flush()

    def warn(self, seconds: int) -> None:
        """Tell the client that its grant runs out in so many seconds."""
        self.push(self.dialect.expiring(seconds))
        self.flush()

    def close(self, reason: Reason) -> None:
        """End the stream: finish a half-written frame, say goodbye with `ssepool.close`, and go. The client is told
        when to come back."""
        self._say_goodbye(reason, self.context.retry())

    def part(self, frame: bytes, *, whole: bool = False) -> None:
        """Write one last frame, and end when it is out: cleanly, if the stream is `whole`."""
        if self.is_leaving:
            return
        self._let_out()
        self.replay = None
        self.push(frame)
        self.conclude(whole=whole)

    def conclude(self, *, whole: bool) -> None:
        """End when what is queued is out: cleanly, if the stream is `whole`."""
        self.leave_feed()
        self.whole = whole
        if whole and self.chunked:
            self.queue(LAST_CHUNK)
        self.become(ENDING)
        self.flush()

    def surrender(self, reason: Reason) -> None:
        """Free the slot for this reason, and go on writing what the transport itself is given."""
        self.leave_feed()
        owner, self.owner, self.slot = self.owner, None, None
        if owner is not None:
            owner.link_ended(reason)

    def finish(self, reason: Reason) -> None:
        """Close for this reason once everything that is pending has been written."""
        if self.state is OPEN or self.state is FOLLOWING:
            self.finishing = reason
            self.become(FINISHING)
            self.flush()

    def end(self, reason: Reason) -> None:
        """Be done with the transport, whatever has been written. Only the first call counts."""
        if self.state is ENDED:
            return
        before = self.state
        self.become(ENDED)
        self.leave_feed()
        self.replay = self.rest = self.outbox = self.held = None
        self.hang_up(before)
        if self.owner is not None:
            self.owner.link_ended(reason)
            self.owner = None  # which holds this link: a cycle would be left to the garbage collector
        self._make_room()
        # It may serve another client from here on, whose numbers a write that is still under way must not touch.
        self.slot = None

    def leave_feed(self) -> None:
        """Follow the feed no longer."""
        if self.state is FOLLOWING:
            self.become(OPEN)
        if self.feed is not None:
            feed, self.feed = self.feed, None
            feed.members.pop(self, None)
            self.context.delivery.caught_up(feed, self)

    # What a transport implements.

    async def wait_started(self) -> bool:
        """Return when the response's head is with the transport, or the link has ended. False if it is the head of
        another response, which has been put in the stream's place: the link writes that, and then ends."""
        if self.state is NEW:
            self.become(OPEN)
        return True

    @abstractmethod
    def flush(self) -> None:
        """Write what there is to write, or see that it is written soon. Never blocks, never raises."""

    @abstractmethod
    def hang_up(self, before: LinkState) -> None:
        """Give the transport back. `before` is the state in which the link was."""

    # For transports.

    def become(self, state: LinkState) -> None:
        """Take a step of the link's table. Raises `IllegalStep`."""
        if state not in LINK_STEPS[self.state]:
            check_step(LINK_STEPS, self.state, state)
        self.state = state

    def take(self) -> tuple[Bytes, int] | None:
        """What to write next, and the cursor it was read at (-1 if not from the feed); None if there is nothing."""
        while True:
            if self.rest is not None:
                rest, self.rest = self.rest, None
                return rest, -1
            if self.outbox:
                return self._empty_outbox(), -1
            slot = self.slot
            if slot is None or self.state is ENDING or self.state is ENDED:
                return None
            if self.replay is not None:
                if data := self._replayed(self.replay, slot):
                    return data, -1
                if self.replay is not None and not self.outbox:
                    return None
                continue
            if self.feed is not None:
                found = self._from_feed(self.feed, slot)
                if found is not None:
                    return found
                if self.outbox or self.is_leaving:
                    continue
            if self.finishing is None:
                if self.state is OPEN and self.feed is not None:
                    self.become(FOLLOWING)
                return None
            self._say_goodbye(self.finishing, None, FAILED_ID if self.finishing is Reason.ERROR else None)

    def stall(self) -> None:
        """The transport takes no more."""
        if self.state is FOLLOWING:
            self.become(OPEN)
        self.stalled = True
        if self.feed is not None:
            self.feed.behind[self] = None
        if self.slot is not None and self.slot.state is SlotState.OPEN:
            self.context.pool.block(self.slot, self.context.now())

    def go_on(self) -> None:
        """The transport takes more again."""
        self.stalled = False
        if self.slot is not None:
            self.context.pool.unblock(self.slot)

    # What a write is made of.

    def _empty_outbox(self) -> bytes:
        assert self.outbox is not None
        data, self.outbox = b"".join(self.outbox), None
        if self._room is not None:
            self._make_room()
        return data

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    def _replayed(self, replay: Backlog, slot: Slot) -> bytes:
        """The next page of what was missed; empty if there is none now."""
        data = replay.next(self)
        if data:
            slot.events += replay.taken
            slot.sent_at = self.context.now()
        elif self.replay is not None and not self.outbox and not replay.waiting:
            self.context.delivery.again(self)  # it has more to look through, in a later turn
        return data

    def _from_feed(self, feed: Feed, slot: Slot) -> tuple[Bytes, int] | None:
        """What the feed has for this client up to the place of its next own event; None if that comes first, if there
        is nothing, or if the client lagged."""
        cursor, held = slot.cursor, self.held
        if held and held[0][0] <= cursor:
            self._let_out(cursor)
        elif cursor < feed.first:
            self._lagged(feed, slot)
        elif cursor < feed.head:
            data, slot.cursor = feed.read(cursor, held[0][0] if held else None, self.chunked)
            slot.events += slot.cursor - cursor
            return data, cursor
        elif self in feed.behind:
            self.context.delivery.caught_up(feed, self)
        return None

    def _let_out(self, cursor: int | None = None) -> None:
        """Put the events whose place is reached into the outbox; without a cursor, all."""
        while self.held and (cursor is None or self.held[0][0] <= cursor):
            self.push(self.held.pop(0)[1])

    def _say_goodbye(self, reason: Reason, retry: int | None, id: str | None = None) -> None:
        if self.is_leaving:
            return
        if reason is Reason.COMPLETED:  # whoever says so: it is not to come back
            retry, id = None, COMPLETED_ID
        if self.slot is not None and self.slot.state is SlotState.OPEN:
            self.context.pool.closing(self.slot, reason, self.context.now())
        # Where this event says it, a run that failed is over as well, and whoever came back would get 204. Some clients
        # come back for ever after a cut and a 204; others, whom nothing but a cut tells, take a clean end for success.
        whole = reason.is_final or (id == FAILED_ID and self.dialect.own_events)
        self.part(self.dialect.closed(reason.value, retry=retry, id=id), whole=whole)

    def _lagged(self, feed: Feed, slot: Slot) -> None:
        """The cursor fell off the feed's tail: do what the lag policy says."""
        policy = self.context.lag_policy
        if policy == "disconnect":
            self.close(Reason.LAGGED)
            return
        missed = feed.head - slot.cursor
        if policy == "latest":
            entries = feed.latest(slot.cursor)
            slot.cursor = feed.head
        else:
            slot.cursor = feed.newest()
            entries = []
            missed -= feed.head - slot.cursor
        resumed = entries[0].id if entries else next((entry.id for entry in feed.entries[-1:]), None)
        slot.skipped += missed - len(entries)
        self.push(self.dialect.gap(None, resumed, "lagged", skipped=missed - len(entries)))
        if entries:
            self.replay = Latest(entries)
