"""Subscribers come: at a rate, each from its own port, until the head of its answer is there."""

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
"""Connections begun in a turn: those before them are to be read in between."""
STALLED_BUFFER_BYTES = 4096
"""Bytes that the kernel takes in for those who stall, so that the server soon notices that they do."""
IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: choose the port when it is known where the connection goes, so that ports are shared between targets."""


class Handshake:
    """A connection until the head of its answer has come."""

    __slots__ = ("_crowd", "_request", "began", "connection", "fd", "number", "raw", "scans")

    def __init__(self, crowd: Crowd, number: int, connection: socket.socket, request: bytes) -> None:
        self._crowd = crowd
        self._request = request
        self.scans = None
        self.number = number
        self.connection = connection
        self.began = clock()
        self.raw = b""
        self.fd = -1

    def send(self) -> bool:
        """Send as much of the request as can be sent; whether that was all."""
        try:
            sent = self.connection.send(self._request)
        except BlockingIOError:
            return False
        self._request = self._request[sent:]
        return not self._request

    def ready(self, mask: int) -> None:
        """Go on: send the request, then read the head."""
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
    """All who are to subscribe."""

    def __init__(self, plan: Plan, target: Target, sockets: Sockets, subscribers: Subscribers) -> None:
        self.head = Histogram()
        """Microseconds from the start of connecting to the end of the head."""
        self.failed_by: Counter[str] = Counter()
        self.opened_last = 0
        """When the head of the latest came."""
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
        """Have those who are yet to come ask for what came after this event."""
        field = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        self._request = Template(f"{self._head}{field}\r\n")

    @property
    def open(self) -> int:
        """How many have got the head of a stream."""
        return self.head.count

    @property
    def is_done(self) -> bool:
        """Whether each has got a stream, an error, or no answer in time."""
        return self._begun == self._plan.subscribers and not self._waiting

    @property
    def seconds(self) -> float:
        """From the first one's start to the latest one's head."""
        return (self.opened_last - (self._first or 0)) / 1e6 if self.open else 0.0

    def tick(self, now: int) -> float:
        """Begin the connections that are due; returns the microseconds until there is more to do."""
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
        """A request has been sent."""
        self._sockets.wait_for(handshake.fd, READ)

    def opened(self, handshake: Handshake, body: bytes, *, chunked: bool) -> None:
        """A stream has begun."""
        self.opened_last = clock()
        self.head.record(self.opened_last - handshake.began)
        del self._waiting[handshake.fd]
        topic, stalls = handshake.number % self._plan.topic_count, self._stalls(handshake.number)
        self._subscribers.add(handshake.fd, topic, handshake.began, body, chunked=chunked, stalls=stalls)

    def failed(self, handshake: Handshake, why: str) -> None:
        """A connection is not to be had."""
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
        """Begin to connect, and send the request if that is possible already; whether it was."""
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
        """Whether this one is of those who stall, who are spread evenly."""
        share = self._plan.stall
        return int((number + 1) * share) > int(number * share)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown error")
