"""Listener: accepts connections and recognises subscriptions in their first packet.

A subscription that arrives whole, and can have a slot at once, goes straight to admission: no transport, protocol
object, task or middleware is made for it. Everything else, with the bytes already read, is handed on to the server's
HTTP protocol, which comes to the same admission by a longer way.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import httptools

from ssepool.core.callers import Callers, Place
from ssepool.core.fields import FIELDS, only
from ssepool.core.pool import Pool
from ssepool.runtime.handover import Handover, Sink
from ssepool.runtime.head import is_host
from ssepool.runtime.proxies import Peer, TrustedProxies
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.socket import BATCH_SOCKETS
from ssepool.server.balance import Balance

logger = logging.getLogger("ssepool")

FIRST_READ_BYTES = 16 * 1024
"""Bytes read of a connection before it is decided whose it is."""

PAUSE_SECONDS = 1.0
"""Seconds without accepting after the system refused another descriptor."""

HAND_ON_BATCH = 8
"""Connections that are handed on in one turn of the event loop at most. It takes some turns until their protocols are
made, and those that have to go then are closed: of a crowd that comes all at once, only so many hold a descriptor that
is none of a caller's."""

LEAVE_SECONDS = 0.005
"""Seconds for which a worker leaves new connections to the others."""

TELL_SECONDS = 0.1
"""Seconds between two times that a worker tells the others how full it is, whatever happens."""

OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of `accept` that say that the system has no more to give at the moment."""


Admit = Callable[[dict[str, Any], Callable[[], Handover]], bool]
"""Streams to the client of a request, given its ASGI scope and what takes its socket; or does nothing, and is false."""


class Listener:
    """Accepts on one listening socket until it is closed."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        admit: Admit | None,
        hand_on: Callable[[socket.socket, bytes, Place], None],
        head_timeout: float,
        proxies: TrustedProxies,
        callers: Callers,
        pool: Pool,
        now: Callable[[], float],
        balance: Balance | None = None,
    ) -> None:
        """Starts accepting on `sock`, which listens and does not block.

        `admit` takes a subscription that arrived whole, or leaves it; None leaves all. `hand_on` takes every other
        connection, with what was read of it and its place among the `callers`. A client has `head_timeout` seconds to
        send something. `proxies` tell the clients' addresses. With a `balance` other workers accept on the same socket,
        which `pool` is weighed against.
        `now` is the hub's clock, in seconds.
        """
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._take_in = admit
        self._hand_on = hand_on
        self._pool = pool
        self._now = now
        self._head_timeout = head_timeout
        self._proxies = proxies
        self._callers = callers
        self._silent: dict[int, tuple[Peer | None, Place, asyncio.TimerHandle]] = {}
        """Connections that have sent nothing yet: the peer, the place, and the end of our patience with each."""
        # One reader for all of them: a crowd speaks all at once, and is read in slices.
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._read_silent)
        self._resume: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._balance = balance
        if balance is not None:
            self._tell(balance)
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept no more, and close what has not said anything yet."""
        for timer in (self._resume, self._telling):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for fd in list(self._silent):
            self._give_up(fd)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _accept(self) -> None:
        deadline, handed_on = self._now() + SLICE_SECONDS, 0
        while self._now() < deadline and handed_on < HAND_ON_BATCH:
            if self._balance is not None and self._leave(self._balance):
                return
            try:
                # What `accept` wraps in an object, which costs system calls and is of no use to a stream.
                fd, address = self._sock._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                self._pause(error)
                return
            os.set_blocking(fd, False)
            # Of IPv6 it has two values more, and of the peer of a Unix socket it says nothing.
            handed_on += self._read(fd, address[:2] if isinstance(address, tuple) else None)

    def _leave(self, balance: Balance) -> bool:
        """Whether the next client is another worker's. This one looks away then, and again a little later."""
        now = self._now()
        balance.tell(self._pool, now)
        if not balance.leaves_to_others(now):
            return False
        self._loop.remove_reader(self._sock)
        self._resume = self._loop.call_later(LEAVE_SECONDS, self._loop.add_reader, self._sock, self._accept)
        return True

    def _tell(self, balance: Balance) -> None:
        balance.tell(self._pool, self._now())
        self._telling = self._loop.call_later(TELL_SECONDS, self._tell, balance)

    def _pause(self, error: OSError) -> None:
        logger.error(
            "cannot accept a connection: %s; trying again every %g s. Those that are open go on, new ones wait; raise "
            "the limit (ulimit -n) or lower the pool's size",
            error.strerror,
            PAUSE_SECONDS,
        )
        self._loop.remove_reader(self._sock)
        self._resume = self._loop.call_later(PAUSE_SECONDS, self._loop.add_reader, self._sock, self._accept)

    def _read(self, fd: int, peer: Peer | None) -> bool:
        """Do what is to be done with a connection at its first packet. Whether it has been handed on."""
        try:
            data = os.read(fd, FIRST_READ_BYTES)
        except BlockingIOError:
            if fd not in self._silent:
                place = self._callers.enter(self._proxies.source(peer), partial(self._give_up, fd))
                self._silent[fd] = peer, place, self._loop.call_later(self._head_timeout, self._give_up, fd)
                self._epoll.register(fd, select.EPOLLIN)
            return False
        except OSError:
            data = b""
        self._forget(fd)
        if not data:
            os.close(fd)
        elif not self._admit(Accepted(fd), peer, data):
            # The protocol, which is made in one of the next turns, looks whether it has had to go meanwhile.
            place = self._callers.enter(self._proxies.source(peer), _wait_for_protocol)
            self._hand_on(socket.socket(fileno=fd), data, place)
            return True
        return False

    def _read_silent(self) -> None:
        # Level-triggered: what does not fit into this batch or slice is reported again in the loop's next turn.
        deadline = self._now() + SLICE_SECONDS
        for fd, _ in self._epoll.poll(0, BATCH_SOCKETS):
            if (silent := self._silent.get(fd)) is not None:  # it may have given way to one before it
                self._read(fd, silent[0])
            if self._now() >= deadline:
                return

    def _admit(self, accepted: Accepted, peer: Peer | None, data: bytes) -> bool:
        if self._take_in is None:
            return False
        try:
            scope = subscription_scope(data, peer)
            if scope is None:
                return False
            self._proxies.apply(scope)
            return self._take_in(scope, accepted.take)
        except Exception:  # a defect that one request meets must not end accepting
            logger.exception("a subscription could not be admitted; its client is sent away")
            if not accepted.taken:
                os.close(accepted.fd)
            return True

    def _give_up(self, fd: int) -> None:
        self._forget(fd)
        os.close(fd)

    def _forget(self, fd: int) -> None:
        if fd in self._silent:
            _, place, timer = self._silent.pop(fd)
            place.leave()
            timer.cancel()
            self._epoll.unregister(fd)


