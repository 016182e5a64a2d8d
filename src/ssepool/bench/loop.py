"""The sockets of a measurement and the peers that read them: one thread, one poller, no tasks."""

from __future__ import annotations

import socket
import time
from typing import Protocol

from ssepool.bench.marker import Scans
from ssepool.bench.poller import READ, Poller, best

MAX_READY_SOCKETS = 64
"""Sockets that one turn reads at most: what they bring is timed at the turn's end, so a turn has to be short."""
MAX_WAIT_SECONDS = 0.1
"""How long a turn waits for sockets at most, so that the caller can look at other things in between."""


def clock() -> int:
    """The machine's monotonic clock, in microseconds; all times of a measurement are of this clock."""
    return time.monotonic_ns() // 1000


class Peer(Protocol):
    """The reader of one socket."""

    @property
    def scans(self) -> Scans | None:
        """If there are scans, `Subscribers.turn` reads for this peer and looks the bytes up in them; if not, it calls
        `ready`."""

    def ready(self, mask: int) -> None:
        """Read or write: the socket is ready for `mask`, which is `READ`, `WRITE` or both."""


class Sockets:
    """All sockets of a measurement, by descriptor."""

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}
        """The reader of each descriptor that is watched."""
        self._poller: Poller = best()
        self._sockets: dict[int, socket.socket] = {}

    def add(self, connection: socket.socket, peer: Peer, mask: int = READ) -> int:
        """Watch a socket, which from now on is closed here, for its peer; return the descriptor."""
        fd = connection.fileno()
        self._poller.register(fd, mask)
        self._sockets[fd] = connection
        self.peers[fd] = peer
        return fd

    def hand_over(self, fd: int, peer: Peer, mask: int = READ) -> None:
        """Give a socket to another peer, and watch it for `mask`."""
        self.peers[fd] = peer
        self._poller.modify(fd, mask)

    def wait_for(self, fd: int, mask: int) -> None:
        """Watch a socket for `mask` from now on."""
        self._poller.modify(fd, mask)

    def ignore(self, fd: int) -> None:
        """Keep a socket open, but do not watch it any longer."""
        self._poller.unregister(fd)
        del self.peers[fd]

    def heed(self, fd: int, peer: Peer) -> None:
        """Watch a socket again that was ignored."""
        self._poller.register(fd, READ)
        self.peers[fd] = peer

    def drop(self, fd: int) -> None:
        """Close a socket."""
        if self.peers.pop(fd, None) is not None:
            self._poller.unregister(fd)
        self._sockets.pop(fd).close()

    def ready(self, seconds: float) -> list[tuple[int, int]]:
        """Wait up to `seconds` or `MAX_WAIT_SECONDS`; return the descriptors that are ready, each with its mask."""
        return self._poller.poll(min(seconds, MAX_WAIT_SECONDS), MAX_READY_SOCKETS)

    def close(self) -> None:
        """Close all sockets, and the poller."""
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()
        self.peers.clear()
        self._poller.close()
