"""Hooks: the application's functions that the hub calls when clients come, speak and go."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from ssepool.runtime.tasks import Tasks

logger = logging.getLogger("ssepool")


class Hooks:
    """Functions by the name of what happened, plain or async. A failing one is logged and stops nobody else."""

    def __init__(self) -> None:
        self._hooks: dict[str, list[Callable[..., Any]]] = {}
        self._tasks = Tasks()

    def add(self, name: str, hook: Callable[..., Any]) -> None:
        """Have a function called when this happens: `connect`, `disconnect`, `message` or `error`."""
        self._hooks.setdefault(name, []).append(hook)

    def adopt(self, others: Hooks) -> None:
        """Have the functions of others called as well, also those that they are given later: the list is one."""
        self._hooks = others._hooks

    def __contains__(self, name: str) -> bool:
        """Whether there is any hook of this name."""
        return name in self._hooks

    async def run(self, name: str, *args: Any) -> None:
        """Call all hooks of a name, one after the other, and return when they are done."""
        for hook in self._hooks.get(name, ()):
            try:
                result = hook(*args)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # an application's defect must end neither the stream nor the other hooks
                logger.exception("an on_%s hook failed: %r", name, hook)

    def start(self, name: str, *args: Any) -> None:
        """Have all hooks of a name called soon."""
        if name in self._hooks:
            self._tasks.start(self.run(name, *args))

    async def close(self, seconds: float) -> None:
        """Let those that were started come to their end, but not for longer than this."""
        if late := await self._tasks.close(seconds):
            logger.error(
                "%d calls of hooks took longer than %g s when the hub closed; they were cancelled", late, seconds
            )
