"""Admission: a request's way from its arrival to a slot, or to a polite refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ssepool.core.slot import Slot
from ssepool.core.states import PoolState, Reason, SlotState, WaiterState
from ssepool.core.waiting import Waiter
from ssepool.errors import PoolClosed, PoolFull, PoolTimeout, SSEPoolError
from ssepool.runtime import frames
from ssepool.runtime.streamer import Handover, SocketLink
from ssepool.runtime.welcome import connect, welcome_now

if TYPE_CHECKING:
    from ssepool.runtime.hub import Hub
    from ssepool.runtime.link import Link
    from ssepool.runtime.visit import Visit


Reply = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers but for the length, and body of an answer that is given without an application's help."""


class ClientGone(Exception):
    """The client left before its stream opened."""


class Application:
    """One request's application for a slot: what the pool calls back when the request had to wait.

    It owns what it was given, a place in the queue or a slot, until `take`; `withdraw` gives that back.
    """

    def __init__(self, hub: Hub, visit: Visit) -> None:
        """Apply. Raises `PoolFull` or `PoolClosed`."""
        self._hub = hub
        self._link: Link | None = None
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slot: Slot | None = None
        self._error: Exception | None = None
        self._waiter: Waiter | None = None
        self._announced = 0
        self._announced_at = 0.0
        place = hub.pool.acquire(hub.now(), self, ip=visit.ip, user=visit.user, topics=visit.limited)
        if isinstance(place, Slot):
            self._slot = place
        else:
            self._waiter = place

    @property
    def waits(self) -> bool:
        return self._slot is None

    async def slot(self, link: Link) -> None:
        """Wait for the slot. Raises `PoolTimeout`, `PoolClosed`, or `ClientGone` when the link ends meanwhile."""
        self._link = link
        link.owner = self
        if self._waiter is not None and link.started:
            self._announce_at_once(self._waiter)
        if self._slot is None and not link.ended:
            await self._outcome
        if self._error is not None:
            raise self._error
        if link.ended:
            raise ClientGone

    def take(self) -> Slot:
        """The slot; from now on it is the caller's to release."""
        assert self._slot is not None
        slot, self._slot = self._slot, None
        return slot

    def withdraw(self) -> None:
        """Give back what this application still holds."""
        if self._waiter is not None:
            self._hub.pool.leave(self._waiter)
        if self._slot is not None:
            self._hub.pool.release(self.take(), self._hub.now())

    def announce(self, position: int, waiting: int, now: float) -> None:
        """Tell the client its place in the queue, or that it is not forgotten."""
        link = self._link
        if link is None or link.ended or not link.started or link.stalled:
            return
        if position != self._announced:
            link.push(frames.queued(position, waiting))
        elif now - self._announced_at >= self._hub.config.pool.heartbeat_interval:
            link.push(frames.HEARTBEAT)
        else:
            return
        self._announced, self._announced_at = position, now
        link.flush()

    def _announce_at_once(self, waiter: Waiter) -> None:
        # The next look of the reaper, which tells of changes, may be a second away, and until then nothing at all
        # would be on the wire: the head goes out with the first announcement.
        pool = self._hub.pool
        if position := pool.position(waiter):
            self.announce(position, len(pool.waiting), self._hub.now())

    # What the pool calls.

    def granted(self, slot: Slot) -> bool:
        if self._outcome.done():
            return False
        self._slot = slot
        self._outcome.set_result(None)
        return True

    def failed(self, outcome: WaiterState) -> None:
        if outcome is WaiterState.TIMED_OUT:
            waited = self._hub.config.pool.acquire_timeout
            self._fail(PoolTimeout(f"no slot came free ({self._hub.pool!r}, waited {waited:.1f} s)"))
        else:
            self._fail(PoolClosed(f"the pool takes no more requests ({self._hub.pool!r})"))

    # What the link calls.

    def link_ended(self, reason: Reason) -> None:
        self._fail(ClientGone())
        if self._waiter is not None:
            self._hub.pool.leave(self._waiter)

    def _fail(self, error: Exception) -> None:
        if not self._outcome.done():
            self._error = error
            self._outcome.set_result(None)


class Nobody:
    """The applicant of a request that does not wait."""

    def granted(self, slot: Slot) -> bool:
        return False

    def failed(self, outcome: WaiterState) -> None:
        pass


NOBODY = Nobody()


def admit_at_once(hub: Hub, visit: Visit, take: Callable[[], Handover], head: Callable[[], bytes]) -> bool:
    """Stream to a client whose socket no server holds, if a slot is free and nothing is out of the ordinary.

    False if it must take the longer way: the pool is full or not open, or the client is to be told to stay away. Then
    nothing has been done, and the socket, which `take` takes, is still the caller's.
    """
    pool = hub.pool
    limited = visit.limited if pool.limits else ()  # most pools have none
    if (
        hub.streamer is None
        or pool.state is not PoolState.OPEN
        or not pool.count(SlotState.FREE)
        or visit.has_everything
        or hub.bans.cover(visit, hub.now())
        or pool.exceeds(visit.ip, visit.user, limited)
    ):
        return False
    slot = pool.acquire(hub.now(), NOBODY, ip=visit.ip, user=visit.user, topics=limited)
    assert isinstance(slot, Slot)
    link = SocketLink(pool, hub.delivery, hub.streamer, take())
    link.start(head())
    welcome_now(hub, connect(hub, slot, link, visit), link, visit)
    return True


def word(error: SSEPoolError) -> str:
    """What a client is told that gets no slot."""
    return {PoolTimeout: "timed_out", PoolFull: "pool_full"}.get(type(error), "pool_closed")


def refusal(hub: Hub, error: SSEPoolError) -> Reply:
    """Status, headers and body for a request that gets no slot.

    Programs get an honest 503 with `on_full = "reject"`, and so does a proxy that asks another node then, with
    `on_drain = "reject"`. A browser's EventSource gives up for ever on any status but 200 (WHATWG HTML, 9.2.3), so
    otherwise the answer is a stream that says when to come back, and ends.
    """
    retry, pool = hub.delivery.retry(), hub.config.pool
    if pool.on_full == "reject" or (pool.on_drain == "reject" and isinstance(error, PoolClosed)):
        body = msgspec.json.encode({"error": {"code": word(error), "message": str(error)}})
        seconds = str(max(1, round(retry / 1000))).encode()
        return 503, [(b"content-type", b"application/json"), (b"retry-after", seconds)], body
    return 200, frames.STREAM_HEADERS, frames.closed(word(error), retry=retry)
