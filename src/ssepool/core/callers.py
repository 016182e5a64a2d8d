"""Callers: connections that hold a descriptor and are neither streams nor waiters, and which of them gives way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum

MAX_CALLERS = 10_000
"""Callers at most, however many descriptors there are: each also takes some 10 KB of memory."""

MIN_CALLERS = 32
"""Callers that there may be even where the pool takes all descriptors; they are a part of those to spare."""

SHARES = 10
"""Addresses that together may have all places."""

MIN_SHARE = 20
"""Callers that one address may have at least."""

MAX_LOOKS = 100
"""Callers that are passed over at most because they have just had an answer."""

GiveWay = Callable[[], None]
"""Closes a connection for which there is no room."""


class Stage(IntEnum):
    """How far a caller's request is. The smaller, the less is lost if it is cut off."""

    IDLE = 0
    """Between two requests."""
    HEAD = 1
    """Its head is awaited, or has begun."""
    BODY = 2
    """Its body is awaited, or has begun."""
    ANSWER = 3
    """It is there, and its answer is not, or not all of it."""


class _Room:
    """Places by stage, each in the order in which they came there."""

    __slots__ = ("lines", "taken")

    def __init__(self) -> None:
        self.lines: tuple[OrderedDict[Place, None], ...] = tuple(OrderedDict() for _ in Stage)
        self.taken = 0

    def least_missed(self, last: Stage) -> Place | None:
        """Who has been longest in the earliest stage, but for those of whom there was something new; None if all are
        beyond `last`."""
        for line in self.lines[: last + 1]:
            for _ in range(min(len(line), MAX_LOOKS)):
                place = next(iter(line))
                if not place.is_fresh:
                    return place
                place.is_fresh = False
                line.move_to_end(place)
            if line:
                return next(iter(line))
        return None


class Place:
    """What one connection has among the callers until it leaves them: it becomes a stream, or it ends."""

    __slots__ = ("_callers", "_rooms", "give_way", "is_fresh", "is_taken", "source", "stage")

    def __init__(self, callers: Callers, rooms: tuple[_Room, ...], source: str | None, give_way: GiveWay) -> None:
        self._callers = callers
        self._rooms = rooms
        self.stage = Stage.HEAD
        """How far its request is; `move` changes it."""
        self.source = source
        """What its address counts as; None if it has the connections of many."""
        self.give_way = give_way
        """Closes the connection."""
        self.is_taken = True
        """Whether it counts."""
        self.is_fresh = False
        """Whether it has had an answer since it was last passed over. Cheaper than to keep all of them in order."""
        for room in rooms:
            room.lines[Stage.HEAD][self] = None
            room.taken += 1

    def move(self, stage: Stage) -> None:
        """The request has come to this stage."""
        if not self.is_taken or stage is self.stage:
            return
        for room in self._rooms:
            del room.lines[self.stage][self]
            room.lines[stage][self] = None
        self.stage = stage

    def leave(self) -> None:
        """Count no more. May be called again."""
        if not self.is_taken:
            return
        self.is_taken = False
        for room in self._rooms:
            del room.lines[self.stage][self]
            room.taken -= 1
        self._callers.forget(self.source)


class Callers:
    """All callers of one server. A new one is always taken: beyond the bounds another gives way to it.

    Who opens connections to keep others out keeps out himself: a plain subscription arrives whole, and is a stream
    before it would be counted. Cut off first is who is idle, then who has sent his head for longest, then his body.
    """

    def __init__(self, max_callers: Callable[[], int], *, shared: bool = True, last: Stage = Stage.ANSWER) -> None:
        """`max_callers` says how many there may be now; if they are `shared`, an address may have a tenth of them.
        Nobody is cut off who is beyond the stage `last`: there are more callers then."""
        self._max_callers = max_callers
        self._shared = shared
        self._last = last
        self._all = _Room()
        self._rooms: dict[str, _Room] = {}
        self.cut = 0
        """Callers that had to give way."""

    def __len__(self) -> int:
        return self._all.taken

    def of(self, source: str) -> int:
        """How many callers a source has."""
        room = self._rooms.get(source)
        return room.taken if room is not None else 0

    def enter(self, source: str | None, give_way: GiveWay) -> Place:
        """Take a new caller, whose `give_way` closes it if it must; it may be exchanged later.

        `source` is what its address counts as, None if it has the connections of many.
        """
        most = self._max_callers()
        if self._shared and source is not None and self.of(source) >= max(MIN_SHARE, most // SHARES):
            self._cut(self._rooms[source])
        # After the pool has grown there are too many, of whom two at a time leave: a step must not take long.
        for _ in range(2):
            if len(self) >= most:
                self._cut(self._all)
        if source is None:
            return Place(self, (self._all,), source, give_way)
        return Place(self, (self._all, self._rooms.setdefault(source, _Room())), source, give_way)

    def forget(self, source: str | None) -> None:
        """Keep nothing of a source that has no callers any more."""
        if source is not None and not self._rooms[source].taken:
            del self._rooms[source]

    def _cut(self, room: _Room) -> None:
        place = room.least_missed(self._last)
        if place is not None:
            place.leave()
            self.cut += 1
            place.give_way()


def most_callers(descriptors: int | None, clients: int) -> int:
    """How many callers there may be beside so many streams and waiters, with so many descriptors for all of them; None
    is any number."""
    left = MAX_CALLERS if descriptors is None else descriptors - clients
    return min(MAX_CALLERS, max(MIN_CALLERS, left))
