"""Record: an event as brokers store it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ssepool.core.event import Entry, Event, encode
from ssepool.errors import EventTooLarge

LONGEST_MADE_ID = 8 + 1 + 19
"""Characters of an id `<epoch>-<position>`."""

AROUND_ID = len("id: \n")


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All of an event but its position: its frame without the `id:` line, which may not be known yet."""

    frame: bytes
    topics: tuple[str, ...]
    private: bool = False
    id: str | None = None
    """The id that the publisher chose."""

    def entry(self, epoch: str, position: int) -> Entry:
        """The event at its place."""
        id = self.id or f"{epoch}-{position}"
        return Entry(position, id, self.topics, b"id: %b\n%b" % (id.encode(), self.frame), self.private)


def records(events: Sequence[Event], max_event_size: int) -> list[Record]:
    """What is to be stored of a batch. Raises `EventTooLarge` for a frame of more than so many bytes."""
    made = []
    for event in events:
        frame = encode(event.data, type=event.type, retry=event.retry)
        size = len(frame) + AROUND_ID + len(event.id or "")
        if size > max_event_size:
            raise EventTooLarge(f"an event of {size} bytes on the wire exceeds max_event_size={max_event_size}")
        made.append(Record(frame, event.topics, event.private, event.id))
    return made


pack = msgspec.msgpack.Encoder().encode
"""A record as bytes."""

unpack = msgspec.msgpack.Decoder(Record).decode
"""The record of these bytes."""
