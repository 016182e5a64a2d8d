"""Beginning: where a client's stream begins."""

from __future__ import annotations

from typing import NamedTuple

from ssepool.core.event import EARLIEST, is_id


class Beginning(NamedTuple):
    """A place in the order of a history, before the first event that a client gets."""

    epoch: str
    """The name of the history."""
    position: int
    """The position before that event."""

    @property
    def id(self) -> str:
        """The id that names the place: the one that brokers make for the event there, whether there is one or not."""
        return f"{self.epoch}-{self.position}"


class Found(NamedTuple):
    """Where a client that was last at some id goes on."""

    position: int
    """Replay starts after this position."""
    complete: bool
    """False if events may be missing before what is replayed."""


def echoed(wanted: str) -> str | None:
    """The id at which a stream begins whose client came with this one: the same, if it is one that an event may have.
    It names the place until something has been delivered behind it; where nothing is known of it, the gap says so."""
    return wanted if wanted != EARLIEST and is_id(wanted) else None
