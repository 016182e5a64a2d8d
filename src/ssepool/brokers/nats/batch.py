"""Part: the content of a message of the stream, which is a batch of events or a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from ssepool.brokers.record import STORED_BYTES, UNREADABLE_ERRORS, Record, entry_of, pack, topics_digest
from ssepool.brokers.record import VERSION as RECORD_VERSION
from ssepool.config import KiB
from ssepool.core.event import Entry
from ssepool.core.timelines import Timeline, Timelines

LOG_SUBJECT = "log"
"""The subject, behind the stream's, of messages without a chosen id."""

EPOCH_SUBJECT = "epoch"
"""The subject, behind the stream's, of messages that name the history."""

STREAM_VERSION = 1
"""The version of what is in the stream; the one before had none, and did not name the history."""

MAX_TOPICS_BYTES = 64 * KiB
"""Bytes of topics that a message repeats beside its data; if there are more, they are in the event alone."""

_unpack = msgspec.msgpack.Decoder(list[Record]).decode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_unpack_timelines = msgspec.msgpack.Decoder(list[Timeline]).decode


class State(NamedTuple):
    """The end of the stream, where the next batch goes."""

    seq: int
    """The place of the stream's newest message."""
    epoch: str
    """The name of the history."""
    newest: int
    """The position of the newest entry."""
    total: int
    """Bytes of all entries so far, kept or not."""


class Batch(NamedTuple):
    """Where the messages of a batch are, and which events it has."""

    epoch: str
    """The name under which it was stored."""
    after: int
    """The position before its first event."""
    events: int
    """How many events it has; none in a message that names the history."""
    first: int
    """The place of its first message."""
    of: int
    """How many messages it has."""
    size: int
    """Bytes of its entries."""

    @property
    def last(self) -> int:
        """The place of its last message."""
        return self.first + self.of - 1

    def has(self, position: int) -> bool:
        """Whether the event at a position is one of it."""
        return self.after < position <= self.after + self.events


class Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message of a batch. The last message of a batch makes it valid.

    One without events names the history from its place on: its data are the timelines before (see `names`).
    """

    epoch: str
    """The name of the history."""
    after: int
    """The position before the batch."""
    total: int
    """Bytes of all entries before the batch."""
    events: int
    """The number of events in the batch."""
    size: int
    """Bytes of the batch's entries."""
    number: int
    """The number of this message in the batch, from 0 on."""
    of: int
    """The number of messages in the batch."""
    place: int
    """The position of the event whose chosen id is in the message's subject; 0 if there is none."""
    data: bytes
    """A piece of the packed records. The pieces of all messages, joined, are the batch's records."""
    content: str = ""
    """The digest of the content of the event with that id; empty in messages of earlier versions. Where the history is
    named: by what its cuts are known."""
    topics: tuple[str, ...] | None = None
    """The topics of that event; None if they are too large, and in messages of earlier versions."""
    private: bool = False
    """Whether that event is private."""
    version: int = 0
    """Where the history is named: the version of the stream, which only those write to who know it."""

    @property
    def is_last(self) -> bool:
        """Whether this message makes its batch valid."""
        return self.number == self.of - 1

    @property
    def newest(self) -> int:
        """The position of the newest entry once this message is stored."""
        return self.after + self.events if self.is_last else self.after

    @property
    def all_bytes(self) -> int:
        """Bytes of all entries once this message is stored."""
        return self.total + self.size if self.is_last else self.total

    @property
    def timelines(self) -> Timelines:
        """The names of the history, of a message without events. Raises one of `UNREADABLE_ERRORS`."""
        return Timelines(self.epoch, _unpack_timelines(self.data))


def decode(data: bytes) -> Part:
    """The part in the data of a message. Raises one of `UNREADABLE_ERRORS` for what cannot be one."""
    part = _decode(data)
    is_naming = part.events == 0 and part.of == 1 and part.content != ""
    if not 0 <= part.number < part.of or part.after < 0 or (part.events < 1 and not is_naming):
        raise ValueError(f"a batch of {part.events} events behind {part.after}, part {part.number} of {part.of}")
    return part


_decode = msgspec.msgpack.Decoder(Part).decode


