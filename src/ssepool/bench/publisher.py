"""How events are published: at a rate or flat out, on a few connections that are kept alive."""

from __future__ import annotations

import errno
import math
import random
import socket
from collections import Counter

from ssepool.bench.framing import MAX_UNFINISHED_BYTES, Answer, BadFraming, read_answer
from ssepool.bench.histogram import Histogram
from ssepool.bench.ledger import Ledger
from ssepool.bench.loop import Sockets, clock
from ssepool.bench.marker import mark
from ssepool.bench.plan import Plan
from ssepool.bench.poller import READ, WRITE
from ssepool.bench.target import Target, Template
from ssepool.errors import SSEPoolError

READ_BYTES = 256 * 1024
"""Bytes of an answer that one read takes at most."""
PAUSE_MICROSECONDS = 100_000
"""Time until a lane is tried again after a failure, and from one look at answers that are overdue to the next."""
PATIENCE_MICROSECONDS = 1_000_000
"""Time without a delivery after which the window opens nevertheless: the events that it waits for are lost."""

Event = tuple[int, int]
"""An event that is on its way: its topic, and its number there."""


class BenchError(SSEPoolError):
    """There is nothing to measure: no subscriber got a stream, or the server takes no events."""


class Lane:
    """One connection to publish on: it sends one request at a time, and the next one after the answer."""

    scans = None
    """No scans: the turns call `ready` (see `Peer`)."""

    def __init__(self, number: int, publisher: Publisher, sockets: Sockets, target: Target, timeout: float) -> None:
        """`timeout` is how many seconds connecting may take, and an answer."""
        self.number = number
        """The number of this lane, from 0: events carry it in their marks."""
        self.free_at = 0
        """When this lane may be tried again after a failure, by `clock`."""
        self.events: list[Event] = []
        """The events of the request that has no answer yet; none if the lane is free."""
        self.sent_at = 0
        """When the latest request was sent, by `clock`."""
        self._publisher = publisher
        self._sockets = sockets
        self._target = target
        self._timeout = timeout
        self._connection: socket.socket | None = None
        self._fd = -1
        self._mask = READ
        self._unsent = memoryview(b"")
        self._raw = b""

    @property
    def is_free(self) -> bool:
        """Whether no request waits for its answer here."""
        return not self.events

    def send(self, request: bytes, events: list[Event]) -> None:
        """Send a request with these events, and connect first if need be. The publisher learns the outcome:
        `Publisher.answered` or `Publisher.failed`."""
        self.events = events
        self.sent_at = clock()
        self._raw = b""
        try:
            self._connect()
            self._unsent = memoryview(request)
            self._send_more()
        except OSError as error:
            self._fail(error)

    def ready(self, mask: int) -> None:
        """Send the rest of the request, or read the answer."""
        try:
            if self._unsent and mask & WRITE:
                self._send_more()
            if mask & ~WRITE:
                self._read()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)

    def give_up(self) -> None:
        """Close the connection: the answer is overdue."""
        self._close()
        self._publisher.failed(self, f"no answer within {self._timeout:g} s")

    def _connect(self) -> None:
        if self._connection is None:
            self._connection = socket.create_connection(self._target.address, self._timeout)
            self._connection.setblocking(False)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._fd = self._sockets.add(self._connection, self, READ)
            self._mask = READ

    def _send_more(self) -> None:
        assert self._connection is not None
        try:
            sent = self._connection.send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        mask = READ | WRITE if self._unsent else READ
        if mask != self._mask:
            self._mask = mask
            self._sockets.wait_for(self._fd, mask)

    def _read(self) -> None:
        assert self._connection is not None
        data = self._connection.recv(READ_BYTES)
        if self.is_free:
            # A server may close an idle connection, and may send an answer that says why.
            if not data:
                self._close()
            return
        self._raw += data
        try:
            answer = read_answer(self._raw, ended=not data)
            if answer is None and len(self._raw) > MAX_UNFINISHED_BYTES:
                raise BadFraming("an answer without end")
        except BadFraming as error:
            self._close()
            self._publisher.failed(self, str(error))
            return
        if answer is None:
            if not data:
                self._close()
                self._publisher.failed(self, "closed before the answer")
            return
        if not answer.keep_alive or not data or self._unsent:
            self._close()
        self._publisher.answered(self, answer)

    def _fail(self, error: OSError) -> None:
        self._close()
        self.free_at = clock() + PAUSE_MICROSECONDS
        self._publisher.failed(self, errno.errorcode.get(error.errno or 0, str(error)))

    def _close(self) -> None:
        if self._connection is not None:
            self._sockets.drop(self._fd)
            self._connection = None
        self._unsent = memoryview(b"")


