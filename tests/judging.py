"""What subscribers heard that dropped and came back, against a plain model of the rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from keeping import Bounds, Held, Model
from ssepool.core.event import Entry, topic_set
from ssepool.core.topics import Subscription


@dataclass
class Session:
    """One stay of a subscriber: where it came, and what it heard."""

    who: str
    """Names the subscriber and its node, for messages."""
    subscription: Subscription
    place: int
    """The position up to which it has had everything."""
    is_earliest: bool
    """It takes what is there, and has had nothing."""
    came: int
    """The newest position that its node knew of then."""
    begun: int | None = None
    """The newest position that any node knew of when it got its first event."""
    joined: int = 0
    """The position up to which it had been given everything when it began to be live; 0 if it did not come so far."""
    newest: int = 0
    """The newest position that any node knew of at that time."""
    ended: int = 0
    """The newest position that any node knew of when it dropped."""
    told: list[int] = field(default_factory=list)
    """The newest position that any node knew of when its gaps were told, before it was live."""
    heard: list[int | str] = field(default_factory=list)
    """The positions of events, and for each gap its reason."""

    @property
    def positions(self) -> list[int]:
        """Of the events."""
        return [one for one in self.heard if isinstance(one, int)]

    @property
    def reached(self) -> int:
        """The position up to which it lacks nothing, but what has been dropped."""
        return max([self.joined, self.place, *self.positions])

    def wants(self, entry: Entry) -> bool:
        """Whether an event is for it: who begins has nothing that could be removed."""
        is_vain = self.is_earliest and entry.removed and entry.position <= self.came
        return not is_vain and self.subscription.matches(entry.topics, entry.private)


class Gone(NamedTuple):
    """When an event was kept no longer: with the event at which position; and whether that is a gap."""

    at: int
    is_missed: bool


class _Model(Model):
    def gone(self, entries: Iterable[Entry]) -> dict[int, Gone]:
        """What goes while these come one by one."""
        gone: dict[int, Gone] = {}
        for entry in entries:
            self.missed.clear()
            before = {**self.kept, entry.position: Held(entry, 0.0)}
            self.append([entry], 0.0)
            missed = {one.position for one in self.missed}
            gone |= {one: Gone(entry.position, one in missed) for one in before if one not in self.kept}
        return gone


class Judge:
    """Holds what was heard against what the model says of all that was published."""

    def __init__(self, entries: Sequence[Entry], bounds: Bounds) -> None:
        """Of everything that was ever appended, in order."""
        self._entries = {entry.position: entry for entry in entries}
        self._gone = _Model(bounds).gone(entries)
        newest = dict[tuple[tuple[str, ...], str], int]()
        self._replaced: dict[int, int] = {}
        """By what each event with a key was replaced: a node that sees both at once need not miss it."""
        for entry in entries:
            if entry.key is not None:
                key = topic_set(entry.topics), entry.key
                if key in newest:
                    self._replaced[newest[key]] = entry.position
                newest[key] = entry.position
        self.told = 0
        """Gaps that were told."""

    def check(self, session: Session) -> None:
        """Raise `AssertionError` with what is wrong with a stay."""
        heard, wants = session.positions, session.wants
        assert heard == sorted(set(heard)), f"{session}: not once, or not in order"
        for position in heard:
            entry = self._entries[position]
            assert position > session.place, f"{session}: {position} comes from before its place"
            assert wants(entry), f"{session}: {entry} is none of its own"
        has = set(heard)
        lacks = [
            position
            for position, entry in self._entries.items()
            if position > session.place and position not in has and wants(entry)
        ]
        for position in [one for one in lacks if one <= session.reached]:
            until = session.newest if position <= session.joined else session.ended
            assert self._gone_at(position) <= until, f"{session}: {self._entries[position]} was kept, and did not come"
        self._check_gaps(session, lacks)

    def _check_gaps(self, session: Session, lacks: list[int]) -> None:
        missed = [one for one in lacks if one in self._gone and self._gone[one].is_missed]
        due = [one for one in missed if self._is_due(one, session)]
        may = [one for one in missed if not session.is_earliest or self._gone_at(one) > session.came]
        last, told, times = session.place, -1, iter(session.told)
        if session.is_earliest:  # what went before it had anything is none of its business
            told = session.ended if session.begun is None else session.begun
        for one in [*session.heard, session.reached + 1]:
            if isinstance(one, int):
                untold = [each for each in due if last < each < one and self._gone_at(each) > told]
                assert not untold, f"{session}: nobody said that {untold} were missed, before {one}"
                last = one
                continue
            assert one in ("expired", "broker_lost"), f"{session}: {one}"
            self.told += 1
            told = next(times, session.ended)
            assert session.subscription.patterns or any(each > last and self._gone_at(each) <= told for each in may), (
                f"{session}: a gap behind {last}, and nothing was missed"
            )

    def _gone_at(self, position: int) -> float:
        return self._gone[position].at if position in self._gone else math.inf

    def _is_due(self, position: int, session: Session) -> bool:
        """Whether a gap has to be told for an event that did not come."""
        return self._replaced.get(position, math.inf) > session.ended
