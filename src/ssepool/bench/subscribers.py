"""Many subscribers, read with as few Python operations as possible, and the count of what became of their events."""

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
"""Bytes that one read of a stream takes at most."""
MAX_LAST_TIMES = 100_000
"""Due times at most for which the last delivery is remembered."""


class Subscriber:
    """One connection whose stream has begun."""

    __slots__ = ("_home", "_later", "began", "caught_up", "fd", "is_stalled", "rest", "scans", "sequences", "topic")

    def __init__(self, home: Subscribers, topic: int, began: int, sequences: list[Sequence], scans: Scans) -> None:
        self._home = home
        self._later = scans
        self.scans: Scans | None = None
        """None until the first byte has come: the turns call `ready` until then (see `Peer`)."""
        self.topic = topic
        """The number of the topic."""
        self.began = began
        """When it began to connect, by `clock`."""
        self.sequences = sequences
        """The sequence of each lane."""
        self.rest = b""
        """The bytes of the unfinished block."""
        self.fd = -1
        """The descriptor of the socket."""
        self.is_stalled = False
        """Whether it does not read, as planned."""
        self.caught_up = False
        """Whether it has reached the goal of a replay."""

    @property
    def expected(self) -> list[int]:
        """By lane: the number that comes next if nothing goes wrong."""
        return [sequence.expected for sequence in self.sequences]

    def ready(self, mask: int) -> None:
        """Read the first bytes of the body; a stalled subscriber only looks for the end."""
        if self.is_stalled:
            self._home.look_at(self)
        elif data := self._home.read(self):
            self.take_first(data)

    def take_first(self, data: bytes) -> None:
        """Take the first bytes of the body, and record how long they took."""
        self.scans = self._later
        if self._home.counts_first_bytes:
            self._home.first_byte.record(clock() - self.began)
        self._home.take(self, self.scans, data)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of all events, once no more are to come. All numbers count deliveries."""

    lost: int
    """Those that did not come on an open stream."""
    missed: int
    """Those that did not come because the stream had ended."""
    doubled: int
    """Those that came again."""
    reordered: int
    """Those that came after a later one of the same lane."""


class Subscribers:
    """All subscribers of a run whose streams have begun."""

    def __init__(
        self, sockets: Sockets, ledger: Ledger, run: bytes, lanes: int, *, start: int = 0, goal: int = 0
    ) -> None:
        """`run` is the name of this run in its marks, `lanes` the number of lanes.

        In a replay, `start` is the first number that every subscriber is to get, and `goal` the one after the last.
        """
        self.first_byte = Histogram()
        """Microseconds from the beginning of a connection to the first byte of its body."""
        self.counts_first_bytes = True
        """Whether `first_byte` still records: once events are published, their bytes may be the first."""
        self.latency = Histogram()
        """Microseconds from the time that an event was due until it was read, for events due at `since` or later."""
        self.since: float = math.inf
        """When the warm-up ended, by `clock`."""
        self.measured = 0
        """How many deliveries there are in `latency`."""
        self.caught_up = Histogram()
        """Microseconds from the beginning of a connection until the goal was reached."""
        self.last: dict[int, int] = {}
        """By due time, from `since` on: when the last delivery of the events due then came."""
        self.last_delivery = 0
        """When the latest delivery came, by `clock`."""
        self.received = 0
        """How many deliveries have come."""
        self.reads = 0
        """How many reads brought events."""
        self.ended: Counter[str] = Counter()
        """Streams that ended, by how they ended."""
        self.stalled: list[Subscriber] = []
        """Subscribers that do not read, as planned."""
        self.cut_off = 0
        """How many stalled subscribers the server has cut off: they find the end when they read again."""
        self.last_look = 0
        """When a stalled subscriber last read something, by `clock`."""
        self._reading: dict[int, Subscriber] = {}
        self._left: list[Subscriber] = []
        self._sockets = sockets
        self._ledger = ledger
        self._start = start
        self._goal = goal
        self._lanes = lanes
        self._scans = {chunked: Scans(run, lanes, chunked=chunked) for chunked in (False, True)}
        self._seen: dict[Scan, int] = {}  # the scans of this turn, and how many subscribers had each
        self._troubled: set[Sequence] = set()

    def __len__(self) -> int:
        return len(self._reading)

    def add(self, fd: int, topic: int, began: int, body: bytes, *, chunked: bool, stalls: bool) -> None:
        """Take a connection whose head has come, with the bytes of the body that came with it.

        `began` is when it began to connect, by `clock`; `chunked` is as in `Head`; if it `stalls`, it does not read.
        """
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
        """Read from all descriptors that are ready; peers without scans read for themselves.

        `ready` is as `Sockets.ready` returns it. Raises `BenchError` if one of these peers does.
        """
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
        """The bytes that one read brings; none if there are none, or if the stream has ended."""
        try:
            data = os.read(subscriber.fd, READ_BYTES)
        except OSError as error:
            self._failed(subscriber, error)
            return b""
        if not data:
            self._end(subscriber, "closed by the server")
        return data

    def take(self, subscriber: Subscriber, scans: Scans, data: bytes) -> None:
        """Take the bytes that have come; none at all means the end of the stream."""
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
                # `_account` adds for these numbers as much as `expected` would have moved if nothing were wrong.
                self._ledger.reached += sequence.take(first, after) - (after - first)
                self._troubled.add(sequence)
        self._seen[scan] = self._seen.get(scan, 0) + 1
        if scan.ended:
            self._end(subscriber, "ended by the server")

    @property
    def is_complete(self) -> bool:
        """Whether every delivery has come."""
        return self._ledger.behind == 0 and not any(sequence.missing for sequence in self._troubled)

    def tally(self) -> Tally:
        """Count what has become of all events so far; stalled subscribers do not count."""
        everybody = [*self._reading.values(), *self._left]
        sequences = [sequence for subscriber in everybody for sequence in subscriber.sequences]
        return Tally(
            lost=sum(map(self._lost, self._reading.values())),
            missed=sum(map(self._lost, self._left)),
            doubled=sum(sequence.doubled for sequence in sequences),
            reordered=sum(sequence.reordered for sequence in sequences),
        )

    def wake(self) -> None:
        """Have the stalled subscribers read what there is for them, until they find the end if there is one."""
        self.last_look = clock()
        for subscriber in self.stalled:
            self._sockets.heed(subscriber.fd, subscriber)

    def look_at(self, subscriber: Subscriber) -> None:
        """Read for a stalled subscriber, and count nothing but the end of its stream."""
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
        """Count what this turn brought: equal bytes once, multiplied by the subscribers that had them."""
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
