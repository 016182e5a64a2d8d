"""Unread: what a broker has that this version cannot read."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ssepool.brokers.record import NEWER
from ssepool.core.event import Entry

logger = logging.getLogger("ssepool")

SAID_SECONDS = 60.0
"""Seconds between two lines of the log about records of a newer version: whoever writes them writes more."""


class Unread:
    """Counts the records that are passed over, and says which in the log."""

    def __init__(self, url: str) -> None:
        """`url` is the broker's, for messages."""
        self._url = url
        self._said = -math.inf
        self._unsaid = 0
        self.records = 0
        """Records passed over so far."""

    def pass_over(self, entries: Sequence[Entry], now: float) -> None:
        """These entries stand for records that cannot be read (`brokers.record.unreadable`); `now` in seconds."""
        self.records += len(entries)
        first, last = entries[0].position, entries[-1].position
        if not any(NEWER in entry.topics for entry in entries):
            said = "has records that cannot be read, and are skipped, at the positions"
            logger.error("%s %s %d to %d", self._url, said, first, last)
            return
        self._unsaid += len(entries)
        if now - self._said >= SAID_SECONDS:
            logger.error(
                "%s has records of a newer ssepool, which are skipped here, %d so far since this was last said, "
                "up to the position %d; update this node",
                self._url,
                self._unsaid,
                last,
            )
            self._said, self._unsaid = now, 0
