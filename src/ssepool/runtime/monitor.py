"""Monitor: the hub's own state as a live topic, for dashboards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ssepool.errors import BrokerError
from ssepool.runtime.stats import merged

if TYPE_CHECKING:
    from ssepool.runtime.hub import Hub

TOPIC = "ssepool/pool"
TYPE = "ssepool.pool"

INTERVAL = 0.5
"""Seconds between two reports at the least."""


class Monitor:
    """While anybody listens to `ssepool/pool`, announces the pool's state there whenever it has changed."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._last: dict[str, Any] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(INTERVAL, self._look)

    def stop(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        self._handle = self._loop.call_later(INTERVAL, self._look)
        if not self._hub.listeners(TOPIC):
            self._last = None
        elif not self._hub.nodes.are_workers:
            self._tell({**self._hub.stats().report(), "cells": self._hub.pool.cells()})
        elif self._asking is None or self._asking.done():  # not yet again, if the others take long
            self._asking = self._hub.tasks.start(self._ask())

    async def _ask(self) -> None:
        """Tell what all workers of this port have together."""
        try:
            reports, missing = await self._hub.nodes.reports(group=True, cells=True)
        except BrokerError:  # the log says so in its own words
            return
        if not missing:
            self._tell(merged(reports))

    def _tell(self, state: dict[str, Any]) -> None:
        hub = self._hub
        # Time passes, and what the report itself adds to the counters is no news.
        news = {key: value for key, value in state.items() if key not in ("uptime", "bytes_sent", "events")}
        news["published"] = state["events"]["published"]
        # A newcomer needs a first picture, also when nothing changes.
        news["listeners"] = sorted(id(link) for feed in hub.listeners(TOPIC) for link in feed.members)
        if news != self._last:
            self._last = news
            hub.announce(TOPIC, state, type=TYPE)
