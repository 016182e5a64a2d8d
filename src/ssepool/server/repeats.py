"""Repeats: what strangers can have the server log again and again is logged once a second."""

from __future__ import annotations

import logging
from collections.abc import Callable

INTERVAL_SECONDS = 1.0
"""Between two lines of the same text."""

MAX_TEXTS = 100
"""Texts that are remembered: those of the server's own warnings, which are few."""


class Repeats(logging.Filter):
    """Passes a warning over that was logged less than a second ago, and says in the next one how often that was.

    uvicorn warns of each request that it cannot read, and a client can send thousands of them a second. Errors pass
    always: each of them is a defect.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` is a monotonic clock, in seconds."""
        super().__init__()
        self._now = now
        self._seen: dict[str, tuple[float, int]] = {}
        """When each text was logged last, and how often it was passed over since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged; see `logging.Filter`."""
        if record.levelno != logging.WARNING or not isinstance(record.msg, str):
            return True
        now = self._now()
        last, passed_over = self._seen.pop(record.msg, (float("-inf"), 0))
        if now - last < INTERVAL_SECONDS:
            self._seen[record.msg] = last, passed_over + 1
            return False
        if len(self._seen) >= MAX_TEXTS:
            self._seen.clear()
        self._seen[record.msg] = now, 0
        if passed_over:
            record.msg += f" ({passed_over} more like this since the last one)"
        return True
