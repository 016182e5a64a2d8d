"""Run: one generator's life, and its events on their way to the clients of `Hub.stream`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from ssepool.core.event import EARLIEST, Event
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Viewer, Visit
from ssepool.errors import ConnectionReleased, PoolFull
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.delivery import SLICE_SECONDS

Send = Callable[[Event], Awaitable[None]]
"""Writes an event to one client. Raises `ConnectionReleased`."""

logger = logging.getLogger("ssepool")

MAX_ENDED_RUNS = 10_000
"""Runs that are remembered after their end, so that their topics' clients are told that there is no more. Beyond that
the topics of those that ended first are free."""


class Run:
    """Runs one generator.

    With a topic its events are published there: the generator goes on when clients leave, any number of them may watch,
    and a client that comes back gets the rest, also after the generator's end. Without a topic its events go to the one
    client that asked, at the pace at which that client takes them, and the generator ends with it.
    """

    def __init__(
        self, engine: Engine, generator: AsyncIterable[Any], topic: str | None, over: Callable[[Run], None]
    ) -> None:
        """`over` is called once, when the generator has ended or will never begin."""
        self._engine = engine
        self._over = over
        self._generator = generator
        self.topic = topic
        """Where the events are published; None if they are for one client."""
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        """Whether the task has come to its first step, and so will close the generator itself."""
        self._viewers: set[Viewer] = set()
        self._visits = 0
        self.start = 0
        """The broker's position before the first event."""
        self._last: int | None = None
        """The broker's position of the last event that was published."""
        self._end: int | None = None
        """Its position after the last event, once it has ended."""
        self.outcome: Reason | None = None
        """Why the generator has ended; None while it goes on."""
        self.ended_at: float | None = None
        """When that was, by the hub's clock."""
        self._left_at = engine.now()
        """When the last viewer left, if there is none."""

    def expect(self) -> None:
        """One more request is on its way in."""
        self._visits += 1

    async def left(self, spare: AsyncIterable[Any] | None) -> None:
        """A request has been dealt with. Its generator is closed unused if another one runs, and this one if no
        request for it got a slot."""
        if spare is not None and spare is not self._generator:
            await _aclose(spare)
        self._visits -= 1
        if self._visits == 0 and self._task is None:
            self._over(self)
            await _aclose(self._generator)

    def attend(self, viewer: Viewer, send: Send) -> None:
        """A client has its slot: start the generator if it is the first. `send` writes to this client alone."""
        if self._task is None:
            self.start = self._engine.log.position
            self._task = self._engine.tasks.start(self._run(send))
        self._viewers.add(viewer)

    def unattend(self, viewer: Viewer) -> None:
        """A client has left."""
        self._viewers.discard(viewer)
        self._left_at = self._engine.now()
        if self.topic is None:
            self.cancel()

    def is_deserted(self, since: float) -> bool:
        """Whether it goes on and has been watched by nobody since a time, and nobody is on the way in."""
        is_watched = bool(self._viewers) or self._visits > 0
        return self._task is not None and self.ended_at is None and not is_watched and self._left_at <= since

    def is_over_for(self, last_event_id: str | None) -> bool:
        """Whether a client that comes back with this id has all that there ever will be."""
        if self._end is None or last_event_id is None or last_event_id == EARLIEST:
            return False
        subscription = Subscription(frozenset(() if self.topic is None else (self.topic,)), private=True)
        found = self._engine.log.find(last_event_id, subscription)
        return found is not None and found.complete and found.position >= self._end

    async def _run(self, send: Send) -> None:
        self._begun = True
        outcome = Reason.COMPLETED
        try:
            await self._pass_on(send)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # we are to end; if not, something that the generator waits for was cancelled
            logger.exception("a generator given to Hub.stream failed (topic %r)", self.topic)
            outcome = Reason.ERROR
        finally:
            await _aclose(self._generator)
        if self._last is not None:
            await self._engine.log.reached(self._last)  # viewers are sent away only once they can get all of it
        self._end = self.start if self._last is None else self._last
        self.outcome = outcome
        self.ended_at = self._engine.now()
        self._over(self)
        for viewer in list(self._viewers):
            viewer.finish(outcome)

    async def _pass_on(self, send: Send) -> None:
        now = self._engine.now
        paused_at = now()
        async for item in self._generator:
            topics = () if self.topic is None else (self.topic,)
            event = Event.of(topics, item, encoder=self._engine.encoder)
            if self.topic is not None:
                [(_, self._last)] = await self._engine.store([event])
            else:
                try:
                    await send(event)
                except ConnectionReleased:
                    return
            if now() - paused_at > SLICE_SECONDS:  # neither the generator nor we may have waited for anything
                await asyncio.sleep(0)
                paused_at = now()

    def cancel(self) -> None:
        """Stop the generator: its clients have left, or the hub closes."""
        if self._task is not None and not self._task.cancelling():  # a second time would hit its cleaning up
            if not self._begun:
                self._engine.tasks.start(_aclose(self._generator))
            self._task.cancel()


class Runs:
    """The runs that have a topic, by it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._by_topic: dict[str, Run] = {}
        self._ended: deque[Run] = deque()

    def give(self, visit: Visit, generator: AsyncIterable[Any], topic: str | None) -> None:
        """Give the visit a run of this generator, or the one that its topic has already. Beyond `max_runs` the visit is
        refused, and the generator is closed unused."""
        run = self._by_topic.get(topic) if topic is not None else None
        if run is None:
            run = Run(self._engine, generator, topic, self._over)
            if topic is not None and self._check_room(visit):
                self._by_topic[topic] = run
        else:
            visit.spare = generator
        run.expect()
        visit.source = run

    def expire(self, now: float) -> None:
        """Give the topics free whose events are kept no longer, and end the runs that nobody has watched for
        `run_grace` seconds: who comes later begins another."""
        if grace := self._engine.config.run_grace:
            for run in [run for run in self._by_topic.values() if run.is_deserted(now - grace)]:
                self._forget(run)
                run.cancel()
        oldest = now - self._engine.config.history_age
        while self._ended and (self._ended[0].ended_at or 0.0) <= oldest:
            self._forget(self._ended.popleft())

    def cancel(self) -> None:
        """Stop all: the hub closes."""
        for run in list(self._by_topic.values()):
            run.cancel()

    def _check_room(self, visit: Visit) -> bool:
        max_runs = self._engine.config.max_runs
        if len(self._by_topic) - len(self._ended) < max_runs:
            return True
        visit.refusal = PoolFull(f"max_runs={max_runs} generators with a topic run already")
        return False

    def _over(self, run: Run) -> None:
        if run.topic is not None and run.ended_at is not None:
            self._ended.append(run)
            if len(self._ended) > MAX_ENDED_RUNS:
                self._forget(self._ended.popleft())
        else:
            self._forget(run)

    def _forget(self, run: Run) -> None:
        if run.topic is not None and self._by_topic.get(run.topic) is run:
            del self._by_topic[run.topic]


async def _aclose(generator: AsyncIterable[Any]) -> None:
    """Run a generator's `finally` blocks now, not when it happens to be collected."""
    if (aclose := getattr(generator, "aclose", None)) is not None:
        try:
            await aclose()
        except Exception:  # the application's own fault must not keep its clients' slots
            logger.exception("a generator given to Hub.stream failed while it was closed")
