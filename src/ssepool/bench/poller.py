"""Waiting for many sockets at once: `epoll`, or what else the system has."""

from __future__ import annotations

import select
import selectors
import sys
from typing import Protocol

READ = 1
WRITE = 4
"""The numbers that epoll has for them."""

MILLISECOND = 0.001
FD_SETSIZE = 1024
"""`select` takes descriptors below this."""


class Poller(Protocol):
    """What tells which descriptors are ready; those with an error or without a peer are ready to be read."""

    def register(self, fd: int, mask: int) -> None: ...
    def modify(self, fd: int, mask: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def poll(self, seconds: float, most: int) -> list[tuple[int, int]]:
        """Descriptors that are ready and for what, about so many, after at most so long."""

    def close(self) -> None: ...


if sys.platform == "linux":

    class Epoll:
        """The kernel's own list of the descriptors that are ready."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.register = self._epoll.register
            self.modify = self._epoll.modify
            self.unregister = self._epoll.unregister
            self.close = self._epoll.close

        def poll(self, seconds: float, most: int) -> list[tuple[int, int]]:
            if seconds >= MILLISECOND:
                # It rounds up, to whole milliseconds: half of one less makes that the number before.
                return self._epoll.poll(seconds // MILLISECOND * MILLISECOND - MILLISECOND / 2, most)
            if seconds > 0 and self._epoll.fileno() < FD_SETSIZE:
                # What is due within a millisecond would be late; select is not.
                select.select([self._epoll], [], [], seconds)
            return self._epoll.poll(0, most)


class Selector:
    """The best that the standard library finds on this system."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close = self._selector.close

    def register(self, fd: int, mask: int) -> None:
        self._selector.register(fd, _events(mask))

    def modify(self, fd: int, mask: int) -> None:
        self._selector.modify(fd, _events(mask))

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, seconds: float, most: int) -> list[tuple[int, int]]:
        ready = self._selector.select(max(0.0, seconds))
        # All of them: it would begin with the same ones each time.
        return [(key.fd, _mask(events)) for key, events in ready]


def _events(mask: int) -> int:
    return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def _mask(events: int) -> int:
    return (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0)


def best() -> Poller:
    """The best poller for this system."""
    return Epoll() if sys.platform == "linux" else Selector()
