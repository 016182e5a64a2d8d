"""Monitor: the hub's own state as a live topic, for dashboards."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ssepool.core.report import Report, merged
from ssepool.errors import BrokerError
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.streams.feeds import Feeds
from ssepool.runtime.tasks import Tasks

TOPIC = "ssepool/pool"
"""Where the state is announced."""
TYPE = "ssepool.pool"
"""The type of these events."""

INTERVAL_SECONDS = 0.5
"""Between two reports at the least."""


class Monitor:
    """While anybody listens to `ssepool/pool`, announces the pool's state there whenever it has changed."""

    def __init__(self, nodes: Nodes, feeds: Feeds, tasks: Tasks) -> None:
        """Starts looking, on a timer of the event loop that runs now."""
        self._nodes = nodes
        self._feeds = feeds
        self._tasks = tasks
        self._last: Any = None
        self._asking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(INTERVAL_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._handle.cancel()

    def _look(self) -> None:
        self._handle = self._loop.call_later(INTERVAL_SECONDS, self._look)
        if not self._feeds.listeners(TOPIC):
            self._last = None
        elif self._asking is None or self._asking.done():  # not yet again, if the others take long
            self._asking = self._tasks.start(self._ask())

    async def _ask(self) -> None:
        """Tell what all workers of this port have together."""
        try:
            reports, missing = await self._nodes.reports(group=True, cells=True)
        except BrokerError:  # the event log says so in its own words
            return
        if not missing:
            self._tell(merged(reports))

    def _tell(self, state: Report) -> None:
        # Time passes, and what the report itself adds to the counters is no news. A newcomer needs a first picture,
        # also when nothing changes.
        listeners = sorted(id(link) for feed in self._feeds.listeners(TOPIC) for link in feed.members)
        news = (listeners, state.events.published, state.pool, state.feeds, state.history, state.cells)
        if news != self._last:
            self._last = news
            self._feeds.announce(TOPIC, msgspec.to_builtins(state), type=TYPE)
