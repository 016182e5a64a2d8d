"""The mark that each event carries in its data, and how it is found in what a subscriber reads.

A mark is `~run.lane.number.time~`: the run it belongs to, so that what an earlier run left on the server is not
counted; the lane, which is the one publishing connection whose numbers are in order; the number in the topic's
sequence of that lane; the time it was due, in microseconds of the machine's monotonic clock. Its characters stand for
themselves in JSON, in forms and in URLs.
"""

from __future__ import annotations

import re

from ssepool.bench.framing import cut
from ssepool.config import MiB

MAX_SCANS = 512
MAX_SCANNED_BYTES = 16 * MiB
"""Bytes whose scans are remembered."""


def mark(run: bytes, lane: int, number: int, time: int) -> bytes:
    """The mark of an event."""
    return b"~%b.%d.%d.%d~" % (run, lane, number, time)


class Scan:
    """What is in the bytes of one read."""

    __slots__ = ("count", "ended", "parts", "rest", "times")

    def __init__(self, marks: list[tuple[int, int, int]], rest: bytes = b"", ended: bool = False) -> None:
        self.count = len(marks)
        """Events in whole blocks."""
        self.parts: list[tuple[int, int, int]] = []
        """Lane, first number and the one after the last of each unbroken series."""
        self.times: list[tuple[int, int]] = []
        """Times, and how many events in a row had them."""
        self.rest = rest
        """What the next bytes belong behind."""
        self.ended = ended
        """The server has said that there comes no more."""
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
    """The scan of any bytes; raises `BadFraming`.

    All subscribers of a topic are sent the same bytes, so most reads are one look into this dictionary, however many
    events they bring.
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
