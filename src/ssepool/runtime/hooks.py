"""Hooks: the application's functions that the hub calls when clients come, speak and go."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("ssepool")


class Hooks:
    """Functions by the name of what happened, plain or async. A failing one is logged and stops nobody else."""

    def __init__(self) -> None:
        self._hooks: dict[str, list[Callable[..., Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, hook: Callable[..., Any]) -> None:
        self._hooks.setdefault(name, []).append(hook)

    async def run(self, name: str, *args: Any) -> None:
        """Call all hooks of a name, one after the other, and return when they are done."""
        for hook in self._hooks.get(name, ()):
            try:
                result = hook(*args)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("an on_%s hook failed: %r", name, hook)

    def start(self, name: str, *args: Any) -> None:
        """Have all hooks of a name called soon."""
        if name in self._hooks:
            task = asyncio.get_running_loop().create_task(self.run(name, *args))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self, seconds: float) -> None:
        """Let those that run come to their end, but not for longer than this."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
