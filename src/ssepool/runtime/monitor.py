"""Monitor: the hub's own state as a live topic, for dashboards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

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
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(INTERVAL, self._look)

    def stop(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        self._handle = self._loop.call_later(INTERVAL, self._look)
        hub = self._hub
        feeds = hub.listeners(TOPIC)
        if not feeds:
            self._last = None
            return
        state = {**hub.stats().report(), "cells": hub.pool.cells()}
        # Time passes, and what the report itself adds to the counters is no news.
        news = {key: value for key, value in state.items() if key not in ("uptime", "bytes_sent", "events")}
        news["published"] = state["events"]["published"]
        # A newcomer needs a first picture, also when nothing changes.
        news["listeners"] = sorted(id(link) for feed in feeds for link in feed.members)
        if news != self._last:
            self._last = news
            hub.announce(TOPIC, state, type=TYPE)
