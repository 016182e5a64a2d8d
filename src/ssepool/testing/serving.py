"""A real server for a test: uvicorn with ssepool's protocol on loopback, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from ssepool.testing.lifespan import Application, Life, running

STOP_SECONDS = 1
"""Seconds that connections have to end when the server stops."""


class Served:
    """An application that is served on loopback."""

    def __init__(self, life: Life, address: tuple[str, int]) -> None:
        self.address = address
        """Host and port."""
        self.errors = life.errors
        """What requests raised, until a test has been told."""

    @property
    def url(self) -> str:
        """Where it is served."""
        return "http://{}:{}".format(*self.address)


class _Server(uvicorn.Server):
    """A server that leaves signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serve(app: Application) -> AsyncIterator[Served]:
    """Serve an application on a free port of loopback, in this event loop, until the block ends.

    uvicorn with `ssepool.uvicorn:Protocol`, so a hub takes its streams' sockets over where that is possible. The
    application's lifespan is run as by `running`.
    """
    async with running(app) as life:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            config = uvicorn.Config(
                life,
                http="ssepool.uvicorn:Protocol",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[sock]))
            try:
                while not server.started and not serving.done():
                    await asyncio.sleep(0)
                yield Served(life, sock.getsockname())
            finally:
                server.should_exit = True
                await serving
