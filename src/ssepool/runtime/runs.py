"""Run: one generator's life, and its events on their way to the clients of `Hub.stream`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import reprlib
from collections import deque
from collections.abc import AsyncIterable, Callable
from types import AsyncGeneratorType
from typing import Any

from ssepool.core.event import EARLIEST, Event
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Client, Refused, Viewer, Visit
from ssepool.errors import ConnectionReleased, InvalidEvent, PoolFull
from ssepool.runtime.cuttable import Cuttable
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.delivery import SLICE_SECONDS

logger = logging.getLogger("ssepool")

MAX_ENDED_RUNS = 10_000
"""Runs that are remembered after their end, so that their topics' clients are told that there is no more. Beyond that
the topics of those that ended first are free."""

STOP_SECONDS = 5.0
"""Time that a generator has to clean up once it is to end. Beyond that it is cut."""


class Run:
    """Runs one generator.

    With a topic its events are published there: the generator goes on when clients leave, any number of them may watch,
    and a client that comes back gets the rest, also after the generator's end. Without a topic its events go to the one
    client that asked, at the pace at which that client takes them, and the generator ends with it.

    Each request brings a generator. The one that runs is that of the request that got a slot first; the others are
    closed unused. It runs with the context variables of its request, which is kept until it has ended.
    """

    def __init__(self, engine: Engine, topic: str | None, over: Callable[[Run], None]) -> None:
        """`over` is called once, when the generator has ended or will never begin."""
        self._engine = engine
        self._over = over
        self.topic = topic
        """Where the events are published; None if they are for one client."""
        self._generator: AsyncIterable[Any] | None = None
        """The one that runs."""
        self._task: asyncio.Task[None] | None = None
        self._cuttable = Cuttable()
        self._cancellable = False
        """Whether the task may be cancelled: not before it has begun, nor while the generator cleans up."""
        self._stopped = False
        self._first: asyncio.Future[None]
        """Done with the first event, or the end; there once it has begun, as the next two."""
        self._awaiting = 0
        """Requests whose head is held back for the first event."""
        self._refusal: Exception | None = None
        self._viewers: set[Viewer] = set()
        self._starter: Viewer | None = None
        self._client: Client | None = None
        """The client whose request brought the generator, once its stream is open."""
        self._arrived: asyncio.Future[None]
        self._departed: asyncio.Future[None]
        """Done when it is there, and when it has left."""
        self._visits = 0
        self.start: int | None = None
        """The broker's position before the first event; None before it has begun."""
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

    # Requests and clients.

    def expect(self) -> None:
        """One more request is on its way in."""
        self._visits += 1

    async def begin(self, generator: AsyncIterable[Any] | None, gone: asyncio.Future[None], seconds: float) -> None:
        """See `Source`. Raises `Refused`."""
        self._start(generator)
        if not self._first.done():
            self._awaiting += 1
            try:
                await asyncio.wait((self._first, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._awaiting -= 1
        if self._refusal is not None:
            raise Refused(self._refusal)

    def attend(self, viewer: Viewer, client: Client, generator: AsyncIterable[Any] | None) -> None:
        """A client's stream is open: begin with its generator if none has begun."""
        self._start(generator)
        if generator is self._generator and self._starter is None:
            self._starter, self._client = viewer, client
            self._arrived.set_result(None)
        self._viewers.add(viewer)

    def unattend(self, viewer: Viewer) -> None:
        """A client has left."""
        self._viewers.discard(viewer)
        self._left_at = self._engine.now()
        if viewer is self._starter:
            self._departed.set_result(None)
        if self.topic is None:
            self.cancel()

    async def settled(self, generator: AsyncIterable[Any] | None) -> None:
        """Return when this generator, if it is the one that runs, has ended and its request's client has left. Until
        then the request is kept, and is not on its way in any more: `run_grace` counts although it is here."""
        self._visits -= 1
        try:
            await self._finished(generator)
        finally:
            self._visits += 1

    async def _finished(self, generator: AsyncIterable[Any] | None) -> None:
        if self._task is not None and generator is self._generator:
            await asyncio.wait((self._task, self._departed) if self._starter is not None else (self._task,))

    async def left(self, generator: AsyncIterable[Any] | None) -> None:
        """A request has been dealt with. Its generator is closed unused if another one runs, or none."""
        self._visits -= 1
        if self._task is None and self._visits == 0:
            self._over(self)
        if generator is not self._generator:
            await _aclose(generator)
        elif self.topic is None and self._starter is None:
            self.cancel()
        await self._finished(generator)

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

    # The generator.

    def _start(self, generator: AsyncIterable[Any] | None) -> None:
        if self._task is None:
            assert generator is not None
            loop = asyncio.get_running_loop()
            self._first, self._arrived, self._departed = (loop.create_future() for _ in range(3))
            self._generator = generator
            self.start = self._engine.log.position
            self._task = self._engine.tasks.start(self._run(generator))
            self._task.add_done_callback(lambda task: self._note_first())

    async def _run(self, generator: AsyncIterable[Any]) -> None:
        error = await self._iterated(generator)
        with contextlib.suppress(asyncio.CancelledError):  # it was cut
            await _aclose(generator, self._cuttable)
        if error is not None:
            if self._awaiting and not self._first.done() and not self._viewers:  # their requests fail with it
                self._refusal = error
                self._over(self)
                return
            logger.error("a generator given to Hub.stream failed (topic %r)", self.topic, exc_info=error)
            await self._engine.hooks.run("error", self._client, error)
        if self._stopped:
            return
        self._cancellable = True
        if self._last is not None:
            await self._engine.log.reached(self._last)  # viewers are sent away only once they can get all of it
        self._end = self.start if self._last is None else self._last
        self.outcome = Reason.COMPLETED if error is None else Reason.ERROR
        self.ended_at = self._engine.now()
        self._over(self)
        for viewer in list(self._viewers):
            viewer.finish(self.outcome)

    async def _iterated(self, generator: AsyncIterable[Any]) -> Exception | None:
        """Pass everything on, and return what the generator failed with, if it did."""
        if self._stopped:
            return None
        self._cancellable = True
        try:
            await self._pass_on(generator)
        except Exception as error:
            return error
        except asyncio.CancelledError as error:
            if not self._stopped:  # something that the generator waits for was
                failure = RuntimeError("a generator given to Hub.stream waited for something that was cancelled")
                failure.__cause__ = error
                return failure
        finally:
            self._cancellable = False
        return None

    async def _pass_on(self, generator: AsyncIterable[Any]) -> None:
        if isinstance(generator, AsyncGeneratorType) and generator.ag_frame is None:
            raise ValueError(f"{generator!r} has been used up: each call of Hub.stream takes a generator of its own")
        now = self._engine.now
        paused_at = now()
        items = aiter(generator)
        while True:
            try:
                item = await self._cuttable.run(anext(items))
            except StopAsyncIteration:
                return
            if self._stopped:  # and the generator has caught the cancellation
                return
            event = self._event_of(item)
            if self.topic is not None:
                [(_, self._last)] = await self._engine.store([event])
                self._note_first()
            else:
                self._note_first()
                await self._arrived
                assert self._client is not None
                try:
                    await self._client.send(event)
                except ConnectionReleased:
                    return
            if now() - paused_at > SLICE_SECONDS:  # neither the generator nor we may have waited for anything
                await asyncio.sleep(0)
                paused_at = now()

    def _event_of(self, item: Any) -> Event:
        try:
            return Event.of(() if self.topic is None else (self.topic,), item, encoder=self._engine.encoder)
        except InvalidEvent as error:
            # Not the client's fault, whatever an application makes of this error elsewhere.
            raise TypeError(f"a generator given to Hub.stream yielded {reprlib.repr(item)}: {error}") from error

    def _note_first(self) -> None:
        if not self._first.done():
            self._first.set_result(None)

    # Its end.

    def cancel(self) -> None:
        """Stop the generator: its clients have left, or the hub closes. It has `STOP_SECONDS` to clean up."""
        if self._task is None or self._stopped or self._task.done() or self.outcome is not None:
            return
        self._stopped = True
        if self._cancellable:
            self._task.cancel()
        timer = self._first.get_loop().call_later(STOP_SECONDS, self._cut, self._task)
        self._task.add_done_callback(lambda task: timer.cancel())

    def _cut(self, task: asyncio.Task[None]) -> None:
        logger.error(
            "a generator given to Hub.stream goes on %g s after it was cancelled, and is cut: %r (topic %r). "
            "Does it catch asyncio.CancelledError?",
            *(STOP_SECONDS, self._generator, self.topic),
        )
        self._cuttable.is_cut = True
        task.cancel()


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
            run = Run(self._engine, topic, self._over)
            if topic is not None and self._check_room(visit):
                self._by_topic[topic] = run
        run.expect()
        visit.source, visit.generator = run, generator

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


async def _aclose(generator: AsyncIterable[Any] | None, cuttable: Cuttable | None = None) -> None:
    """Run a generator's `finally` blocks now, not when it happens to be collected."""
    if (aclose := getattr(generator, "aclose", None)) is not None:
        try:
            await (cuttable or Cuttable()).run(aclose())
        except Exception:  # the application's own fault must not keep its clients' slots
            logger.exception("a generator given to Hub.stream failed while it was closed")