def _wait_for_protocol() -> None:
    pass


class Accepted:
    """The handover of a socket that no server has ever held."""

    __slots__ = ("fd", "owns_body", "sink", "taken")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """The descriptor of the accepted socket."""
        self.sink: Sink | None = None
        """There is no application that would send anything."""
        self.owns_body = True
        """Nor anybody else who writes a body."""
        self.taken = False
        """Whether the descriptor is the hub's."""

    def take(self) -> Accepted:
        """From here on the descriptor is the caller's."""
        self.taken = True
        return self

    def gone(self) -> None:
        """There is nobody to tell."""


class _Head:
    """What httptools tells about a request."""

    __slots__ = ("complete", "headers", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete = True


NOT_PLAIN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of requests that are more than a plain GET."""


def subscription_scope(data: bytes, peer: Peer | None) -> dict[str, Any] | None:
    """The ASGI scope of a plain GET that these bytes hold whole and alone, or None."""
    if not data.startswith(b"GET ") or not data.endswith(b"\r\n\r\n"):
        return None
    head = _Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
        url = httptools.parse_url(head.url)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not head.url.startswith(b"/"):
        return None  # its authority counts in place of `Host`
    if not head.complete or parser.get_http_version() != "1.1" or data.count(b"\r\n\r\n") != 1:
        return None
    fields = dict(head.headers)
    host = only(b"host", head.headers, fields)
    if host is None or not is_host(host) or not fields.keys().isdisjoint(NOT_PLAIN):
        return None
    return {
        "type": "http",
        "method": "GET",
        "http_version": "1.1",
        "path": url.path.decode("latin-1") if url.path else "",
        "query_string": url.query or b"",
        "headers": head.headers,
        "client": peer,
        FIELDS: fields,
    }
