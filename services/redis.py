"""Redis that writes all to disk before it acknowledges."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from services import Service, installed


class Redis(Service):
    """`redis-server` on one port, with an append-only file in the directory that it is given."""

    tools = ("redis-server",)
    options: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")

    def command(self) -> Sequence[str]:
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--daemonize", "no")
        return [installed("redis-server"), *place, *self.options]

    def url(self, name: str) -> str:
        return f"redis://127.0.0.1:{self.port}?name={name}"

    def answers(self) -> bool:
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def lose_data(self) -> None:
        self.ask("FLUSHALL")

    def ask(self, command: str) -> bytes:
        """What the server says to a command without spaces in its arguments, as far as it comes at once."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(65536)
