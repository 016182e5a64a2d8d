"""NATS with JetStream on disk."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

from nats.aio.client import Client
from nats.js import JetStreamContext

from services import Service, installed


class Nats(Service):
    """`nats-server` on one port; its store is in the directory that it is given."""

    tools = ("nats-server",)
    options: tuple[str, ...] = ("-js",)
    """Of the command line; without `-js` there is no JetStream."""

    def command(self) -> Sequence[str]:
        place = ("-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.directory / "store"))
        return [installed("nats-server"), *place, *self.options]

    def url(self, name: str) -> str:
        return f"nats://127.0.0.1:{self.port}?name={name}"

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
                return connection.recv(4096).startswith(b"INFO ")
        except OSError:
            return False

    def lose_data(self) -> None:
        # In a thread, because our caller may have a loop of its own.
        deleting = threading.Thread(target=lambda: asyncio.run(self._delete_streams()))
        deleting.start()
        deleting.join()

    async def _delete_streams(self) -> None:
        async with Client() as client:
            await client.connect(f"nats://127.0.0.1:{self.port}")
            js: JetStreamContext = client.jetstream()
            for stream in await js.streams_info():
                await js.delete_stream(str(stream.config.name))
