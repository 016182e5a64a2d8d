"""How subscribers connect: at a rate, each from a port of its own, until the head of its answer has come."""

from __future__ import annotations

import errno
import math
import socket
from collections import Counter

from ssepool.bench.framing import BadFraming, read_head
from ssepool.bench.histogram import Histogram
from ssepool.bench.loop import Sockets, clock
from ssepool.bench.plan import Plan
from ssepool.bench.poller import READ, WRITE
from ssepool.bench.subscribers import READ_BYTES, Subscribers
from ssepool.bench.target import Target, Template

MAX_BEGUN_PER_TURN = 32
"""Connections that one turn begins at most, so that the streams that are open already are read in between."""
STALLED_BUFFER_BYTES = 4096
"""The receive buffer of a subscriber that stalls: it is small, so that the server soon notices the stall."""
IP_BIND_ADDRESS_NO_PORT = 24
"""The socket option of Linux, ip(7), that chooses the port in `connect`, so that targets can share ports."""


class Handshake:
    """One connection, from its beginning until the head of its answer has come."""

    __slots__ = ("_crowd", "_request", "began", "connection", "fd", "number", "raw", "scans")

    def __init__(self, crowd: Crowd, number: int, connection: socket.socket, request: bytes) -> None:
        self._crowd = crowd
        self._request = request
        self.scans = None
        """No scans: the turns call `ready` (see `Peer`)."""
        self.number = number
        """The number of this subscriber in the run, from 0."""
        self.connection = connection
        """The socket, which does not block."""
        self.began = clock()
        """When it began to connect, by `clock`."""
        self.raw = b""
        """The bytes of the answer so far."""
        self.fd = -1
        """The descriptor of the socket; -1 before the poller has it."""

    def send(self) -> bool:
        """Send as much of the request as the socket takes; return whether all of it is sent. Raises `OSError`."""
        try:
            sent = self.connection.send(self._request)
        except BlockingIOError:
            return False
        self._request = self._request[sent:]
        return not self._request

    def ready(self, mask: int) -> None:
        """Send the rest of the request or, once that is done, read the head of the answer."""
        try:
            if self._request:
                if self.send():
                    self._crowd.asked(self)
                return
            data = self.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._crowd.failed(self, _name(error))
            return
        if not data:
            self._crowd.failed(self, "closed before the head")
            return
        self.raw += data
        try:
            parsed = read_head(self.raw)
        except BadFraming as error:
            self._crowd.failed(self, str(error))
            return
        if parsed is None:
            return
        head, body = parsed
        if head.status == 200:
            self._crowd.opened(self, body, chunked=head.chunked)
        else:
            self._crowd.failed(self, f"status {head.status}")


class Crowd:
    """Begins the connections of all subscribers, and counts what becomes of them."""

    def __init__(self, plan: Plan, target: Target, sockets: Sockets, subscribers: Subscribers) -> None:
        self.head = Histogram()
        """Microseconds from the beginning of a connection to the end of the head."""
        self.failed_by: Counter[str] = Counter()
        """Connections without a stream, by the reason."""
        self.opened_last = 0
        """When the latest head came, by `clock`."""
        self._plan = plan
        self._target = target
        self._sockets = sockets
        self._subscribers = subscribers
        fields = ["Accept: text/event-stream", "Cache-Control: no-cache", *plan.subscribe_headers]
        self._head = target.head("GET", fields)
        self.resume(plan.last_event_id)
        self._waiting: dict[int, Handshake] = {}
        self._begun = 0
        self._first: int | None = None
        self._latest = 0

    def resume(self, last_event_id: str) -> None:
        """Have all connections from now on ask for what follows this event; "" asks for nothing earlier."""
        field = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        self._request = Template(f"{self._head}{field}\r\n")

    @property
    def open(self) -> int:
        """How many subscribers have the head of a stream."""
        return self.head.count

    @property
    def is_done(self) -> bool:
        """Whether every subscriber has a stream or has failed."""
        return self._begun == self._plan.subscribers and not self._waiting

    @property
    def seconds(self) -> float:
        """Seconds from the beginning of the first connection to the latest head; 0 without any."""
        return (self.opened_last - (self._first or 0)) / 1e6 if self.open else 0.0

    def tick(self, now: int) -> float:
        """Begin the connections that are due at `now`, and return the microseconds until there is more to do."""
        if self._first is None:
            self._first = now
        rate, wanted = self._plan.connect_rate, self._plan.subscribers
        due = min(wanted, 1 + int((now - self._first) / 1e6 * rate)) if rate else wanted
        for _ in range(min(due - self._begun, MAX_BEGUN_PER_TURN)):
            self._begin()
        if self._begun < wanted:
            return self._first + self._begun / rate * 1e6 - now if rate else 0.0
        if self._waiting and now - self._latest > self._plan.connect_timeout * 1e6:
            for handshake in list(self._waiting.values()):
                self.failed(handshake, f"no head within {self._plan.connect_timeout:g} s")
        return math.inf

    def asked(self, handshake: Handshake) -> None:
        """Take note that the whole request has been sent: what follows is the answer."""
        self._sockets.wait_for(handshake.fd, READ)

    def opened(self, handshake: Handshake, body: bytes, *, chunked: bool) -> None:
        """Take note that the stream has begun, with the bytes of its body that came with the head."""
        self.opened_last = clock()
        self.head.record(self.opened_last - handshake.began)
        del self._waiting[handshake.fd]
        topic, stalls = handshake.number % self._plan.topic_count, self._stalls(handshake.number)
        self._subscribers.add(handshake.fd, topic, handshake.began, body, chunked=chunked, stalls=stalls)

    def failed(self, handshake: Handshake, why: str) -> None:
        """Give a connection up, and count it under this reason."""
        self.failed_by[why] += 1
        del self._waiting[handshake.fd]
        self._sockets.drop(handshake.fd)

    def _begin(self) -> None:
        number = self._begun
        self._begun += 1
        self._latest = clock()
        topic = b"%d" % (number % self._plan.topic_count)
        try:
            connection = socket.socket(self._target.family, socket.SOCK_STREAM)
            handshake = Handshake(self, number, connection, self._request.fill({"{i}": topic}))
            try:
                sent = self._connect(handshake)
            except OSError:
                connection.close()
                raise
        except OSError as error:
            self.failed_by[_name(error)] += 1
            return
        handshake.fd = self._sockets.add(connection, handshake, READ if sent else WRITE)
        self._waiting[handshake.fd] = handshake

    def _connect(self, handshake: Handshake) -> bool:
        """Begin to connect, and return whether the whole request could be sent at once. Raises `OSError`."""
        connection = handshake.connection
        connection.setblocking(False)
        if sources := self._target.sources:
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((sources[handshake.number % len(sources)], 0))
        if self._stalls(handshake.number):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_BUFFER_BYTES)
        status = connection.connect_ex(self._target.address)
        if status not in (0, errno.EINPROGRESS):
            raise OSError(status, "")
        # On loopback the other side's kernel has accepted by now, or never will.
        return handshake.send()

    def _stalls(self, number: int) -> bool:
        """Whether this subscriber stalls: the share that does is spread evenly."""
        share = self._plan.stall
        return int((number + 1) * share) > int(number * share)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown error")
