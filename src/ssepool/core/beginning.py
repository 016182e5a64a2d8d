"""Beginning: where a client's stream begins."""

from __future__ import annotations

import re
from typing import NamedTuple

from ssepool.core.event import BEGINNING, is_id

LATEST = "latest"
"""The `Last-Event-ID` that asks for the newest event of each topic, and then for what is live."""

MAX_LAST = 1000
"""Events of each topic that `last=N` gets at most."""

_LAST = re.compile(r"last=([0-9]{1,9})", re.ASCII)


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
    is_lost: bool = False
    """Whether they are because the broker has lost what was there; else nobody knows the id."""


def echoed(wanted: str) -> str | None:
    """The id at which a stream begins whose client came with this one: the same, if it is one that an event may have.
    It names the place until something has been delivered behind it; where nothing is known of it, the gap says so."""
    return wanted if is_id(wanted) and not BEGINNING.fullmatch(wanted) else None


def newest_of_each(wanted: str) -> int | None:
    """How many of the newest events of each topic are asked for; None if it is something else that is."""
    if wanted == LATEST:
        return 1
    found = _LAST.fullmatch(wanted)
    return None if found is None else min(int(found[1]), MAX_LAST)
