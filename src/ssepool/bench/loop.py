"""The sockets of a measurement and who reads them: one thread, one poller, no tasks."""

from __future__ import annotations

import socket
import time
from typing import Protocol

from ssepool.bench.marker import Scans
from ssepool.bench.poller import READ, Poller, best

MAX_READY_SOCKETS = 64
"""Sockets of one turn: what they bring gets one time, that of the turn's end."""
MAX_WAIT_SECONDS = 0.1
"""Seconds that a turn waits at most, so that whoever runs the turns can look at other things."""


def clock() -> int:
    """Microseconds of the machine's monotonic clock."""
    return time.monotonic_ns() // 1000


class Peer(Protocol):
    """Who reads a socket."""

    @property
    def scans(self) -> Scans | None:
        """With this, whoever runs the turns reads for it; without, `ready` is called."""

    def ready(self, mask: int) -> None:
        """The socket is ready for what `mask` says."""


class Sockets:
    """All sockets of a measurement by descriptor."""

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}
        self._poller: Poller = best()
        self._sockets: dict[int, socket.socket] = {}

    def add(self, connection: socket.socket, peer: Peer, mask: int = READ) -> int:
        """Take a socket, and tell its peer when it is ready; returns the descriptor."""
        fd = connection.fileno()
        self._poller.register(fd, mask)
        self._sockets[fd] = connection
        self.peers[fd] = peer
        return fd

    def hand_over(self, fd: int, peer: Peer, mask: int = READ) -> None:
        """Give a socket to another peer."""
        self.peers[fd] = peer
        self._poller.modify(fd, mask)

    def wait_for(self, fd: int, mask: int) -> None:
        """Change what a socket is to be ready for."""
        self._poller.modify(fd, mask)

    def ignore(self, fd: int) -> None:
        """Keep a socket open and do not look at it."""
        self._poller.unregister(fd)
        del self.peers[fd]

    def heed(self, fd: int, peer: Peer) -> None:
        """Look at a socket again."""
        self._poller.register(fd, READ)
        self.peers[fd] = peer

    def drop(self, fd: int) -> None:
        """Close a socket."""
        if self.peers.pop(fd, None) is not None:
            self._poller.unregister(fd)
        self._sockets.pop(fd).close()

    def ready(self, seconds: float) -> list[tuple[int, int]]:
        """Sockets that are ready, after at most so long."""
        return self._poller.poll(min(seconds, MAX_WAIT_SECONDS), MAX_READY_SOCKETS)

    def close(self) -> None:
        """Close them all."""
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()
        self.peers.clear()
        self._poller.close()
