"""The mark that each event carries in its data, and how it is found in the bytes that a subscriber reads.

A mark is `~run.lane.number.time~`. The run tells its events from those that an earlier run left on the server. The
lane is the connection that published the event: only the numbers of one lane are in order. The number counts the events
of that lane and topic. The time is when the event was due, in microseconds of the machine's monotonic clock. All
characters of a mark stand for themselves in JSON, in forms and in URLs.
"""

from __future__ import annotations

import re

from ssepool.bench.framing import cut
from ssepool.config import MiB

MAX_SCANS = 512
"""Scans that are remembered at most."""
MAX_SCANNED_BYTES = 16 * MiB
"""Bytes whose scans are remembered at most."""


def mark(run: bytes, lane: int, number: int, time: int) -> bytes:
    """The mark of an event; `time` is when it is due, in microseconds."""
    return b"~%b.%d.%d.%d~" % (run, lane, number, time)


class Scan:
    """The marks in the bytes of one read, counted and joined to series."""

    __slots__ = ("count", "ended", "parts", "rest", "times")

    def __init__(self, marks: list[tuple[int, int, int]], rest: bytes = b"", ended: bool = False) -> None:
        self.count = len(marks)
        """How many events there are in whole blocks."""
        self.parts: list[tuple[int, int, int]] = []
        """Each unbroken series of numbers: its lane, its first number, and the one after its last."""
        self.times: list[tuple[int, int]] = []
        """Due times, each with how many events in a row had it."""
        self.rest = rest
        """The bytes of the unfinished block: the next ones are appended to them."""
        self.ended = ended
        """Whether the server has ended the body."""
        last: dict[int, int] = {}  # lane -> its latest part
        for lane, number, time in marks:
            at = last.get(lane)
            if at is not None and self.parts[at][2] == number:
                self.parts[at] = (lane, self.parts[at][1], number + 1)
            else:
                last[lane] = len(self.parts)
                self.parts.append((lane, number, number + 1))
            if self.times and self.times[-1][0] == time:
                self.times[-1] = (time, self.times[-1][1] + 1)
            else:
                self.times.append((time, 1))


class Scans(dict[bytes, Scan]):
    """A dictionary that has the scan of any bytes, and makes it if need be; making it raises `BadFraming`.

    A server sends the same bytes to all subscribers of a topic, so most reads cost one look into this dictionary,
    however many events they bring.
    """

    def __init__(self, run: bytes, lanes: int, *, chunked: bool) -> None:
        self._pattern = re.compile(rb"~%b\.(\d{1,9})\.(\d{1,15})\.(\d{1,18})~" % run)
        self._lanes = lanes
        self._chunked = chunked
        self._size = 0

    def __missing__(self, raw: bytes) -> Scan:
        block = cut(raw, self._chunked)
        found = ((int(lane), int(number), int(time)) for lane, number, time in self._pattern.findall(block.blocks))
        scan = Scan([mark for mark in found if mark[0] < self._lanes], block.rest, block.ended)
        self._size += len(raw)
        if len(self) >= MAX_SCANS or self._size > MAX_SCANNED_BYTES:
            self.clear()
            self._size = len(raw)
        self[raw] = scan
        return scan
