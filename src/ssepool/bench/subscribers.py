"""Many subscribers, read with as few Python operations as there can be, and what became of their events."""

from __future__ import annotations

import errno
import math
import os
from collections import Counter
from dataclasses import dataclass

from ssepool.bench.framing import BadFraming
from ssepool.bench.histogram import Histogram
from ssepool.bench.ledger import Ledger
from ssepool.bench.loop import Sockets, clock
from ssepool.bench.marker import Scan, Scans
from ssepool.bench.sequence import Sequence

READ_BYTES = 64 * 1024
MAX_LAST_TIMES = 100_000
"""Times of events whose last delivery is remembered."""


class Subscriber:
    """One connection on which a stream has begun."""

    __slots__ = ("_home", "_later", "began", "caught_up", "fd", "is_stalled", "rest", "scans", "sequences", "topic")

    def __init__(self, home: Subscribers, topic: int, began: int, sequences: list[Sequence], scans: Scans) -> None:
        self._home = home
        self._later = scans
        self.scans: Scans | None = None  # until the first byte has come
        self.topic = topic
        self.began = began
        """When it began to connect."""
        self.sequences = sequences
        """By lane."""
        self.rest = b""
        self.fd = -1
        self.is_stalled = False
        self.caught_up = False

    @property
    def expected(self) -> list[int]:
        """By lane: the next number."""
        return [sequence.expected for sequence in self.sequences]

    def ready(self, mask: int) -> None:
        """Read for the first time."""
        if self.is_stalled:
            self._home.look_at(self)
        elif data := self._home.read(self):
            self.take_first(data)

    def take_first(self, data: bytes) -> None:
        """Take the first bytes of the body."""
        self.scans = self._later
        if self._home.counts_first_bytes:
            self._home.first_byte.record(clock() - self.began)
        self._home.take(self, self.scans, data)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of all events, once no more are to come."""

    lost: int
    missed: int
    """By those whose stream ended, after that."""
    doubled: int
    reordered: int


class Subscribers:
    """All subscribers of a run whose stream has begun."""

    def __init__(
        self, sockets: Sockets, ledger: Ledger, run: bytes, lanes: int, *, start: int = 0, goal: int = 0
    ) -> None:
        """`start` is the first number that all are to get; `goal`, if any, is the one after the last."""
        self.first_byte = Histogram()
        """Microseconds from the start of connecting to the first byte of the body."""
        self.counts_first_bytes = True
        self.latency = Histogram()
        """Microseconds from the time an event was due until it was read; of events that were due since `since`."""
        self.since: float = math.inf
        self.measured = 0
        """Deliveries in `latency`."""
        self.caught_up = Histogram()
        """Microseconds from the start of connecting until the goal was reached."""
        self.last: dict[int, int] = {}
        """When the last delivery came of the events that were due at some time since `since`."""
        self.last_delivery = 0
        self.received = 0
        self.reads = 0
        """Reads that brought events."""
        self.ended: Counter[str] = Counter()
        """Streams that ended, by how."""
        self.stalled: list[Subscriber] = []
        self.cut_off = 0
        """Of those who stalled, how many the server had let go: they find the end when they read again."""
        self.last_look = 0
        """When something came for one of them."""
        self._reading: dict[int, Subscriber] = {}
        self._left: list[Subscriber] = []
        self._sockets = sockets
        self._ledger = ledger
        self._start = start
        self._goal = goal
        self._lanes = lanes
        self._scans = {chunked: Scans(run, lanes, chunked=chunked) for chunked in (False, True)}
        self._seen: dict[Scan, int] = {}  # in this turn, and how many had it
        self._troubled: set[Sequence] = set()

    def __len__(self) -> int:
        return len(self._reading)

    def add(self, fd: int, topic: int, began: int, body: bytes, *, chunked: bool, stalls: bool) -> None:
        """Take a connection on which the head of a stream has come, with what came of its body."""
        sequences = [Sequence(self._start) for _ in range(self._lanes)]
        subscriber = Subscriber(self, topic, began, sequences, self._scans[chunked])
        subscriber.fd = fd
        if stalls:
            subscriber.is_stalled = True
            self._sockets.ignore(fd)
            self.stalled.append(subscriber)
            return
        self._sockets.hand_over(fd, subscriber)
        self._reading[fd] = subscriber
        self._ledger.join(topic, subscriber.expected)
        if body:
            subscriber.take_first(body)

    def turn(self, ready: list[tuple[int, int]]) -> None:
        """Read what is ready, and let the other peers among them do so."""
        peers, read = self._sockets.peers, os.read
        for fd, mask in ready:
            peer = peers.get(fd)
            if peer is None:
                continue
            scans = peer.scans
            if scans is None:
                peer.ready(mask)
                continue
            try:
                data = read(fd, READ_BYTES)
            except OSError as error:
                self._failed(peer, error)  # type: ignore[arg-type]
                continue
            self.take(peer, scans, data)  # type: ignore[arg-type]
        if self._seen:
            self._account(clock())
        if self._goal:
            self._look_for_the_goal(ready)

    def read(self, subscriber: Subscriber) -> bytes:
        """What there is to read; nothing if there is nothing, or the stream has ended."""
        try:
            data = os.read(subscriber.fd, READ_BYTES)
        except OSError as error:
            self._failed(subscriber, error)
            return b""
        if not data:
            self._end(subscriber, "closed by the server")
        return data

    def take(self, subscriber: Subscriber, scans: Scans, data: bytes) -> None:
        """Take what has come; nothing means the end."""
        if not data:
            self._end(subscriber, "closed by the server")
            return
        if subscriber.rest:
            data = subscriber.rest + data
        try:
            scan = scans[data]
        except BadFraming as error:
            self._end(subscriber, str(error))
            return
        subscriber.rest = scan.rest
        for lane, first, after in scan.parts:
            sequence = subscriber.sequences[lane]
            if sequence.expected == first:
                sequence.expected = after
            else:
                # What the turn's account adds for these is what they would have moved if nothing were wrong.
                self._ledger.reached += sequence.take(first, after) - (after - first)
                self._troubled.add(sequence)
        self._seen[scan] = self._seen.get(scan, 0) + 1
        if scan.ended:
            self._end(subscriber, "ended by the server")

    @property
    def is_complete(self) -> bool:
        """Whether all has come that is to come."""
        return self._ledger.behind == 0 and not any(sequence.missing for sequence in self._troubled)

    def tally(self) -> Tally:
        """Count what became of all events, as far as it has come; not of those who stalled."""
        everybody = [*self._reading.values(), *self._left]
        sequences = [sequence for subscriber in everybody for sequence in subscriber.sequences]
        return Tally(
            lost=sum(map(self._lost, self._reading.values())),
            missed=sum(map(self._lost, self._left)),
            doubled=sum(sequence.doubled for sequence in sequences),
            reordered=sum(sequence.reordered for sequence in sequences),
        )

    def wake(self) -> None:
        """Have those who stalled read what there is for them, down to the end if there is one."""
        self.last_look = clock()
        for subscriber in self.stalled:
            self._sockets.heed(subscriber.fd, subscriber)

    def look_at(self, subscriber: Subscriber) -> None:
        """Read for one who stalled, and count nothing but the end."""
        try:
            data = os.read(subscriber.fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.last_look = clock()
        if not data:
            self.cut_off += 1
            self._sockets.drop(subscriber.fd)

    def _lost(self, subscriber: Subscriber) -> int:
        topic, ledger = subscriber.topic, self._ledger
        return sum(
            sequence.lost(ledger.sent[topic][lane], ledger.void.get((topic, lane), ()))
            for lane, sequence in enumerate(subscriber.sequences)
        )

    def _account(self, now: int) -> None:
        """Count what this turn brought: the same bytes once, for however many they were."""
        received = 0
        for scan, readers in self._seen.items():
            if not scan.count:
                continue
            received += scan.count * readers
            self.reads += readers
            for time, count in scan.times:
                if time >= self.since:
                    self.latency.record(now - time, count * readers)
                    self.measured += count * readers
                    if time in self.last or len(self.last) < MAX_LAST_TIMES:
                        self.last[time] = now
        self._seen.clear()
        if received:
            self.received += received
            self._ledger.reached += received
            self.last_delivery = now

    def _look_for_the_goal(self, ready: list[tuple[int, int]]) -> None:
        now = clock()
        for fd, _ in ready:
            subscriber = self._reading.get(fd)
            if subscriber and not subscriber.caught_up and subscriber.sequences[0].expected >= self._goal:
                subscriber.caught_up = True
                self.caught_up.record(now - subscriber.began)

    def _failed(self, subscriber: Subscriber, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._end(subscriber, errno.errorcode.get(error.errno or 0, "unknown error"))

    def _end(self, subscriber: Subscriber, how: str) -> None:
        self.ended[how] += 1
        self._sockets.drop(subscriber.fd)
        del self._reading[subscriber.fd]
        self._left.append(subscriber)
        self._ledger.leave(subscriber.topic, subscriber.expected)
