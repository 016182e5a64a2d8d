"""Marks: what the stream's messages say about the batches in them, without asking the server twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssepool.brokers.nats.batch import Batch, Mark, State
from ssepool.brokers.nats.places import Places
from ssepool.brokers.nats.stream import Info, JetStream, Message

MAX_MARKS = 4096
"""Messages whose marks are remembered."""

ALL_SUBJECTS = ">"
"""The wildcard for all subjects of the stream."""


class View(NamedTuple):
    """What the stream has at one moment."""

    info: Info
    """What the server says of it."""
    state: State
    """The end of the stream."""
    first: Mark
    """Its oldest message."""
    last: Mark
    """Its newest message."""


class Marks:
    """The marks of one stream. A message never changes, so its mark is remembered once it has been read."""

    def __init__(self, name: str) -> None:
        """`name` is the stream's name. Nothing is read before `follow` has said which stream has it now."""
        self.token = ""
        """The token in the subjects of the stream that was followed last; empty before the first."""
        self._name = name
        self._known: dict[int, Mark] = {}
        self.places = Places()
        """Where the batches are that have been read."""

    async def view(self, js: JetStream) -> View | None:
        """What the server has; None if nothing of it is ours. Raises `NoStream`."""
        info = await js.info()
        if info.token != self.token or (self._known and max(self._known) > info.last):
            self.forget()  # another stream with the same name, or an older state of it
        self.token = info.token
        if not info.messages:
            return None
        last = await self.last(js, ALL_SUBJECTS) or await self.before(js, info.last, info.first)
        if last is None or (first := await self.at(js, info.first)) is None:
            return None
        return View(info, last.state._replace(seq=max(info.last, last.seq)), first, last)

    def forget(self) -> None:
        """Forget all marks, because places may have been given out a second time."""
        self._known.clear()
        self.places.forget()

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

    async def next(self, js: JetStream, seq: int) -> Mark | None:
        """As `at`, of what the server has now: some may have been dropped that we remember."""
        while (message := await js.get(self.subject(ALL_SUBJECTS), seq)) is not None:
            if (mark := self._remember(message)) is not None:
                return mark
            seq = message.seq + 1
        return None

    async def batch_of(self, js: JetStream, view: View, position: int) -> Batch | None:
        """The batch that has the event at a position, or had it; None if there is none."""
        mark = await self.search(js, view.first, view.last, lambda mark: mark.part.after < position)
        if mark is None or not mark.part.is_last or not mark.batch.has(position):
            return None
        return mark.batch

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
