"""Connection: what the application sees of a slot while a client holds it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

from ssepool.core.event import Event
from ssepool.core.states import Reason
from ssepool.errors import ConnectionReleased

if TYPE_CHECKING:
    from ssepool.core.slot import Slot
    from ssepool.runtime.hub import Hub
    from ssepool.runtime.link import Link
    from ssepool.runtime.visit import Visit

ROOM_INTERVAL = 0.02
"""Seconds between two looks of a sender that waits for room in a full outbox."""


class Connection:
    """A client that is connected now. Once it has left, everything but `id` and `is_open` raises
    `ConnectionReleased`: the slot may serve somebody else, whom an old handle must not reach."""

    __slots__ = ("_generation", "_hub", "_link", "_slot", "_visit")

    def __init__(self, hub: Hub, slot: Slot, link: Link, visit: Visit) -> None:
        self._hub = hub
        self._slot = slot
        self._generation = slot.generation
        self._link = link
        self._visit = visit

    @property
    def id(self) -> str:
        """Names this connection in the whole lifetime of the hub: node, slot and the slot's generation."""
        return f"{self._hub.node}-{self._slot.index}-{self._generation}"

    @property
    def is_open(self) -> bool:
        return self._slot.generation == self._generation

    @property
    def user(self) -> str | None:
        self._check()
        return self._visit.user

    @property
    def ip(self) -> str | None:
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
        self._check()
        subscription = self._visit.subscription
        return tuple(sorted(subscription.topics)) if subscription else ()

    @property
    def patterns(self) -> tuple[str, ...]:
        self._check()
        subscription = self._visit.subscription
        return tuple(sorted(pattern.text for pattern in subscription.patterns)) if subscription else ()

    @property
    def opened_at(self) -> float:
        """When the stream opened, in seconds since the epoch."""
        self._check()
        return time.time() - (time.monotonic() - self._slot.opened_at)

    @property
    def events_sent(self) -> int:
        self._check()
        return self._slot.events

    @property
    def bytes_sent(self) -> int:
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
        return hashlib.blake2b(self.id.encode(), key=self._hub.secret, digest_size=16).hexdigest()

    def accepts(self, token: str) -> bool:
        """Whether this is the token; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    async def send(
        self, data: Any, *, type: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        """Send an event to this client alone; it is kept nowhere. `retry` is in milliseconds.

        It comes behind all that was published before, unless the client is still being given what it missed. Waits
        while the client's outbox is full. Raises `InvalidEvent`, and `ConnectionReleased` if the client leaves before
        there is room.
        """
        event = data if isinstance(data, Event) else Event(data, type=type, id=id, retry=retry)
        self._check()
        while self._link.full:
            await asyncio.sleep(ROOM_INTERVAL)
            self._check()
        self._slot.events += 1
        self._slot.sent_at = time.monotonic()
        self._link.send(event.encode())

    def close(self, reason: str = "kicked") -> None:
        """End the stream now, after what is already half-written; the client is told the reason.

        Raises `ValueError` for a word that is not a reason of the design.
        """
        self._check()
        self._link.close(Reason(reason), retry=self._hub.delivery.retry())

    def touch(self, now: float) -> None:
        """The client has sent something."""
        self._check()
        self._slot.received_at = now

    def link_ended(self, reason: Reason) -> None:
        """The link tells that the client has gone."""
        self._hub.released(self, self._slot, self._visit, reason)

    def _check(self) -> None:
        if self._slot.generation != self._generation:
            raise ConnectionReleased(f"the client of connection {self.id} has left")

    def __repr__(self) -> str:
        return f"<Connection {self.id} {'open' if self.is_open else 'released'}>"