class Mark(NamedTuple):
    """A message of the stream without its data."""

    seq: int
    """The place of the message."""
    time: float
    """The time at which the server stored it, in seconds since 1970."""
    part: Part
    """Its content without `data` and `topics`."""

    @property
    def start(self) -> int:
        """The place of the first message of its batch."""
        return self.seq - self.part.number

    @property
    def batch(self) -> Batch:
        """Its batch."""
        part = self.part
        return Batch(part.epoch, part.after, part.events, self.start, part.of, part.size)

    @property
    def state(self) -> State:
        """The end of the stream if this is the newest message."""
        return State(self.seq, self.part.epoch, self.part.newest, self.part.all_bytes)

    @classmethod
    def of(cls, seq: int, time: float, data: bytes) -> Mark | None:
        """The mark of a message with this place, time and data; None if it is no part of a batch: somebody else has
        sent it, or another version."""
        try:
            return cls(seq, time, msgspec.structs.replace(decode(data), data=b"", topics=None))
        except UNREADABLE_ERRORS:
            return None


def batch(state: State, records: Sequence[Record], max_bytes: int) -> tuple[list[tuple[str, bytes]], State]:
    """The messages of a batch, as pairs of subject and content, and the state of the stream behind them.

    Each event with a chosen id has a message with a subject for that. Each message has at most `max_bytes` bytes of
    data and topics.
    """
    data = pack(records)
    claims = [(place, one) for place, one in enumerate(records, state.newest + 1) if one.id is not None]
    most = min(MAX_TOPICS_BYTES, max_bytes // 8)
    sizes = [len(pack(one.topics)) for _, one in claims]
    room = max_bytes - max((size for size in sizes if size <= most), default=0)
    chunks = [data[start : start + room] for start in range(0, len(data), room)]
    of, size = max(len(chunks), len(claims)), len(data) + STORED_BYTES * len(records)
    messages = []
    for number in range(of):
        chunk = chunks[number] if number < len(chunks) else b""
        head = (state.epoch, state.newest, state.total, len(records), size, number, of)
        if number < len(claims):
            place, one = claims[number]
            subject = subject_of(one.id or "", one.topics)
            topics = one.topics if sizes[number] <= most else None
            part = Part(*head, place, chunk, one.content, topics, one.private)
        else:
            subject, part = LOG_SUBJECT, Part(*head, 0, chunk)
        messages.append((subject, pack(part)))
    return messages, State(state.seq + of, state.epoch, state.newest + len(records), state.total + size)


def naming(state: State, timelines: Timelines, root: str) -> tuple[str, bytes]:
    """The message that names the history from the end of the stream on; `root` is what its cuts are known by."""
    head = (timelines.epoch, state.newest, state.total, 0, 0, 0, 1, 0)
    return EPOCH_SUBJECT, pack(Part(*head, pack(timelines.before), root, version=STREAM_VERSION))


class Joiner:
    """Makes entries of the stream's messages, in order. It passes over batches without a valid end."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def join(self, seq: int, time: float, data: bytes) -> tuple[Batch, list[Entry]] | None:
        """The batch that the message at this place, stored at this time, completes, with its entries; None if it
        completes none."""
        try:
            part = decode(data)
        except UNREADABLE_ERRORS:  # the next batch says whether there were events in it
            self._parts = []
            return None
        if part.number == 0:
            self._parts = []
        self._parts.append(part)
        if not part.is_last:
            return None
        parts, self._parts = self._parts, []
        if len(parts) != part.of:  # the beginning of the batch has been dropped
            return None
        batch = Batch(part.epoch, part.after, part.events, seq - part.number, part.of, part.size)
        if not part.events:
            return batch, []
        whole, first = b"".join([part.data for part in parts]), part.after + 1
        try:
            found = _unpack(whole)
        except UNREADABLE_ERRORS:
            found = []
        if not found or max([one.version for one in found]) > RECORD_VERSION:
            return batch, _one_by_one(whole, part, time)
        entries = [one.entry(part.epoch, place, time) for place, one in enumerate(found, first)]
        return batch, entries if len(entries) == part.events else _one_by_one(whole, part, time)


def _one_by_one(data: bytes, part: Part, time: float) -> list[Entry]:
    """The entries of a batch in which at least one cannot be read."""
    try:
        pieces = _split(data)
    except UNREADABLE_ERRORS:
        pieces = []
    pieces = (pieces + [msgspec.Raw()] * part.events)[: part.events]
    entries = []
    for place, piece in enumerate(pieces, part.after + 1):
        entries.append(entry_of(piece, part.epoch, place, time))
    return entries


def subject_of(id: str, topics: tuple[str, ...]) -> str:
    """The subject of a chosen id and topics, behind the stream's."""
    return f"{old_subject_of(id)}.{topics_digest(topics)}"


def old_subject_of(id: str) -> str:
    """The subject that earlier versions gave to a chosen id, and with which ours begins. The id is one token of it, so
    it must have no dots, wildcards and blanks."""
    return "id." + quote(id, safe="").replace(".", "%2E")
