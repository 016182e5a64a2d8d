"""Publishing: the ways in which an application publishes through its hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Unpack

from ssepool.core.event import Event, EventFields, TombstoneFields
from ssepool.runtime.engine import Engine
from ssepool.runtime.threads import Threads


class Publishing:
    """What a `Hub` has to publish with."""

    _engine: Engine
    _threads: Threads

    async def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to a topic or several, and return its id. Waits while delivery is far behind.

        `fields` are `type`, `id`, `retry` (milliseconds), `private`, `key` and `removed`, as `Event` has them. Raises
        `InvalidEvent`, `InvalidTopic`, `BrokerError` or `PoolClosed`.
        """
        return (await self.publish_many([Event.of(topic, data, encoder=self._engine.encoder, **fields)]))[0]

    async def remove(
        self, topic: str | Sequence[str], key: str, data: Any = None, **fields: Unpack[TombstoneFields]
    ) -> str:
        """Publish that nothing is there under the key any more, and return the event's id. Without `data` the event
        carries the key, and its type is `removed` unless `fields` have another. Raises as `publish` does.

        The other ways to publish take `removed=True`: `publish_sync(topic, key, key=key, removed=True)`.
        """
        return (await self.publish_many([Event.tombstone(topic, key, data, encoder=self._engine.encoder, **fields)]))[0]

    async def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish a batch in order, all of it or nothing, and return the ids. Raises as `publish` does."""
        self._threads.check_on_loop("publish")
        return await self._engine.publish_many(events)

    def publish_nowait(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """As `publish`, at once; for brokers that keep events in memory. Does not wait for slow delivery.

        Raises `NotImplementedError` if the broker is not in this process, and `RuntimeError` in another thread than
        that of the event loop.
        """
        self._threads.check_on_loop("publish_nowait")
        return self._engine.publish_nowait((Event.of(topic, data, encoder=self._engine.encoder, **fields),))[0]

    def publish_sync(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """As `publish`, for threads, as plain functions of FastAPI are: waits, and returns the event's id. Raises
        `PoolClosed` also if hub or event loop end meanwhile, and `RuntimeError` on the event loop, where it would wait
        for itself.
        """
        return self._threads.wait(self.event(topic, data, **fields))

    def publish_threadsafe(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> Future[str]:
        """As `publish_sync`, without waiting: returns the future of the event's id, as
        `asyncio.run_coroutine_threadsafe` does. For another event loop: `await asyncio.wrap_future(...)`."""
        return self._threads.submit(self.event(topic, data, **fields))

    def event(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> Event:
        """An event as `publish` makes it, with this hub's `json_encoder`: for `publish_many`, and for a generator to
        yield. Raises `InvalidEvent` or `InvalidTopic`."""
        return Event.of(topic, data, encoder=self._engine.encoder, **fields)
