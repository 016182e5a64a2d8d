"""Waiting for many sockets at once: with `epoll` on Linux, elsewhere with what the standard library finds."""

from __future__ import annotations

import select
import selectors
import sys
from typing import Protocol

READ = 1
"""The mask for a socket to read from: `EPOLLIN`, epoll_ctl(2)."""
WRITE = 4
"""The mask for a socket to write to: `EPOLLOUT`, epoll_ctl(2)."""

MILLISECOND = 0.001
"""One millisecond, in seconds: the unit in which epoll waits."""
FD_SETSIZE = 1024
"""Every descriptor that `select` takes is below this, select(2)."""


class Poller(Protocol):
    """Watches descriptors. One with an error, or whose other side is gone, is ready to be read."""

    def register(self, fd: int, mask: int) -> None:
        """Watch a descriptor for `mask`, which is `READ`, `WRITE` or both."""

    def modify(self, fd: int, mask: int) -> None:
        """Watch a descriptor for another `mask`."""

    def unregister(self, fd: int) -> None:
        """Do not watch a descriptor any longer."""

    def poll(self, seconds: float, max_ready: int) -> list[tuple[int, int]]:
        """Wait up to `seconds`; return the descriptors that are ready, each with its mask. There may be more than
        `max_ready`, which is how many the caller wants."""

    def close(self) -> None:
        """Give up what the system keeps for this poller."""


if sys.platform == "linux":

    class Epoll:
        """The poller of Linux: the kernel itself keeps the list of the descriptors that are ready, epoll(7)."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.register = self._epoll.register
            self.modify = self._epoll.modify
            self.unregister = self._epoll.unregister
            self.close = self._epoll.close

        def poll(self, seconds: float, max_ready: int) -> list[tuple[int, int]]:
            if seconds >= MILLISECOND:
                # epoll rounds up to whole milliseconds: half a millisecond less makes it round up to the number wanted.
                return self._epoll.poll(seconds // MILLISECOND * MILLISECOND - MILLISECOND / 2, max_ready)
            if seconds > 0 and self._epoll.fileno() < FD_SETSIZE:
                # epoll would be too late for something due within a millisecond; select waits in microseconds.
                select.select([self._epoll], [], [], seconds)
            return self._epoll.poll(0, max_ready)


class Selector:
    """The poller of other systems: the best that the standard library finds there."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close = self._selector.close
        """Give it back."""

    def register(self, fd: int, mask: int) -> None:
        """Watch a descriptor for these events."""
        self._selector.register(fd, _events(mask))

    def modify(self, fd: int, mask: int) -> None:
        """Watch it for others."""
        self._selector.modify(fd, _events(mask))

    def unregister(self, fd: int) -> None:
        """Watch it no longer."""
        self._selector.unregister(fd)

    def poll(self, seconds: float, max_ready: int) -> list[tuple[int, int]]:
        """The descriptors that are ready, after at most so many seconds."""
        ready = self._selector.select(max(0.0, seconds))
        # Not only `most` of them: a selector begins with the same ones each time, and the others would starve.
        return [(key.fd, _mask(events)) for key, events in ready]


def _events(mask: int) -> int:
    return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def _mask(events: int) -> int:
    return (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0)


def best() -> Poller:
    """The best poller for this system."""
    return Epoll() if sys.platform == "linux" else Selector()
