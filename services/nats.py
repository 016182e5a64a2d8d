"""NATS with JetStream on disk: one server, or a cluster."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nats.aio.client import Client
from nats.js import JetStreamContext

from services import Service, free_port, installed


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


class NatsCluster:
    """Three servers that keep each stream together; two of them are a majority."""

    def __init__(self, directory: Path) -> None:
        self.servers = [Nats(directory / f"s{number}") for number in range(3)]
        routes = [free_port() for _ in self.servers]
        known = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
        for number, (server, port) in enumerate(zip(self.servers, routes, strict=True)):
            place = ("-cluster", f"nats://127.0.0.1:{port}", "-cluster_name", "test", "-n", f"s{number}")
            server.options = ("-js", *place, "-routes", known)

    def url(self, name: str) -> str:
        """The broker's URL for a history of this name."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"nats://{hosts}?name={name}&replicas=3"

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Nats.start, self.servers))

    def kill(self) -> None:
        for server in self.servers:
            server.kill()
