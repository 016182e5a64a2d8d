"""Names: the positions of the ids that publishers chose."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ssepool.core.event import Entry, topic_set


class _Several:
    """The events of one id."""

    __slots__ = ("by_topic", "places")

    def __init__(self) -> None:
        self.places: dict[tuple[str, ...], int] = {}
        """The newest position of each set of topics, in order."""
        self.by_topic: dict[str, deque[int]] = {}
        """The positions of each topic, in order."""

    def add(self, entry: Entry) -> None:
        topics = topic_set(entry.topics)
        self.places.pop(topics, None)  # of one that was dropped: it is to come last now
        self.places[topics] = entry.position
        for topic in set(topics):
            self.by_topic.setdefault(topic, deque()).append(entry.position)

    def discard(self, entry: Entry) -> None:
        topics = topic_set(entry.topics)
        if self.places.get(topics) == entry.position:
            del self.places[topics]
        for topic in set(topics):
            positions = self.by_topic.get(topic)
            if positions and positions[0] == entry.position:
                positions.popleft()
                if not positions:
                    del self.by_topic[topic]


class Names:
    """Finds entries by chosen id. One id may name several, one for each set of topics; most name one, which costs no
    more than its position. Entries are added and discarded in the order of their positions."""

    def __init__(self, entry: Callable[[int], Entry | None]) -> None:
        """`entry` returns the entry at a position, as long as it is in here."""
        self._entry = entry
        self._ids: dict[str, int | _Several] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, entry: Entry) -> None:
        """Take an entry with a chosen id in."""
        id = entry.id or ""
        known = self._ids.setdefault(id, entry.position)
        if isinstance(known, int):
            if known == entry.position:
                return
            first = self._entry(known)
            known = self._ids[id] = _Several()
            if first is not None:
                known.add(first)
        known.add(entry)

    def discard(self, entry: Entry) -> None:
        """Let an entry go; one that is not in here makes no difference."""
        known = self._ids.get(entry.id or "")
        if isinstance(known, _Several):
            known.discard(entry)
            if known.places:
                return
        elif known != entry.position:
            return
        del self._ids[entry.id or ""]

    def position(self, id: str, topics: tuple[str, ...]) -> int | None:
        """The position of the newest entry with this id and exactly these topics."""
        known = self._ids.get(id)
        if isinstance(known, _Several):
            return known.places.get(topic_set(topics))
        entry = None if known is None else self._entry(known)
        return known if entry is not None and topic_set(entry.topics) == topic_set(topics) else None

    def positions(self, id: str, topics: Iterable[str] | None = None) -> Sequence[int]:
        """The positions of the entries with this id, in order. With `topics` those of no other topics may be left out:
        that takes no time for all the other topics in which the id is."""
        known = self._ids.get(id)
        if known is None:
            return ()
        if isinstance(known, int):
            return (known,)
        if topics is None:
            return list(known.places.values())
        return sorted({place for topic in topics for place in known.by_topic.get(topic, ())})
