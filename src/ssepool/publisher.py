"""Publisher: publish without a hub, straight to the broker, from a task queue, a cron job or a WSGI application."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from ssepool.brokers import connect
from ssepool.brokers.backstop import Backstop
from ssepool.brokers.base import InstantBroker
from ssepool.brokers.group import GroupCommit
from ssepool.config import HubConfig, MiB, OnDuplicate
from ssepool.core.data import DataEncoder, JSONEncoder
from ssepool.core.event import Event, EventFields, TombstoneFields
from ssepool.errors import BrokerError, ConfigError, InvalidTopic

T = TypeVar("T")

UNBOUNDED = 10**12
"""Events, bytes and seconds of history: only the hubs know their settings. What a publisher does where there is no hub,
`Backstop` says."""

FIRST_PUBLISH_TIMEOUTS = 2
"""How many times `broker_timeout` a first publish takes at most: it connects before it publishes."""


class AsyncPublisher:
    """Publishes to the hubs that share a broker: `async with AsyncPublisher("redis://...") as publisher`.

    It connects with the first publish. Any number of tasks of one event loop may use it at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        broker_timeout: float = 5.0,
        on_duplicate: OnDuplicate = "ignore",
        max_event_size: int = MiB,
        json_encoder: JSONEncoder | None = None,
    ) -> None:
        """The parameters are the hubs' settings: `url` is their `broker`, the others have the same name and unit.

        `json_encoder` is as for `Hub`. The hubs decide how much is kept for replay. Raises `ConfigError` for a URL that
        a publisher cannot use, such as `memory://`, which no other process could read.
        """
        config = HubConfig(
            broker=url,
            broker_timeout=broker_timeout,
            on_duplicate=on_duplicate,
            max_event_size=max_event_size,
            history_events=UNBOUNDED,
            history_bytes=UNBOUNDED,
            history_age=UNBOUNDED,
        )
        self._encoder = DataEncoder(json_encoder, max_event_size)
        self._broker = connect(config)
        if isinstance(self._broker, InstantBroker):
            raise ConfigError(
                f"a publisher cannot use {url!r}, which is kept in one process; publish through its hub "
                "(Hub.publish, POST /events), or give both a broker that they share, such as sqlite:///events.db"
            )
        self._broker.follows = False
        self._group = GroupCommit(self._broker)
        self._backstop = Backstop(self._broker, time.monotonic)
        self._opening: asyncio.Task[None] | None = None
        self._is_open = False

    async def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to one topic or several, and return its id when the broker has stored it.

        The fields are those of `Event`: `type`, `id`, `retry` in milliseconds, `private`, `key` and `removed`. Give
        an `id` of your own if you want to publish again after a `BrokerError`: the broker does not store the same id
        twice.

        Raises `InvalidEvent`, `InvalidTopic`, `BrokerError`, and with the first publish `ConfigError`.
        """
        return (await self.publish_many([Event.of(topic, data, encoder=self._encoder, **fields)]))[0]

    async def remove(
        self, topic: str | Sequence[str], key: str, data: Any = None, **fields: Unpack[TombstoneFields]
    ) -> str:
        """Publish that nothing is there under the key any more, as `Hub.remove`. Raises as `publish` does."""
        return (await self.publish_many([Event.tombstone(topic, key, data, encoder=self._encoder, **fields)]))[0]

    async def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish events in order, all of them or none, and return their ids. Raises as `publish` does."""
        batch = list(events)
        for event in batch:
            if not event.topics:
                raise InvalidTopic("an event needs at least one topic to be published to")
        if not self._is_open:
            await self._open()
        ids = [stored.id for stored in await self._group.append(batch)]
        await self._backstop.published(len(ids))
        return ids

    async def close(self) -> None:
        """Close the connection. A publish that is still on its way to the broker fails."""
        await self._group.close()
        await self._broker.close()
        self._is_open = False

    async def _open(self) -> None:
        """Connect, once for all tasks that wait for it. A failure is forgotten: the next publish tries again."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
        opening = self._opening
        try:
            await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _connect(self) -> None:
        timeout = self._broker.config.broker_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._broker.open()
        except TimeoutError:
            raise BrokerError(f"{self._broker.url} did not answer in {timeout:g} s; nothing was published") from None
        self._is_open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class Publisher:
    """`AsyncPublisher` for programs without an event loop: `Publisher("redis://...").publish("news", "hello")`.

    One object serves all threads of a process. A forked process makes a connection of its own with its first publish,
    so a publisher may be a global variable of a module. It keeps a thread of its own for the connection.
    """

    def __init__(
        self,
        url: str,
        *,
        broker_timeout: float = 5.0,
        on_duplicate: OnDuplicate = "ignore",
        max_event_size: int = MiB,
        json_encoder: JSONEncoder | None = None,
    ) -> None:
        """As `AsyncPublisher`. There is no connection and no thread before the first publish."""
        self._settings: dict[str, Any] = {
            "broker_timeout": broker_timeout,
            "on_duplicate": on_duplicate,
            "max_event_size": max_event_size,
        }
        self._encoder = DataEncoder(json_encoder, max_event_size)
        self._url = url
        self._timeout = broker_timeout
        self._fresh: AsyncPublisher | None = AsyncPublisher(url, **self._settings)  # raises for a wrong URL at once
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._publisher: AsyncPublisher

    def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to one topic or several, and return its id when the broker has stored it.

        The fields and the errors are those of `AsyncPublisher.publish`: `type`, `id`, `retry` in milliseconds,
        `private`, `key` and `removed`. Blocks until then, at most a second longer than twice `broker_timeout`.
        """
        return self.publish_many([Event.of(topic, data, encoder=self._encoder, **fields)])[0]

    def remove(self, topic: str | Sequence[str], key: str, data: Any = None, **fields: Unpack[TombstoneFields]) -> str:
        """Publish that nothing is there under the key any more, as `Hub.remove`. Raises as `publish` does."""
        return self.publish_many([Event.tombstone(topic, key, data, encoder=self._encoder, **fields)])[0]

    def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish events in order, all of them or none, and return their ids. Raises as `publish` does."""
        batch = list(events)
        loop = self._start()
        return self._run(loop, self._publisher.publish_many(batch))

    def close(self) -> None:
        """Close the connection, and end the thread. The next publish connects anew."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        self._run(loop, self._publisher.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            # After a fork: the parent's thread is not here, its lock may be held for ever, and its socket is not ours.
            self._pid, self._lock, self._loop, self._fresh = os.getpid(), threading.Lock(), None, None
        with self._lock:
            if self._loop is None:
                self._publisher = self._fresh or AsyncPublisher(self._url, **self._settings)
                self._fresh = None
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="ssepool-publisher", daemon=True)
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(FIRST_PUBLISH_TIMEOUTS * self._timeout + 1)
        except TimeoutError:
            future.cancel()
            raise BrokerError(f"the broker did not answer in {self._timeout:g} s") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
