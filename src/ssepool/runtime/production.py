"""Production: a generator's events on their way to the clients of `Hub.stream`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ssepool.core.event import EARLIEST, Event
from ssepool.core.states import Reason
from ssepool.errors import ConnectionReleased
from ssepool.runtime.delivery import SLICE

if TYPE_CHECKING:
    from ssepool.runtime.connection import Connection
    from ssepool.runtime.hub import Hub
    from ssepool.runtime.link import Link
    from ssepool.runtime.visit import Visit

logger = logging.getLogger("ssepool")


class Production:
    """Runs one generator.

    With a topic its events are published there: the generator goes on when clients leave, any number of them may
    watch, and who comes back gets the rest, also after the generator's end. Without a topic its events go to the one
    client that asked, at the pace at which that client takes them, and end with it.
    """

    def __init__(
        self, hub: Hub, source: AsyncIterable[Any], topic: str | None, over: Callable[[Production], None]
    ) -> None:
        """`over` is called once, when the generator has ended or will never begin."""
        self._hub = hub
        self._over = over
        self._source = source
        self.topic = topic
        self._task: asyncio.Task[None] | None = None
        self._viewers: set[Link] = set()
        self._visits = 0
        self.start = 0
        """The broker's position before the first event."""
        self._last: int | None = None
        """The broker's position of the last event that was published."""
        self._end: int | None = None
        """Its position after the last event, once it has ended."""
        self._outcome: Reason | None = None
        self.ended_at: float | None = None

    def expect(self) -> None:
        """One more request is on its way in."""
        self._visits += 1

    async def left(self, spare: AsyncIterable[Any] | None) -> None:
        """A request has been dealt with. Its generator is closed unused if another one runs, and this one if no
        request for it got a slot."""
        if spare is not None and spare is not self._source:
            await _aclose(spare)
        self._visits -= 1
        if self._visits == 0 and self._task is None:
            self._over(self)
            await _aclose(self._source)

    def attend(self, connection: Connection, link: Link) -> None:
        """A client has its slot: start the generator if it is the first, end its stream if it is too late."""
        if self._task is None:
            self.start = self._hub.log.position
            self._task = self._hub.tasks.start(self._run(connection))
        self._viewers.add(link)
        if self._outcome is not None:
            link.finishing = self._outcome

    def unattend(self, link: Link) -> None:
        """A client has left."""
        self._viewers.discard(link)
        if self.topic is None:
            self.cancel()

    def is_over_for(self, last_event_id: str | None) -> bool:
        """Whether a client that comes back with this id has all that there ever will be."""
        if self._end is None or last_event_id is None or last_event_id == EARLIEST:
            return False
        found = self._hub.log.find(last_event_id)
        return found is not None and found.complete and found.position >= self._end

    async def _run(self, connection: Connection) -> None:
        outcome = Reason.COMPLETED
        try:
            await self._pass_on(connection)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # we are to end; if not, something that the generator waits for was cancelled
            logger.exception("a generator given to Hub.stream failed (topic %r)", self.topic)
            outcome = Reason.ERROR
        finally:
            await _aclose(self._source)
        if self._last is not None:
            await self._hub.log.reached(self._last)  # viewers are sent away only once they can get all of it
        self._end = self.start if self._last is None else self._last
        self._outcome = outcome
        self.ended_at = self._hub.now()
        self._over(self)
        for viewer in list(self._viewers):
            viewer.finish(outcome)

    async def _pass_on(self, connection: Connection) -> None:
        paused_at = perf_counter()
        async for item in self._source:
            event = item if isinstance(item, Event) else Event(item)
            if self.topic is not None:
                named = Event(event.data, (self.topic,), event.type, event.id, event.retry, event.private)
                [(_, self._last)] = await self._hub.store([named])
            else:
                try:
                    await connection.send(event)
                except ConnectionReleased:
                    return
            if perf_counter() - paused_at > SLICE:  # neither the generator nor we may have waited for anything
                await asyncio.sleep(0)
                paused_at = perf_counter()

    def cancel(self) -> None:
        """Stop the generator: its one client has left, or the hub closes."""
        if self._task is not None and not self._task.cancelling():  # a second time would hit its cleaning up
            self._task.cancel()


class Productions:
    """The productions that have a topic, by it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._by_topic: dict[str, Production] = {}
        self._ended: deque[Production] = deque()

    def give(self, visit: Visit, source: AsyncIterable[Any], topic: str | None) -> None:
        """Give the visit a production of `source`, or the one that its topic has already."""
        production = self._by_topic.get(topic) if topic is not None else None
        if production is None:
            production = Production(self._hub, source, topic, self._over)
            if topic is not None:
                self._by_topic[topic] = production
        else:
            visit.spare = source
        production.expect()
        visit.production = production

    def expire(self, now: float) -> None:
        """Give the topics free whose events are kept no longer."""
        oldest = now - self._hub.config.history_age
        while self._ended and (self._ended[0].ended_at or 0.0) <= oldest:
            self._forget(self._ended.popleft())

    def cancel(self) -> None:
        """Stop all: the hub closes."""
        for production in list(self._by_topic.values()):
            production.cancel()

    def _over(self, production: Production) -> None:
        if production.topic is not None and production.ended_at is not None:
            self._ended.append(production)
        else:
            self._forget(production)

    def _forget(self, production: Production) -> None:
        if production.topic is not None and self._by_topic.get(production.topic) is production:
            del self._by_topic[production.topic]


async def _aclose(source: AsyncIterable[Any]) -> None:
    """Run a generator's `finally` blocks now, not when it happens to be collected."""
    if (aclose := getattr(source, "aclose", None)) is not None:
        try:
            await aclose()
        except Exception:
            logger.exception("a generator given to Hub.stream failed while it was closed")
