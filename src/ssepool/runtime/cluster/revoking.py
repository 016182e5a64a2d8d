"""Revoking: grants are taken back on all nodes, on those that start later, and again after all have started anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import msgspec

from ssepool.core.revocations import MAX_REVOCATIONS, Revocation
from ssepool.core.states import Reason, SlotState
from ssepool.errors import BrokerError, RevocationsFull
from ssepool.runtime.cluster.cluster import UNREADABLE, Cluster
from ssepool.runtime.cluster.messages import Revoke
from ssepool.runtime.connections import Connection
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.slices import in_slices

logger = logging.getLogger("ssepool")

LOOK_SECONDS = 5.0
"""Seconds between two looks at what the broker keeps: for what the side channel has lost."""

SWEEP_SECONDS = 0.05
"""Seconds from a revocation until the open streams are looked through: once for all that come together."""

FACT = "revocation-"
"""How the names of the facts begin that are revocations."""

MAX_LEARNT = 2 * MAX_REVOCATIONS
"""Revocations that are learnt from others at most: each node bounds those that it is told itself."""

ALONE = "it holds on this node alone, as long as this lives: revoke again"
"""The end of the error message when the broker did not keep a revocation."""


class Revoking:
    """Takes grants back: ends the streams that are open with them, and refuses those who wait."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        """Nothing is read before `open`."""
        self._engine = engine
        self._cluster = cluster
        self._read_to = 0
        self._watching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """The next look at the open streams; None if none is due or going on."""
        self._again = False
        """Something was learnt since the last one began."""
        cluster.on(Revoke, self._hear)

    async def open(self) -> None:
        """Learn what was revoked before, and from now on what the side channel does not tell. Raises `BrokerError`."""
        async with self._in_time():
            await self._read()
        if not self._engine.log.complete:  # else there is nobody else
            self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Learn nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def revoke(self, revocation: Revocation) -> Revocation:
        """Take grants back, and return what is in force for them now. It has come to the other nodes that hear this one
        within a second, and within `LOOK_SECONDS` more to all that reach the broker.

        Raises `RevocationsFull`, and `BrokerError` if the broker does not keep it: then it holds here alone.
        """
        known = self._learn(revocation, MAX_REVOCATIONS)
        self._cluster.spread(Revoke(known))
        seconds = known.until - self._engine.wall_clock()
        try:
            async with self._in_time():
                await self._engine.log.broker.keep(FACT + known.id, msgspec.json.encode(known), seconds)
        except BrokerError as error:
            raise BrokerError(f"{error}; {ALONE}") from error
        return known

    # How it is learnt.

    def _learn(self, revocation: Revocation, most: int = MAX_LEARNT) -> Revocation:
        known = self._engine.revocations.add(revocation, most)
        self._again = True
        if self._timer is None:
            self._sweep_soon()
        return known

    async def _hear(self, told: Revoke) -> None:
        self._learn(told.revocation)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                async with self._in_time():
                    await self._read()
            except (BrokerError, RevocationsFull) as error:
                logger.warning("what was revoked on other nodes could not be read: %s", error)

    async def _read(self) -> None:
        """Learn what the broker keeps and was not read before."""
        while facts := await self._engine.log.broker.kept(self._read_to):
            for fact in facts:
                if fact.name.startswith(FACT):
                    try:
                        self._learn(msgspec.json.decode(fact.data, type=Revocation))
                    except UNREADABLE as error:
                        logger.error("a revocation that the broker keeps cannot be read, and does not hold: %s", error)
            self._read_to = facts[-1].number

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self._engine.config.broker_timeout
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise BrokerError(f"{self._engine.log.broker.url} did not answer in {seconds:g} s") from None

    # What follows from it.

    def _sweep_soon(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._again = False
        in_slices(self._swept(), self._engine.now)

    def _swept(self) -> Iterator[int]:
        try:
            yield from self._end_all()
        except Exception:  # a defect that one look meets must not keep later ones from ending streams
            logger.exception("ending the streams of revoked grants failed")
        finally:
            self._timer = None
            if self._again:  # whom the look had passed by then
                self._sweep_soon()

    def _end_all(self) -> Iterator[int]:
        """End the streams that are open with a grant that was taken back, and refuse the waiters that have one."""
        pool, connections, covers = self._engine.pool, self._engine.connections, self._engine.revocations.covers
        for waiter in list(pool.waiting):
            if covers(waiter.grant):
                pool.refuse(waiter)
            yield 0
        for slot in connections.held():
            link = slot.holder
            # One that is not open yet is looked at when it opens.
            if slot.state is SlotState.OPEN and link is not None and isinstance(link.owner, Connection):
                if covers(link.owner.visit.grant):
                    connections.evict(slot, Reason.REVOKED)
                    yield link.weight
                else:
                    yield 0
