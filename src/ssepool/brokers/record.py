"""Record: an event in the form in which brokers store it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from ssepool.core.chunk import chunk
from ssepool.core.event import Entry, Event, topic_set
from ssepool.errors import EventTooLarge

MAX_MADE_ID_BYTES = 8 + 1 + 19
"""The longest id that a broker makes: `<epoch>-<position>`, which is 8 and up to 19 digits."""

STORED_BYTES = 40
"""What an event takes in a broker beside its frame, topics and id, approximately; counted for `history_bytes`."""

DIGEST_CHARACTERS = 32
"""Hexadecimal digits of the digests of topics and of contents: 128 bits of SHA-256."""

AROUND_ID_BYTES = len("id: \n")
"""What the line `id:` adds to a frame beside the id itself."""


VERSION = 1
"""The version of records. One that those who know only earlier versions may read keeps it, with fields at the end that
they pass over; any other raises it."""

NEWER = "ssepool.newer"
"""The topic of what stands in a page for a record of a newer version."""


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All of an event except its position. Its frame has no `id:` line, because the id may not be known yet."""

    frame: bytes
    """The event's bytes on the wire without the line `id:`."""
    topics: tuple[str, ...]
    """The names of its topics."""
    private: bool = False
    """Whether it reaches only subscriptions with the right to private events."""
    id: str | None = None
    """The id that the publisher chose; None if the broker is to make one."""
    key: str | None = None
    """What the event replaces in its topics; None for one that is added."""
    removed: bool = False
    """Whether it says that nothing is there under its key any more."""
    version: int = VERSION
    """The version in which it was written; those of before had none, and the same fields."""

    @property
    def claim(self) -> str | None:
        """The chosen id and a digest of the topics: two events that are kept never have the same. None without a chosen
        id."""
        return None if self.id is None else f"{self.id} {topics_digest(self.topics)}"

    @property
    def content(self) -> str:
        """A digest of all but the id and the topics, which tells whether an event is another's repetition."""
        said = self.frame + (b"\1" if self.private else b"\0")
        return _digest(said if self.key is None else b"%b%d%b" % (said, self.removed, self.key.encode()))

    def entry(self, epoch: str, position: int, at: float = 0.0) -> Entry:
        """The event as readers receive it, at its position in the history that `epoch` names, stored `at` this time
        (seconds since 1970; 0 if that is not known)."""
        id = self.id or f"{epoch}-{position}"
        frame = b"id: %b\n%b" % (id.encode(), self.frame)
        return Entry(position, id, self.topics, chunk(frame), self.private, self.key, self.removed, at)


def records(events: Sequence[Event], max_event_size: int) -> list[Record]:
    """The records of a batch. Raises `EventTooLarge` for a frame of more than `max_event_size` bytes."""
    made = []
    for event in events:
        frame = event.encode_without_id()
        size = len(frame) + AROUND_ID_BYTES + len(event.id or "")
        if size > max_event_size:
            raise EventTooLarge(f"an event of {size} bytes on the wire exceeds max_event_size={max_event_size}")
        made.append(Record(frame, event.topics, event.private, event.id, event.key, event.removed))
    return made


def topics_digest(topics: tuple[str, ...]) -> str:
    """A digest of an event's topics, in whatever order."""
    return _digest("\n".join(topic_set(topics)).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARACTERS]


pack = msgspec.msgpack.Encoder().encode
"""A record, or a list of them, as MessagePack."""

_unpack = msgspec.msgpack.Decoder(Record).decode
_unpack_fields = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_unpack_number = msgspec.msgpack.Decoder(int).decode


def unpack(data: bytes) -> Record:
    """The record that `pack` made these bytes of. Raises one of `UNREADABLE_ERRORS` for other bytes, and for a record
    of a newer version."""
    record = _unpack(data)
    if record.version > VERSION:
        raise ValueError(f"a record of the version {record.version}; this one knows {VERSION}")
    return record


def entry_of(data: bytes, epoch: str, position: int, at: float) -> Entry:
    """The entry of these bytes, as `Record.entry`, or what stands in its place."""
    try:
        return unpack(data).entry(epoch, position, at)
    except UNREADABLE_ERRORS:
        return unreadable(position, is_newer=_is_newer(data))


def _is_newer(data: bytes) -> bool:
    try:
        return _unpack_number(_unpack_fields(data)[len(Record.__struct_fields__) - 1]) > VERSION
    except (*UNREADABLE_ERRORS, IndexError):
        return False


UNREADABLE_ERRORS = (msgspec.MsgspecError, AttributeError, TypeError, ValueError)
"""What reading a record raises that somebody else has written, or a version with another layout."""


def unreadable(position: int, *, is_newer: bool = False) -> Entry:
    """What stands in a page for a record that cannot be read, perhaps because it `is_newer`: an entry without id and
    bytes."""
    return Entry(position, None, (NEWER,) if is_newer else (), b"")
