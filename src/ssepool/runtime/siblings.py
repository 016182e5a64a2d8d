"""Siblings: other processes that serve the same address, each with a `memory://` of its own.

Whatever starts several processes of an application (uvicorn, gunicorn, granian, hypercorn), they have sockets bound to
one address. Each claims it, by an abstract Unix socket (unix(7)) that is named after the address and goes with the
process; whoever comes second meets the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable

logger = logging.getLogger("ssepool")

LOOK_SECONDS = (0.0, 1.0, 3.0)
"""When it looks, in seconds since the hub has opened. Some servers bind their sockets after that; and one that replaces
its processes has two for a moment, so only a sibling that is met twice counts."""

MAX_DESCRIPTOR = 256
"""Descriptors that are looked at: those that a server binds or inherits come first, before any client's."""


class Siblings:
    """Claims the addresses that this process serves, and says so in the log if another process has done that."""

    def __init__(self, find: Callable[[], set[str]] | None = None, process: int | None = None) -> None:
        """Begins to look, on timers of the event loop that runs now. `find` is `addresses` and `process` this one, but
        for tests. Where there are no abstract sockets, it finds nobody."""
        self._find = find or addresses
        self._process = process or os.getpid()
        self._claims: dict[str, socket.socket] = {}
        self._met: set[str] = set()
        loop = asyncio.get_running_loop()
        looks = LOOK_SECONDS if sys.platform == "linux" else ()
        self._timers = [loop.call_later(seconds, self._look) for seconds in looks]

    def close(self) -> None:
        """Look no more, and leave the addresses to the process that comes next."""
        for timer in self._timers:
            timer.cancel()
        for claim in self._claims.values():
            claim.close()
        self._claims.clear()

    def _look(self) -> None:
        for address in self._find() - self._claims.keys():
            other = self._claim(address)
            if other is None:
                self._met.discard(address)
            elif address not in self._met:
                self._met.add(address)
            else:
                self._say(address, other)
                break

    def _say(self, address: str, other: int) -> None:
        for timer in self._timers:
            timer.cancel()
        logger.error(
            "several processes serve %s (this one is %d, another is %d), and each has a broker memory:// of its own: a "
            "client gets only what is published in the process that it has come to. Use a broker that they share, such "
            "as HubConfig(broker='sqlite:///events.db'), or one process",
            *(address, self._process, other),
        )

    def _claim(self, address: str) -> int | None:
        """Claim an address; the process that has it already, if there is another one."""
        name = _name(address)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(name)
            claim.listen()
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                logger.debug("%s cannot be claimed: %s", address, error)
                return None
            other = _process_at(name)
            return None if other == self._process else other  # two hubs of one process
        self._claims[address] = claim
        return None


def addresses() -> set[str]:
    """What the sockets of this process are bound to that are not connected to anything."""
    found = set()
    for descriptor in range(MAX_DESCRIPTOR):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    if sock.type == socket.SOCK_STREAM and not _is_connected(sock) and (name := _address(sock)):
                        found.add(name)
    return found


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _address(sock: socket.socket) -> str | None:
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"{name[0]}:{name[1]}" if name[1] else None
    return os.path.abspath(name) if isinstance(name, str) and name else None


def _name(address: str) -> str:
    return f"\0ssepool/memory/{os.getuid()}/{hashlib.sha256(address.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _process_at(name: str) -> int | None:
    """The process that listens at an abstract socket; None if there is none any more."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(name)
        except BlockingIOError:  # many have asked
            return 0
        except OSError:
            return None
        pid: int = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid
