"""Publishing from anywhere in a project: views of both kinds, signals, commands, task queues."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Unpack

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

from ssepool.core.event import Event, EventFields
from ssepool.django.process import process
from ssepool.errors import PoolClosed

logger = logging.getLogger("ssepool")

LOOK_SECONDS = 1.0
"""Seconds after which a thread that publishes looks whether the server still runs."""


def publish(topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
    """Publish an event to a topic or several, and return its id. For sync code; blocks until the broker has it.

    `fields` are `type`, `id`, `retry` (milliseconds), `private`, `key` and `removed`. Where the hub is open the event
    goes to it, in any other process (a command, a task queue, WSGI) straight to the broker. Raises `InvalidEvent`,
    `InvalidTopic`, `BrokerError`, `ConfigError` if that process cannot reach the broker, and
    `SynchronousOnlyOperation` in async code.
    """
    if _in_async_code():
        raise SynchronousOnlyOperation("publish() blocks the event loop; write await apublish() in async code")
    return _publish(Event.of(topic, data, **fields))


async def apublish(topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
    """As `publish`, for async code."""
    event = Event.of(topic, data, **fields)
    here = process()
    if here.loop is asyncio.get_running_loop():
        return (await here.hub.publish_many([event]))[0]
    return await sync_to_async(_publish, thread_sensitive=False)(event)


def publish_on_commit(
    topic: str | Sequence[str], data: Any, *, using: str | None = None, **fields: Unpack[EventFields]
) -> None:
    """Publish when the transaction of the database `using` commits, and not at all if it is rolled back; outside of a
    transaction at once.

    Events of a transaction come out in the order of these calls. `data` is made into bytes now, so what is wrong with
    it is raised here, while the transaction can still be rolled back: `InvalidEvent`, `InvalidTopic`. An event that
    cannot be published later is logged, for then the data is committed. Async code has no transactions (Django's
    rule), so there it is published at once, in the background.
    """
    event = Event.of(topic, data, **fields)
    if _in_async_code():
        _in_order().submit(_publish_or_log, event)
    else:
        transaction.on_commit(functools.partial(_publish_or_log, event), using=using)


def _publish(event: Event) -> str:
    here = process()
    if (loop := here.loop) is None:
        return here.publisher.publish_many([event])[0]
    future = asyncio.run_coroutine_threadsafe(here.hub.publish_many([event]), loop)
    while True:
        try:
            return future.result(LOOK_SECONDS)[0]
        except TimeoutError:
            if not loop.is_running():  # or the thread would be held for ever, and the process with it
                raise PoolClosed("the server has stopped; it is not known whether the event was published") from None


def _publish_or_log(event: Event) -> None:
    try:
        _publish(event)
    except Exception:  # whatever it is: Django would skip what else is to be done after the commit
        logger.exception("an event for %s could not be published after the commit", ", ".join(event.topics))


def _in_async_code() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@functools.cache
def _in_order() -> ThreadPoolExecutor:
    """One thread, so that what async code publishes keeps its order."""
    return ThreadPoolExecutor(1, "ssepool-publish")
