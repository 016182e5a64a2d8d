"""Background: what an application wants to have done once a client's stream has ended."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Awaitable, Callable

from ssepool.runtime.tasks import Tasks

logger = logging.getLogger("ssepool")


class Background:
    """The background tasks of one response, as Starlette and FastAPI have them. They see the context variables of the
    request. A failing one is logged, and keeps nothing of the client."""

    def __init__(self, work: Callable[[], Awaitable[None]], tasks: Tasks) -> None:
        """`work` does all of it, `tasks` keeps it alive where no request does."""
        self._work = work
        self._tasks = tasks
        self._context = contextvars.copy_context()

    def start(self) -> None:
        """Have it done beside: the request is over."""
        self._context.run(self._tasks.start, self.run())

    async def run(self) -> None:
        """Do it, and return when it is done."""
        try:
            await self._work()
        except Exception:  # of the application's own; its client has been served
            logger.exception("a background task of a stream failed: %r", self._work)
