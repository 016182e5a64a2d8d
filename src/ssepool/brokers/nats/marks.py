"""Marks: what the stream's messages say about the batches in them, without asking the server twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssepool.brokers.nats.batch import Mark, State
from ssepool.brokers.nats.stream import Info, JetStream, Message

MAX_MARKS = 4096
"""Messages whose marks are remembered."""

ALL_SUBJECTS = ">"
"""The wildcard for all subjects of the stream."""


class View(NamedTuple):
    """What the stream has at one moment."""

    state: State
    """The end of the stream."""
    oldest: int
    """The position before the oldest entry of the history. The stream may have older entries."""
    size: int
    """Bytes of the entries of the history."""
    ends: tuple[Mark, Mark] | None
    """The stream's first and last message; None if it is empty."""


class Marks:
    """The marks of one stream. A message never changes, so its mark is remembered once it has been read."""

    def __init__(self, name: str) -> None:
        """`name` is the stream's name. Nothing is read before `follow` has said which stream has it now."""
        self.token = ""
        """The token in the subjects of the stream that was followed last; empty before the first."""
        self._name = name
        self._known: dict[int, Mark] = {}

    def follow(self, info: Info) -> None:
        """Read the stream that the server has now; forget the marks of another one with the same name."""
        if info.token != self.token or (self._known and max(self._known) > info.last):
            self._known.clear()
        self.token = info.token

    def subject(self, rest: str) -> str:
        """A subject of the stream."""
        return f"{self._name}.{self.token}.{rest}"

    async def at(self, js: JetStream, seq: int) -> Mark | None:
        """The message at a place or, if it is gone or cannot be read, the next one; None if there is none."""
        while (mark := self._known.get(seq)) is None:
            message = await js.get(self.subject(ALL_SUBJECTS), seq)
            if message is None:
                return None
            mark = self._remember(message)
            if mark is not None:
                return mark
            seq = message.seq + 1
        return mark

    async def before(self, js: JetStream, seq: int, first: int) -> Mark | None:
        """The last message up to a place that can be read, from the place `first` on; None if there is none."""
        for place in range(seq, first - 1, -1):
            mark = await self.at(js, place)
            if mark is not None and mark.seq <= seq:
                return mark
        return None

    async def last(self, js: JetStream, subject: str) -> Mark | None:
        """The newest message of a subject; None if there is none, or if it cannot be read."""
        return self._remember(await js.last(self.subject(subject)))

    async def search(self, js: JetStream, first: Mark, last: Mark, fits: Callable[[Mark], bool]) -> Mark | None:
        """The last message that fits, provided that all that fit come before all that do not; None if none fits.

        It looks at places that are round numbers, so that the next search meets the same ones, which are remembered.
        """
        if fits(last):
            return last
        if not fits(first):
            return None
        low, high, found = first.seq, last.seq - 1, first
        while low < high:
            bits = (low ^ high).bit_length() - 1
            middle = high >> bits << bits
            mark = await self.at(js, middle)
            if mark is not None and mark.seq <= high and fits(mark):
                low, found = mark.seq, mark
            else:
                high = middle - 1
        return found

    def _remember(self, message: Message | None) -> Mark | None:
        if message is None:
            return None
        mark = Mark.of(message.seq, message.time, message.data)
        if mark is None:
            return None
        while len(self._known) >= MAX_MARKS:
            del self._known[next(iter(self._known))]
        self._known[mark.seq] = mark
        return mark
