"""Kept: an event that is kept, at hand or with the broker alone."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec

from ssepool.core.event import Entry


class Absent(msgspec.Struct, frozen=True, gc=False):
    """An event that the broker keeps and that is not at hand: what must be known of it all the same."""

    position: int
    """Its place in the order."""
    topics: tuple[str, ...]
    """The topics to which it was published."""
    private: bool
    """Whether it is private."""
    size: int
    """Bytes of memory that it takes where it is at hand: what is counted."""
    key: str | None
    """What it replaces in its topics."""
    removed: bool
    """Whether it says that nothing is there under its key."""

    @classmethod
    def of(cls, entry: Entry) -> Absent:
        """What is left of an entry."""
        return cls(entry.position, entry.topics, entry.private, entry.size, entry.key, entry.removed)


Kept: TypeAlias = Entry | Absent
"""An event that is kept."""

DropReason = Literal["age", "events", "bytes", "topic", "replaced", "live_only"]
"""Why an event is kept no longer: it is too old; all topics together had too many events, or too many bytes; its topics
had more than they may; another took its place; nothing of its topics is kept."""
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)
"""All of them."""
UNMISSED: tuple[DropReason, ...] = ("replaced", "live_only")
"""Those for which nobody who was away has missed anything."""


class Held(NamedTuple):
    """How much is kept."""

    events: int
    """Entries."""
    bytes: int
    """Bytes of memory that they take: `Entry.size`."""
