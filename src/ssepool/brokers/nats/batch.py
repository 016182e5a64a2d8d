"""Part: what a message of the stream has, a batch of events or a part of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from ssepool.brokers.record import AROUND_ID_BYTES, Record, pack
from ssepool.core.event import Entry

LOG_SUBJECT = "log"
"""The subject, behind the stream's, of messages that need none of their own."""

_unpack = msgspec.msgpack.Decoder(list[Record]).decode


class State(NamedTuple):
    """Where the next batch goes."""

    seq: int
    """The place of the stream's newest message."""
    epoch: str
    newest: int
    """The position of the newest entry."""
    total: int
    """Bytes of all entries that there ever were."""


class Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message of a batch. The last of its messages makes it valid, and has the numbers of all others."""

    epoch: str
    after: int
    """The position before the batch."""
    total: int
    """Bytes of all entries before the batch."""
    events: int
    size: int
    """Bytes of the batch's entries."""
    number: int
    of: int
    """This is message `number`, from 0 on, of so many."""
    place: int
    """The position of the event with the chosen id that is in the message's subject; 0 if there is none."""
    data: bytes
    """All data of the batch, joined, are its records."""

    @property
    def is_last(self) -> bool:
        return self.number == self.of - 1

    @property
    def newest(self) -> int:
        """The position of the newest entry, with this message."""
        return self.after + self.events if self.is_last else self.after

    @property
    def all_bytes(self) -> int:
        """Bytes of all entries, with this message."""
        return self.total + self.size if self.is_last else self.total


decode = msgspec.msgpack.Decoder(Part).decode


class Mark(NamedTuple):
    """Where a message is, and its numbers without its data."""

    seq: int
    time: float
    part: Part

    @property
    def start(self) -> int:
        """The place of the batch's first message."""
        return self.seq - self.part.number

    @property
    def state(self) -> State:
        """Where the next batch goes if this is the newest message."""
        return State(self.seq, self.part.epoch, self.part.newest, self.part.all_bytes)

    @classmethod
    def of(cls, seq: int, time: float, data: bytes) -> Mark:
        return cls(seq, time, msgspec.structs.replace(decode(data), data=b""))


def batch(
    state: State, records: Sequence[Record], ids: Mapping[str, int], most: int
) -> tuple[list[tuple[str, bytes]], State]:
    """The messages of a batch, by subject, with at most so many bytes of data each; and what is so behind it.

    `ids` has the positions of the events with chosen ids.
    """
    data = pack(records)
    chunks = [data[start : start + most] for start in range(0, len(data), most)]
    claims = [(subject_of(id), place) for id, place in ids.items()]
    of, size = max(len(chunks), len(claims)), _size(state, records)
    messages = []
    for number in range(of):
        subject, place = claims[number] if number < len(claims) else (LOG_SUBJECT, 0)
        chunk = chunks[number] if number < len(chunks) else b""
        part = Part(state.epoch, state.newest, state.total, len(records), size, number, of, place, chunk)
        messages.append((subject, pack(part)))
    return messages, State(state.seq + of, state.epoch, state.newest + len(records), state.total + size)


class Joiner:
    """Makes entries of the stream's messages, in order. What has no valid end is passed over."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def join(self, data: bytes) -> tuple[str, list[Entry]] | None:
        """The epoch and the entries of the batch that this message completes, if it completes one."""
        part = decode(data)
        if part.number == 0:
            self._parts = []
        self._parts.append(part)
        if not part.is_last:
            return None
        parts, self._parts = self._parts, []
        if len(parts) != part.of:  # its beginning has been dropped
            return None
        records = _unpack(b"".join([part.data for part in parts]))
        return part.epoch, [record.entry(part.epoch, place) for place, record in enumerate(records, part.after + 1)]


def subject_of(id: str) -> str:
    """The subject of a chosen id: one token, without dots, wildcards and blanks."""
    return "id." + quote(id, safe="").replace(".", "%2E")


def _size(state: State, records: Sequence[Record]) -> int:
    """Bytes of the frames, once they have their ids."""
    made = len(f"{state.epoch}-{state.newest + len(records)}")
    return sum([len(record.frame) + AROUND_ID_BYTES + (len(record.id) if record.id else made) for record in records])
