"""Streamer: detached sockets, all on one epoll object that is itself a single reader of the event loop.

No task, no transport, no parser and no timer for each connection: a file descriptor and a link. Frames are written
with `os.write`; EPOLLOUT is armed only while a socket's buffer is full; departures show as EPOLLRDHUP. Linux only.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from ssepool.core.states import Reason
from ssepool.runtime.delivery import SLICE
from ssepool.runtime.link import Bytes, Link

if TYPE_CHECKING:
    from ssepool.core.pool import Pool
    from ssepool.runtime.delivery import Delivery

AVAILABLE = sys.platform == "linux"

if AVAILABLE:
    GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    WATCH = select.EPOLLRDHUP  # EPOLLHUP and EPOLLERR are always reported

PEER_DEAD = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
"""Errors that say that the kernel gave the peer up, as opposed to the peer's own FIN or RST."""

BATCH = 128
"""Ready sockets handled in one turn of the event loop."""


def reason_of(code: int) -> Reason:
    """Why a connection with this `errno` ended."""
    return Reason.PEER_DEAD if code in PEER_DEAD else Reason.CLIENT_CLOSED


def set_ack_timeout(sock: socket.socket, seconds: float) -> None:
    """Have the kernel give a peer up that acknowledges nothing for so long (TCP_USER_TIMEOUT, RFC 5482).

    Does nothing where the system or the socket has no such option. Sockets accepted from a listener inherit it.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000)))
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise


def _pending_error(fd: int) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        sock.detach()


class Sink(Protocol):
    """Where a server puts the response that an application sends after its socket was taken over."""

    def head(self, data: bytes) -> None:
        """The status line and the headers, in their wire format."""

    def body(self, data: bytes) -> None: ...

    def complete(self) -> None: ...


class Handover(Protocol):
    """What a server hands over: a file descriptor that is the caller's from now on, and the rest of the response."""

    fd: int
    sink: Sink | None
    """What is sent while this is None is dropped."""

    def gone(self) -> None:
        """Tell the server's side of the request that the client has left."""


class SocketLink(Link):
    """A link over a detached socket. Owns the file descriptor."""

    __slots__ = ("_begun", "_handover", "fd", "streamer")

    def __init__(self, pool: Pool, delivery: Delivery, streamer: Streamer, handover: Handover) -> None:
        super().__init__(pool, delivery)
        self.streamer = streamer
        self.fd = handover.fd
        self._begun: asyncio.Future[None] | None = None
        self._handover: Handover | None = handover
        handover.sink = self
        streamer.watch(self)

    # The application's response, as far as the server passes it on.

    def head(self, data: bytes) -> None:
        self.push(data)
        self.started = True
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)

    def body(self, data: bytes) -> None:
        self.push(data)

    def complete(self) -> None:
        self.ending = True
        self.flush()

    def start(self, head: bytes) -> None:
        """Begin with this head, where there is no application that would send one."""
        self.head(head)
        self._let_go()

    async def wait_started(self) -> None:
        if not self.started and not self.ended:
            self._begun = asyncio.get_running_loop().create_future()
            await self._begun
            self._begun = None
        self._let_go()

    def _let_go(self) -> None:
        """From here on the stream is the hub's: what the application's side still sends is dropped."""
        if self._handover is not None:
            self._handover.sink = None
            self._handover = None

    # The link.

    def flush(self) -> None:
        feed, slot = self.feed, self.slot
        if self.plain and feed is not None and slot is not None and slot.cursor >= feed.first:
            start = slot.cursor
            if start == feed.head:
                return
            data, slot.cursor = feed.read(start)
            slot.events += slot.cursor - start
            if self._write(data, start) and slot.cursor == feed.head:
                return
        self._flush_all()

    def _flush_all(self) -> None:
        if self.stalled or self.ended or not self.started:
            return
        while (item := self.take()) is not None:
            if not self._write(*item):
                return
            if self.replay is not None:
                self.delivery.again(self)  # a page at a time
                return
        if self.ending:
            self.end(Reason.COMPLETED)

    def _write(self, data: Bytes, start: int) -> bool:
        """Write what was read at a cursor, or is this client's own (-1). False if the socket did not take all of it."""
        try:
            written = os.write(self.fd, data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self.end(reason_of(error.errno or 0))
            return False
        slot = self.slot
        if slot is not None:
            slot.bytes += written
        if written == len(data):
            return True
        if start < 0:
            self.rest = memoryview(data)[written:]
        else:
            assert slot is not None and self.feed is not None
            taken = slot.cursor
            slot.cursor, rest = self.feed.split(start, written)
            slot.events -= taken - slot.cursor
            self.rest = rest or None
        self.stall()
        self.streamer.await_room(self)
        return False

    def ready(self, mask: int) -> None:
        """epoll has something to say about the socket."""
        if mask & GONE:
            self.end(reason_of(_pending_error(self.fd)) if mask & select.EPOLLERR else Reason.CLIENT_CLOSED)
        elif mask & select.EPOLLOUT:
            self.streamer.have_room(self)
            self.go_on()
            self.flush()

    def hang_up(self) -> None:
        self.streamer.forget(self)
        if self._handover is not None:
            self._handover.gone()
            self._let_go()
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        try:
            # A close with unread bytes would send RST, and the peer may then drop what it has not read yet.
            os.read(self.fd, 65536)
        except OSError:
            # Nothing lies there, or the peer was faster: either way there is nobody left to be polite to.
            return
        finally:
            os.close(self.fd)


class Streamer:
    """Watches all detached sockets."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._links: dict[int, SocketLink] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def __len__(self) -> int:
        return len(self._links)

    def watch(self, link: SocketLink) -> None:
        self._epoll.register(link.fd, WATCH)
        self._links[link.fd] = link

    def await_room(self, link: SocketLink) -> None:
        self._epoll.modify(link.fd, WATCH | select.EPOLLOUT)

    def have_room(self, link: SocketLink) -> None:
        self._epoll.modify(link.fd, WATCH)

    def forget(self, link: SocketLink) -> None:
        del self._links[link.fd]
        self._epoll.unregister(link.fd)

    def close(self) -> None:
        """Cut all that is left and stop watching."""
        for link in list(self._links.values()):
            link.end(Reason.SHUTDOWN)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        # Level-triggered: what does not fit into this batch or slice is reported again in the loop's next turn.
        deadline = perf_counter() + SLICE
        for fd, mask in self._epoll.poll(0, BATCH):
            link = self._links.get(fd)
            if link is not None:  # else it was ended by the handling of an earlier one
                link.ready(mask)
            if perf_counter() >= deadline:
                return
