"""Notifier: wakes all processes of this machine that have the same database open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
"""The directory in which Linux gives each open file a short name. A socket's path has at most 108 bytes (unix(7))."""


class Notifier:
    """Each listener has a datagram socket in a directory beside the database; `notify` sends a byte to every socket.

    Only speed depends on it: brokers also look by themselves now and then, which serves systems without such sockets
    and lost notifications. Whoever finds the socket of a killed process removes it.
    """

    def __init__(self, directory: Path) -> None:
        """Open nothing yet. `open` makes the directory of the sockets if it is missing."""
        self._directory = directory
        self._socket: socket.socket | None = None
        self._descriptor = -1
        self._short = ""
        """The directory's name in the paths of sockets, short enough for them."""
        self._name = secrets.token_hex(8)

    def open(self, heard: Callable[[], None]) -> None:
        """From now on call `heard` in the running loop after each notification, one's own included.

        Several notifications in a row may lead to a single call.
        """
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
        """Stop listening, and remove the socket."""
        listener, self._socket = self._socket, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
            (self._directory / self._name).unlink(missing_ok=True)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def notify(self) -> None:
        """Wake all listeners. May be called from any thread."""
        listener = self._socket
        if listener is None:
            return
        with contextlib.suppress(OSError):  # the directory has gone, or this notifier is being closed
            for name in os.listdir(self._directory):
                try:
                    listener.sendto(b"!", f"{self._short}/{name}")
                except BlockingIOError:
                    continue  # its buffer is full, so it will wake anyway
                except ConnectionRefusedError:
                    (self._directory / name).unlink(missing_ok=True)

    def _hear(self, listener: socket.socket, heard: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.recv(1)
        heard()
