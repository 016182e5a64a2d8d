"""Sockets that were taken over from a server: SocketLink, and the Streamer that watches all of them.

All are on one epoll object that is itself a single reader of the event loop.

No task, no transport, no parser and no timer for each connection: a file descriptor and a link. Frames are written
with `os.write`; EPOLLOUT is armed only while a socket's buffer is full; departures show as EPOLLRDHUP; what
clients go on sending is dropped. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable

from ssepool.config import KiB
from ssepool.core.frames import DIALECT, Dialect
from ssepool.core.states import LinkState, Reason
from ssepool.runtime.handover import AVAILABLE, FAILED, Handover
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.link import ENDED, ENDING, FOLLOWING, NEW, OPEN, Bytes, Link, LinkContext, reason_of

if AVAILABLE:
    GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    WATCH = select.EPOLLRDHUP | select.EPOLLIN  # EPOLLHUP and EPOLLERR are always reported

BATCH_SOCKETS = 128
"""Ready sockets handled in one turn of the event loop."""

DROP_BYTES = 64 * KiB
"""Bytes read at a time of what a client sends into its stream."""


def _pending_error(fd: int) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        sock.detach()


class SocketLink(Link):
    """A link over a detached socket. Owns the file descriptor."""

    __slots__ = ("_begun", "_handover", "_keeps_request", "_owns_body", "fd", "streamer")

    def __init__(
        self,
        context: LinkContext,
        streamer: Streamer,
        handover: Handover,
        dialect: Dialect = DIALECT,
        *,
        keeps_request: bool = False,
    ) -> None:
        """`keeps_request` says that the request goes on beside the stream, and is to be told when the client leaves."""
        super().__init__(context, dialect)
        self._keeps_request = keeps_request
        self._owns_body = False
        self.streamer = streamer
        """What watches the socket."""
        self.fd = handover.fd
        """The file descriptor."""
        self._begun: asyncio.Future[None] | None = None
        self._handover: Handover | None = handover
        handover.sink = self
        try:
            streamer.watch(self)
        except OSError:  # the system has no memory for another, or allows no more
            os.close(self.fd)
            raise

    # The application's response, as far as the server passes it on.

    def head(self, data: bytes, *, chunked: bool = False) -> None:
        """The response's head, in its wire format. What comes behind it is `chunked` if it says so."""
        if self._owns_body and self._handover is not None and not self._handover.owns_body:
            self._owns_body = False
            self.surrender(Reason.CLIENT_CLOSED)
        self.queue(data)
        self.chunked = chunked
        if self.state is NEW:
            self.become(OPEN)
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)

    def body(self, data: bytes) -> None:
        """What the application sends before the stream is the hub's own."""
        self.push(data)

    def complete(self) -> None:
        """The application's response is over: end when it is out."""
        if self.state is NEW:  # an application that has sent no head
            with contextlib.suppress(OSError):
                os.write(self.fd, FAILED)
            self.end(Reason.ERROR)
        elif not self.is_leaving:
            self.conclude(whole=True)

    def start(self, head: bytes, *, chunked: bool = False) -> None:
        """Begin with this head, where there is no application that would send one."""
        self.head(head, chunked=chunked)
        self._let_go()

    def own_body(self) -> None:
        """The head that is sent next is that of a stream: this link writes its body, and nobody else."""
        if self._handover is not None:
            self._handover.owns_body = self._owns_body = True

    async def wait_started(self) -> bool:
        if self.state is NEW:
            self._begun = asyncio.get_running_loop().create_future()
            await self._begun
            self._begun = None
        if not self._owns_body and self._handover is not None and self.state is not ENDED:
            return False
        self._let_go()
        return True

    def _let_go(self) -> None:
        """From here on the stream is the hub's: what the application's side still sends is dropped."""
        if self._handover is not None:
            self._handover.sink = None
            if not self._keeps_request:
                self._handover = None

    # The link.

    def flush(self) -> None:
        feed, slot = self.feed, self.slot
        if self.state is FOLLOWING and feed is not None and slot is not None and slot.cursor >= feed.first:
            start = slot.cursor
            if start == feed.head:
                return
            data, slot.cursor = feed.read(start, None, self.chunked)
            slot.events += slot.cursor - start
            if self._write(data, start) and slot.cursor == feed.head:
                return
        self._flush_all()

    def _flush_all(self) -> None:
        if self.stalled or self.state is ENDED or self.state is NEW:
            return
        while (item := self.take()) is not None:
            if not self._write(*item):
                return
            if self.replay is not None:
                self.context.delivery.again(self)  # a page at a time
                return
        if self.state is ENDING:
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
            slot.cursor, rest = self.feed.split(start, written, self.chunked)
            slot.events -= taken - slot.cursor
            self.rest = rest or None
        self.stall()
        self.streamer.await_room(self)
        return False

    def ready(self, mask: int) -> None:
        """epoll has something to say about the socket."""
        if mask & GONE:
            self.end(reason_of(_pending_error(self.fd)) if mask & select.EPOLLERR else Reason.CLIENT_CLOSED)
            return
        if mask & select.EPOLLIN:
            self._drop()
        if mask & select.EPOLLOUT:
            self.streamer.have_room(self)
            self.go_on()
            self.flush()

    def _drop(self) -> None:
        """Read what a client goes on sending, to throw it away. Unread it would lie in the kernel's memory, megabytes
        for each client, and behind a full buffer no FIN would be seen."""
        with contextlib.suppress(OSError):  # epoll tells of errors, too
            os.read(self.fd, DROP_BYTES)

    def hang_up(self, before: LinkState) -> None:
        self.streamer.forget(self)
        if self._handover is not None:
            self._handover.gone()
            self._handover.sink = None
            self._handover = None
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        try:
            # A close with unread bytes would send RST, and the peer may then drop what it has not read yet.
            os.read(self.fd, DROP_BYTES)
        except OSError:
            # Nothing lies there, or the peer was faster: either way there is nobody left to be polite to.
            return
        finally:
            os.close(self.fd)


class Streamer:
    """Watches all detached sockets."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` is the hub's clock, in seconds. Belongs to the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._now = now
        self._epoll = select.epoll()
        self._links: dict[int, SocketLink] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def __len__(self) -> int:
        return len(self._links)

    def watch(self, link: SocketLink) -> None:
        """Have the link told of everything that happens to its socket."""
        self._epoll.register(link.fd, WATCH)
        self._links[link.fd] = link

    def await_room(self, link: SocketLink) -> None:
        """Have the link told when its socket takes more."""
        self._epoll.modify(link.fd, WATCH | select.EPOLLOUT)

    def have_room(self, link: SocketLink) -> None:
        """The link waits for room no longer."""
        self._epoll.modify(link.fd, WATCH)

    def forget(self, link: SocketLink) -> None:
        """The link's socket is about to be closed."""
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
        deadline = self._now() + SLICE_SECONDS
        for fd, mask in self._epoll.poll(0, BATCH_SOCKETS):
            link = self._links.get(fd)
            if link is not None:  # else it was ended by the handling of an earlier one
                link.ready(mask)
            if self._now() >= deadline:
                return
