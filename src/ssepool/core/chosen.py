"""Chosen: where the events are whose ids publishers chose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from ssepool.core.event import MADE_ID, Entry
from ssepool.core.kept import Kept
from ssepool.core.names import Names

MAX_GONE = 1000
"""Dropped events whose places are remembered."""


class Chosen:
    """Finds entries by chosen id: those at hand, and those dropped last, which are still good to go on from."""

    __slots__ = ("_gone", "_kept", "_names")

    def __init__(self, kept: Mapping[int, Kept]) -> None:
        """`kept` has the events that are there, by position."""
        self._kept = kept
        self._gone: dict[int, Entry] = {}
        """Entries that were dropped last, without their frames."""
        self._names = Names(self._entry)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, entry: Entry) -> None:
        """An entry whose id was chosen has come."""
        self._names.add(entry)

    def drop(self, entry: Kept) -> None:
        """An entry is kept no longer: where it was is remembered."""
        if not self._names or not isinstance(entry, Entry) or is_made(entry):
            return
        gone = self._gone
        gone[entry.position] = msgspec.structs.replace(entry, chunk=b"")
        while len(gone) > MAX_GONE or (gone and len(gone) > len(self._kept) + 1):
            self._names.discard(gone.pop(next(iter(gone))))

    def put_away(self, entry: Entry) -> None:
        """An entry is not at hand any more."""
        if self._names and not is_made(entry):
            self._names.discard(entry)

    def positions(self, id: str, topics: Iterable[str] | None = None) -> Sequence[int]:
        """The places, in order, of the events of an id. With `topics` those of no other topics may be left out."""
        return self._names.positions(id, topics)

    def entry(self, id: str, topics: tuple[str, ...]) -> Entry | None:
        """The entry that is at hand of this id and these topics."""
        entry = self._kept.get(self._names.position(id, topics) or 0)
        return entry if isinstance(entry, Entry) else None

    def first(self, places: Iterable[int], wants: Callable[[tuple[str, ...], bool], bool]) -> int | None:
        """The first of these places of which `wants` takes the entry's topics and privacy."""
        for place in places:
            entry = self._entry(place)
            if entry is not None and wants(entry.topics, entry.private):
                return place
        return None

    def _entry(self, position: int) -> Entry | None:
        entry = self._kept.get(position)
        return entry if isinstance(entry, Entry) else self._gone.get(position)


def is_made(entry: Entry) -> bool:
    """Whether a broker has made the id of an entry."""
    id = entry.id
    return id is not None and id[9:] == str(entry.position) and MADE_ID.fullmatch(id) is not None