class Publisher:
    """Sends the events that are due, each on any lane that is free."""

    def __init__(self, plan: Plan, target: Target, sockets: Sockets, ledger: Ledger, run: bytes) -> None:
        self._plan = plan
        self._ledger = ledger
        self._run = run
        self._random = random.Random(plan.seed)
        self._head = Template(target.head(plan.method, plan.publish_headers))
        self._body = Template(plan.body)
        self._ends = [text.encode() for text in (plan.batch_start, plan.batch_join, plan.batch_end)]
        lanes = [Lane(number, self, sockets, target, plan.connect_timeout) for number in range(plan.lanes)]
        self._free = lanes
        self._busy: dict[int, Lane] = {}
        self._look_at = 0  # when overdue answers are looked for
        self._works = False  # the server has taken an event
        self.begin(0, rate=0, seconds=0)

    def begin(self, now: int, *, rate: float, seconds: float, events: float = math.inf) -> None:
        """Publish from `now` on, for so many seconds or events, whichever ends first, and count anew.

        `rate` is in events a second; 0 is flat out.
        """
        self.events = 0
        """Events that the server has taken."""
        self.requests = 0
        """Requests of which the server has taken all events."""
        self.failed_by: Counter[str] = Counter()
        """Requests of which the server has taken no event, or perhaps none, by the reason."""
        self.answer = Histogram()
        """Microseconds from a request to its answer."""
        self.late = Histogram()
        """Microseconds from the time that a request was due until it was sent."""
        self._began = self._last_answer = now
        self._rate = rate
        self._due = float(now)
        self._until = now + seconds * 1e6
        self._left = events
        self._sent_at = now
        self._window = self._plan.window if not rate else 0.0

    @property
    def seconds(self) -> float:
        """Seconds from `begin` to the latest answer that meant success."""
        return (self._last_answer - self._began) / 1e6

    @property
    def is_over(self) -> bool:
        """Whether every request has been sent and answered."""
        return not self._busy and (self._left <= 0 or clock() >= self._until)

    def tick(self, now: int, last_delivery: int = 0) -> float:
        """Send what is due at `now`, and return the microseconds until there is more to do.

        `last_delivery` is when the latest event came, by `clock`; only a plan with a window needs it.
        """
        if self._busy and now >= self._look_at:
            self._look_at = now + PAUSE_MICROSECONDS
            for lane in list(self._busy.values()):
                if now - lane.sent_at > self._plan.connect_timeout * 1e6:
                    lane.give_up()
        while self._free and self._left > 0 and now < self._until:
            if self._due > now:
                return self._due - now
            if self._free[-1].free_at > now:
                return self._free[-1].free_at - now
            if self._window and not self._window_is_open(now, last_delivery):
                return PAUSE_MICROSECONDS
            self._send(self._free.pop(), now)
            now = clock()
        return math.inf if self._busy else PAUSE_MICROSECONDS

    def answered(self, lane: Lane, answer: Answer) -> None:
        """Take note of the answer to a lane's request. Raises `BenchError` as `failed` does."""
        if not 200 <= answer.status < 300:
            self.failed(lane, f"status {answer.status}", answer.body)
            return
        self._works = True
        self.requests += 1
        self.events += len(lane.events)
        self._last_answer = clock()
        self.answer.record(self._last_answer - lane.sent_at)
        self._release(lane)

    def failed(self, lane: Lane, why: str, body: bytes = b"") -> None:
        """Take note that a lane's request has failed, and of the answer's body if there is one.

        Raises `BenchError` if no request has succeeded so far: there would be nothing to measure.
        """
        if not self._works:
            text = f": {body[:300].decode(errors='replace')}" if body else ""
            raise BenchError(f"{self._plan.publish} takes no events: {why}{text}")
        self.failed_by[why] += 1
        for topic, number in lane.events:
            self._ledger.refuse(topic, lane.number, number)
        self._release(lane)

    def _release(self, lane: Lane) -> None:
        lane.events = []
        del self._busy[lane.number]
        self._free.append(lane)

    def _window_is_open(self, now: int, last_delivery: int) -> bool:
        return (
            self._ledger.behind < self._window * max(1, self._ledger.readers)
            or now - max(last_delivery, self._sent_at) > PATIENCE_MICROSECONDS
        )

    def _send(self, lane: Lane, now: int) -> None:
        batch = min(self._plan.batch, int(self._left)) if self._left < self._plan.batch else self._plan.batch
        due = int(self._due) if self._rate else now
        if self._rate:
            self._due += batch / self._rate * 1e6
        self._left -= batch
        self._sent_at = now
        self.late.record(now - due)
        request, events = self._request(lane.number, due, batch)
        self._busy[lane.number] = lane
        lane.send(request, events)

    def _request(self, lane: int, due: int, batch: int) -> tuple[bytes, list[Event]]:
        """A request with `batch` events that are due at `due`, and these events."""
        head_has_blanks = bool(self._head.blanks)
        topic = self._random.randrange(self._plan.topic_count)
        events: list[Event] = []
        bodies: list[bytes] = []
        values: dict[str, bytes] = {}
        for _ in range(batch):
            number = self._ledger.send(topic, lane)
            data = mark(self._run, lane, number, due).ljust(self._plan.size, b"x")
            values = {"{n}": b"%d" % number, "{t}": b"%d" % due, "{i}": b"%d" % topic, "{data}": data}
            events.append((topic, number))
            bodies.append(self._body.fill(values))
            if not head_has_blanks and self._plan.topic_count > 1:
                topic = self._random.randrange(self._plan.topic_count)
        start, join, end = self._ends
        body = start + join.join(bodies) + end if self._plan.batch > 1 else bodies[0]
        # The values in the head, its topic above all, go for the whole batch.
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head.fill(values), len(body), body), events
