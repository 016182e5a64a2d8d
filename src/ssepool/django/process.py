"""The hub of this process, as `settings.SSEPOOL` wants it, and its life."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from ssepool.config import load
from ssepool.errors import ConfigError
from ssepool.hub import Hub
from ssepool.publisher import Publisher

AUTHORIZE = "authorize"
"""The key of `SSEPOOL` that is no section: the function of `Hub(authorize=...)`, or where it is."""


def hub_of_settings() -> Hub:
    """A new hub with the settings of `settings.SSEPOOL`, which has the sections of `ssepool.toml` (`pool`, `access`,
    `hub`), and `authorize`: a function, or its name with dots. Raises `ConfigError`."""
    given: Any = getattr(settings, "SSEPOOL", {})
    if not isinstance(given, dict):
        raise ConfigError(f"SSEPOOL = {given!r} is not allowed; it takes a dict with the sections of ssepool.toml")
    tables = {name: table for name, table in given.items() if name != AUTHORIZE}
    if "server" in tables:
        raise ConfigError("SSEPOOL['server'] is not allowed; these are settings of `ssepool serve`, which is not here")
    authorize = given.get(AUTHORIZE)
    if isinstance(authorize, str):
        try:
            authorize = import_string(authorize)
        except ImportError as error:
            raise ConfigError(f"SSEPOOL['authorize'] = {authorize!r} cannot be imported: {error}") from error
    if authorize is not None and not callable(authorize):
        raise ConfigError(f"SSEPOOL['authorize'] = {authorize!r} is not allowed; it takes a function, or its name")
    try:
        return Hub(load(tables=tables)[0], authorize=authorize)
    except ConfigError as error:
        raise ConfigError(f"SSEPOOL: {error}") from error


class Process:
    """What there is once in a process: its hub, and what publishes while the hub is not open here."""

    def __init__(self) -> None:
        """Nothing is opened yet. Raises `ConfigError`."""
        self.hub = hub_of_settings()
        """The hub."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._opening: asyncio.Task[None] | None = None
        self._kept: contextlib.AbstractAsyncContextManager[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop on which the hub is open; None where it is not open: after a fork it is not."""
        loop = self._loop
        return loop if loop is not None and not loop.is_closed() and self._pid == os.getpid() else None

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """The hub's lifespan, for a server that has one."""
        async with self.hub.lifespan(app):
            self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
            try:
                yield
            finally:
                self._loop = None

    async def open(self) -> None:
        """Open the hub if it is not open: for a server that says nothing of its life. Raises as `Hub.open` does."""
        if self.loop is None:
            if self._opening is None or self._opening.done():  # done: it failed, and the next request tries again
                self._opening = asyncio.create_task(self._open())
            await asyncio.shield(self._opening)

    async def _open(self) -> None:
        kept = self.lifespan()
        await kept.__aenter__()
        self._kept = kept  # until the process ends: nobody tells that it does, but for the signal that `lifespan` hears

    @functools.cached_property
    def publisher(self) -> Publisher:
        """What publishes over the broker. Raises `ConfigError` for a broker that no other process can reach."""
        config = self.hub.config
        try:
            return Publisher(
                config.broker,
                broker_timeout=config.broker_timeout,
                on_duplicate=config.on_duplicate,
                max_event_size=config.max_event_size,
            )
        except ConfigError as error:
            raise ConfigError(
                f"the hub is not open in this process, and nobody else would hear of it: {error}. Serve the project "
                "with ssepool.django.get_asgi_application(), or name a broker in SSEPOOL['hub']['broker']"
            ) from error


@functools.cache
def process() -> Process:
    """What there is once in this process. Raises `ConfigError` for settings that cannot be obeyed."""
    return Process()


def get_hub() -> Hub:
    """The project's hub in this process: for its hooks, `stream`, `connections`, `kick`, `revoke`. Raises
    `ConfigError` for settings that cannot be obeyed."""
    return process().hub
