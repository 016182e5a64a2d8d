"""Notifier: wakes all who have the same database open on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux gives each open directory a short name: the path of a socket may have no more than about 100 bytes."""


class Notifier:
    """Each listener has a datagram socket in one directory beside the database; to ring is to send a byte to each.

    Nothing depends on it but speed: where there are no such sockets, and where a ring is lost, the brokers look by
    themselves after a while. Sockets of processes that were killed are removed by whoever finds them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket: socket.socket | None = None
        self._descriptor = -1
        self._short = ""
        """The directory's name for sockets."""
        self._name = secrets.token_hex(8)

    def open(self, heard: Callable[[], None]) -> None:
        """Call `heard` in the running loop from now on, once or more after each ring, one's own included."""
        if self._socket is not None:
            return
        with contextlib.suppress(OSError, AttributeError, NotImplementedError):  # other systems have no such sockets
            self._directory.mkdir(exist_ok=True)
            self._descriptor = os.open(self._directory, os.O_RDONLY)
            short = DESCRIPTORS / str(self._descriptor)
            self._short = str(short if DESCRIPTORS.is_dir() else self._directory)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listener.setblocking(False)
            self._socket = listener
            listener.bind(f"{self._short}/{self._name}")
            asyncio.get_running_loop().add_reader(listener, self._hear, listener, heard)

    def close(self) -> None:
        """Hear nothing any more, and leave no socket behind."""
        listener, self._socket = self._socket, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
            (self._directory / self._name).unlink(missing_ok=True)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def notify(self) -> None:
        """Wake all who listen. May be called from any thread."""
        listener = self._socket
        if listener is None:
            return
        with contextlib.suppress(OSError):  # the directory has gone, or this bell is being closed
            for name in os.listdir(self._directory):
                try:
                    listener.sendto(b"!", f"{self._short}/{name}")
                except BlockingIOError:
                    continue  # it has enough rings to hear
                except ConnectionRefusedError:
                    (self._directory / name).unlink(missing_ok=True)

    def _hear(self, listener: socket.socket, heard: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.recv(1)
        heard()
