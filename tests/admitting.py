"""Parts for tests of admission: a small pool, a run that does nothing, a socket that a server hands over, a link
without a head."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import pytest

from parts import Applicant, Paper, running
from ssepool.config import HubConfig, PoolConfig
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.slot import Slot
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Refused, Visit
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import AVAILABLE, Sink
from ssepool.runtime.streams.link import Link, LinkContext
from virtual import now

takes_sockets = pytest.mark.skipif(not AVAILABLE, reason="sockets can be taken over on Linux alone")


def news(grant: Grant = STRANGER, **fields: Any) -> Visit:
    """A visit of its own: binding changes it."""
    return Visit(grant=grant, subscription=Subscription.of(["news"]), **fields)


@contextlib.asynccontextmanager
async def pool_of(size: int = 1, *, detach: bool = False, **settings: Any) -> AsyncIterator[Engine]:
    """An engine in virtual time. `settings` are those of the pool."""
    async with running(HubConfig(pool=PoolConfig(size=size, **settings), detach=detach), now=now()) as engine:
        yield engine


def take_slot(engine: Engine) -> Slot:
    """Have somebody else hold a slot."""
    slot = engine.pool.acquire(engine.now(), Applicant())
    assert isinstance(slot, Slot)
    return slot


class Source:
    """A run, as a visit sees it, and who came and left."""

    def __init__(self, *, start: int | None = 0, outcome: Reason | None = None, last: str | None = None) -> None:
        self.start = start
        self.outcome = outcome
        self.last = last
        """The id with which a client has everything."""
        self.viewers: list[Any] = []
        self.spares: list[Any] = []
        """What came with each request that has been dealt with."""
        self.refusal: Exception | None = None
        """What the generator fails with before its first event."""

    async def begin(self, generator: Any, gone: Any, seconds: float) -> None:
        if self.refusal is not None:
            raise Refused(self.refusal)

    async def settled(self, generator: Any) -> None:
        """Nothing runs."""

    def attend(self, viewer: Any, client: Any, generator: Any) -> None:
        self.viewers.append(viewer)

    def unattend(self, viewer: Any) -> None:
        if viewer in self.viewers:  # it may have left before it attended
            self.viewers.remove(viewer)

    async def left(self, spare: Any) -> None:
        self.spares.append(spare)

    def is_over_for(self, last_event_id: str | None) -> bool:
        return self.last is not None and last_event_id == self.last


class Headless(Paper):
    """A link whose response's head is not out yet."""

    __slots__ = ()

    def __init__(self, context: LinkContext) -> None:
        Link.__init__(self, context)
        self.written = b""
        self.room_left = 10**9


class Handed:
    """A socket that a server hands over, with the client at its other end. A context manager: the client leaves."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.fd = ours.detach()
        self.sink: Sink | None = None
        self.gone_calls = 0
        self._received = b""

    def gone(self) -> None:
        self.gone_calls += 1

    @property
    def received(self) -> bytes:
        """All that the client has got so far."""
        with contextlib.suppress(BlockingIOError):
            while data := self.client.recv(65536):
                self._received += data
        return self._received

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
