"""The life of an application in a test: started once, however many streams there are, and stopped with the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from ssepool.testing.clock import begin_wanted

Scope = MutableMapping[str, Any]
"""What an ASGI application is told of a connection."""
Message = MutableMapping[str, Any]
"""A message of the ASGI specification."""
Receive = Callable[[], Awaitable[Message]]
"""ASGI's `receive`."""
Send = Callable[[Message], Awaitable[None]]
"""ASGI's `send`."""
Application = Callable[[Any, Any, Any], Awaitable[Any]]
"""An ASGI application: FastAPI, Starlette, Django, Litestar, a function."""

_lives: dict[tuple[int, int], Life] = {}


class Life:
    """An application between its startup and its shutdown. What it raises in a request is kept in `errors`, too."""

    def __init__(self, app: Application) -> None:
        self.app = app
        """The application."""
        self.users = 0
        """Streams and tests that need it."""
        self.errors: list[BaseException] = []
        """What requests raised whose errors a server keeps for itself."""
        self._state: dict[str, Any] = {}
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def started(self) -> None:
        """Return when the application has started, or has no lifespan. Raises what its startup raised."""
        await asyncio.shield(self._started)

    async def stop(self) -> None:
        """Shut it down. Raises what its shutdown raised."""
        if self._started.done() and self._started.exception() is None and self._started.result():
            self._messages.put_nowait({"type": "lifespan.shutdown"})
            await self._task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, with the state that the lifespan left."""
        scope["state"] = dict(self._state)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            self.errors.append(error)
            raise

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        self._messages.put_nowait({"type": "lifespan.startup"})
        try:
            await self.app(scope, self._messages.get, self._told)
            if not self._started.done():  # it has no lifespan
                self._started.set_result(False)
        except Exception as error:
            if self._started.done():
                if self._started.exception() is None:
                    raise
            elif isinstance(error, _StartupFailed) or self._failed is not None:
                self._started.set_exception(error)
            else:  # as servers do: it does not know what a lifespan is
                self._started.set_result(False)

    _failed: str | None = None

    async def _told(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._started.set_result(True)
        elif kind == "lifespan.startup.failed":
            self._failed = message.get("message", "")
            raise _StartupFailed(f"the application did not start: {self._failed}")
        elif kind == "lifespan.shutdown.failed":
            raise RuntimeError(f"the application did not shut down: {message.get('message', '')}")
        elif kind != "lifespan.shutdown.complete":  # it takes this for a request
            raise ValueError(f"{kind} is no message of a lifespan")


class _StartupFailed(RuntimeError):
    """The application said that it cannot start."""


@contextlib.asynccontextmanager
async def running(app: Application) -> AsyncIterator[Life]:
    """Run the lifespan of an application around a block: startup at its beginning, shutdown at its end.

    Inside another `running`, or a `stream`, of the same application nothing is started again. An application without a
    lifespan is as it is. Raises what startup or shutdown raised.
    """
    begin_wanted()
    if isinstance(app, Life):
        yield app
        return
    key = id(app), id(asyncio.get_running_loop())
    life = _lives.get(key)
    if life is None:
        life = _lives[key] = Life(app)
    life.users += 1
    try:
        await life.started()
        yield life
    finally:
        life.users -= 1
        if not life.users:
            del _lives[key]
            await life.stop()
