"""Link: the way to one client, over whatever transport. It knows what is written next and where writing stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from ssepool.config import MiB
from ssepool.core.feed import Feed, joined
from ssepool.core.slot import Slot
from ssepool.core.states import Reason, SlotState
from ssepool.runtime import frames

if TYPE_CHECKING:
    from ssepool.core.pool import Pool
    from ssepool.runtime.delivery import Delivery
    from ssepool.runtime.replay import Replay

Bytes = bytes | memoryview

OUTBOX_FRAMES = 256
"""Frames for one connection alone that may wait to be written; senders wait while there are more."""

OUTBOX_BYTES = MiB
"""Their bytes, likewise."""


class Owner(Protocol):
    """Who is told that a link has ended."""

    def link_ended(self, reason: Reason) -> None: ...


class Link(ABC):
    """Writes to one client: its outbox, then its replay, then its feed; never inside a half-written frame.

    A link lives from the moment a request is taken over until its client is gone. It has no slot while the request
    waits in the queue. `owner.link_ended` is called exactly once, with the reason, when the transport is done with.
    """

    __slots__ = (
        "delivery",
        "ended",
        "ending",
        "feed",
        "finishing",
        "held",
        "outbox",
        "owner",
        "plain",
        "pool",
        "replay",
        "rest",
        "slot",
        "stalled",
        "started",
    )

    weight = 0
    """What a flush costs later in this turn of the event loop; delivery limits the sum per slice."""

    def __init__(self, pool: Pool, delivery: Delivery) -> None:
        self.pool = pool
        self.delivery = delivery
        self.slot: Slot | None = None
        self.feed: Feed | None = None
        self.replay: Replay | None = None
        self.outbox: list[bytes] | None = None
        self.held: list[tuple[int, bytes]] | None = None
        """Events of this client's own that wait until its cursor has come to their place in the feed."""
        self.rest: Bytes | None = None
        self.started = False
        """The response's head is out (or first in the outbox)."""
        self.stalled = False
        """The transport takes no more at the moment."""
        self.finishing: Reason | None = None
        """Close for this reason once all that is pending has been written."""
        self.ending = False
        """The last frame is in the outbox; when it is out, end."""
        self.ended = False
        self.plain = False
        """All that may be missing is in the feed, for sure, and the transport takes it: so it is with nearly all links
        when an event comes, and a flush need not ask for everything else."""
        self.owner: Owner | None = None

    # What others ask of a link.

    def push(self, frame: bytes) -> None:
        """Queue a frame for this client alone; goes out with the next flush."""
        self.plain = False
        if self.outbox is None:
            self.outbox = [frame]
        else:
            self.outbox.append(frame)

    def send(self, frame: bytes) -> None:
        """Write an event of this client's own, behind everything that was published before it."""
        if self.ending:
            return  # the client has been told that this is the end
        feed = self.feed
        if feed is not None and self.slot is not None and (self.held or self.slot.cursor < feed.head):
            self.plain = False
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
        if not self.stalled and not self.ending and self.rest is None and not self.outbox:
            self.push(frames.HEARTBEAT)
            self.flush()

    def close(self, reason: Reason, *, retry: int | None = None, id: str | None = None) -> None:
        """End the stream: finish a half-written frame, say goodbye with `ssepool.close`, and go."""
        if self.ended or self.ending:
            return
        if self.slot is not None and self.slot.state is SlotState.OPEN:
            self.pool.closing(self.slot, reason, monotonic())
        self.part(frames.closed(reason.value, retry=retry, id=id))

    def part(self, frame: bytes) -> None:
        """Write one last frame, and end when it is out."""
        self.ending = True
        self._let_out()
        self.leave_feed()
        self.replay = None
        self.push(frame)
        self.flush()

    def finish(self, reason: Reason) -> None:
        """Close once everything that is pending has been written."""
        if self.finishing is None:
            self.plain = False
            self.finishing = reason
            self.flush()

    def end(self, reason: Reason) -> None:
        """Be done with the transport, whatever has been written. Only the first call counts."""
        if self.ended:
            return
        self.ended = True
        self.leave_feed()
        self.replay = self.rest = self.outbox = self.held = None
        self.hang_up()
        if self.owner is not None:
            self.owner.link_ended(reason)
            self.owner = None  # which holds this link: a cycle would be left to the garbage collector
        # It may serve another client from here on, whose numbers a write that is still under way must not touch.
        self.slot = None

    def leave_feed(self) -> None:
        self.plain = False
        if self.feed is not None:
            feed, self.feed = self.feed, None
            feed.members.pop(self, None)
            self.delivery.caught_up(feed, self)

    # What a transport implements.

    async def wait_started(self) -> None:
        """Return when the response's head is with the transport, or the link has ended."""
        self.started = True

    @abstractmethod
    def flush(self) -> None:
        """Write what there is to write, or see that it is written soon. Never blocks, never raises."""

    @abstractmethod
    def hang_up(self) -> None:
        """Give the transport back."""

    # What a transport uses.

    def take(self) -> tuple[Bytes, int] | None:
        """What to write next, and the cursor it was read at (-1 if not from the feed); None if there is nothing."""
        while True:
            if self.rest is not None:
                rest, self.rest = self.rest, None
                return rest, -1
            if self.outbox:
                data, self.outbox = b"".join(self.outbox), None
                return data, -1
            slot = self.slot
            if slot is None or self.ending:
                return None
            if self.replay is not None:
                data = self.replay.next(self)
                if data:
                    slot.events += self.replay.taken
                    slot.sent_at = monotonic()
                    return data, -1
                if self.replay is not None and not self.outbox:
                    if not self.replay.waiting:  # it has more to look through, in a later turn
                        self.delivery.again(self)
                    return None
                continue
            feed = self.feed
            if feed is not None:
                cursor, held = slot.cursor, self.held
                if held and held[0][0] <= cursor:
                    self._let_out(cursor)
                    continue
                if cursor < feed.head:
                    if cursor < feed.first:
                        self._lagged(feed, slot)
                        continue
                    data, slot.cursor = feed.read(cursor, held[0][0] if held else None)
                    slot.events += slot.cursor - cursor
                    return data, cursor
                if self in feed.behind:
                    self.delivery.caught_up(feed, self)
            if self.finishing is None:
                self.plain = feed is not None
                return None
            self.close(self.finishing, id=frames.COMPLETED_ID if self.finishing is Reason.COMPLETED else None)

    def stall(self) -> None:
        """The transport takes no more."""
        self.plain = False
        self.stalled = True
        if self.feed is not None:
            self.feed.behind[self] = None
        if self.slot is not None and self.slot.state is SlotState.OPEN:
            self.pool.block(self.slot, monotonic())

    def go_on(self) -> None:
        """The transport takes more again."""
        self.stalled = False
        if self.slot is not None:
            self.pool.unblock(self.slot)

    def _let_out(self, cursor: int | None = None) -> None:
        """Put the events whose place is reached into the outbox; without a cursor, all."""
        while self.held and (cursor is None or self.held[0][0] <= cursor):
            self.push(self.held.pop(0)[1])

    def _lagged(self, feed: Feed, slot: Slot) -> None:
        """The cursor fell off the feed's tail: do what the lag policy says."""
        policy = self.delivery.config.lag_policy
        if policy == "disconnect":
            self.close(Reason.LAGGED, retry=self.delivery.retry())
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
        slot.events += len(entries)
        self.push(frames.gap(None, resumed, "lagged", skipped=missed - len(entries)))
        if entries:
            self.push(joined(entries))
