"""Cuts: how far each topic's events have been dropped, so that a gap is told exactly where one is."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from ssepool.core.cut import Cut
from ssepool.core.kept import Kept
from ssepool.core.topics import Subscription

MAX_CUTS = 100_000
"""Cuts that are remembered of topics that have nothing any more, at most."""

CUT_BYTES = 250
"""Memory that a cut takes, approximately, with the topic's name."""

CUT_SECONDS = 86_400.0
"""Seconds for which they are remembered."""

MAX_RECENT = 1000
"""Dropped events that are remembered one by one, for patterns."""

MAX_RECENT_TOPICS = 10
"""Topics that one of these has at most: others take too much memory."""

NO_CUT = Cut()
"""Of a topic of which nothing has been dropped, as far as is known."""


class Cuts:
    """The cuts of topics that have nothing any more, or had nothing once, and the events that were dropped last.

    A subscription to exact topics is told of a gap exactly where one is, unless it comes from before the `floor`. One
    with patterns is also told of one if more than `MAX_RECENT` events behind its place were dropped, whatever their
    topics were.
    """

    __slots__ = ("_cuts", "_most", "_recent", "_unseen", "drops", "floor", "newest")

    def __init__(self, most: float = MAX_CUTS) -> None:
        """`most` cuts are remembered."""
        self._most = most
        self._cuts: OrderedDict[str, tuple[Cut, float]] = OrderedDict()  # of which the first goes at once
        """By topic, with the time when it was put, in the order of these times."""
        self._recent: deque[tuple[int, tuple[str, ...], bool]] = deque()
        self._unseen = 0
        """The position of the newest event that was dropped and is not among the recent ones."""
        self.drops = 0
        """Events that have been dropped, and that somebody may have missed."""
        self.floor = 0
        """Up to here events may have been dropped of which nothing is known."""
        self.newest = 0
        """The position of the newest event that was dropped."""

    def __len__(self) -> int:
        return len(self._cuts)

    def of(self, topic: str) -> Cut:
        """What was put of a topic."""
        known = self._cuts.get(topic)
        return NO_CUT if known is None else known[0]

    def load(self, cuts: Iterable[tuple[str, Cut]], now: float) -> None:
        """Take over what was known before; it counts as put now (seconds). What has gone up to there is not among the
        recent ones."""
        for topic, cut in cuts:
            self.put(topic, cut, now)
            self._unseen = max(self._unseen, cut.newest)

    def put(self, topic: str, cut: Cut, now: float) -> None:
        """Remember of a topic how far it has been dropped."""
        known = self._cuts.pop(topic, None)
        self._cuts[topic] = (cut if known is None else cut.joined(known[0]), now)
        self.newest = max(self.newest, cut.newest)
        if len(self._cuts) > self._most:
            self._forget_first()

    def drop(self, position: int, topics: tuple[str, ...], private: bool) -> None:
        """An event is dropped. The cuts of its topics are `put` when they have nothing any more; until then `lost` asks
        for them."""
        self.drops += 1
        if position > self.newest:
            self.newest = position
        recent = self._recent
        if len(topics) > MAX_RECENT_TOPICS:
            self._unseen = max(self._unseen, position)
            topics = ()
        recent.append((position, topics, private))
        if len(recent) > MAX_RECENT:
            gone = recent.popleft()[0]
            if gone > self._unseen:
                self._unseen = gone

    def drop_all(self, entries: Sequence[Kept]) -> None:
        """As `drop` of each of these, of one topic and in order, for less."""
        self.drops += len(entries)
        self.newest = max(self.newest, entries[-1].position)
        recent = self._recent
        recent.extend([(entry.position, entry.topics, entry.private) for entry in entries])
        while len(recent) > MAX_RECENT:
            gone = recent.popleft()[0]
            if gone > self._unseen:
                self._unseen = gone

    def raise_floor(self, floor: int) -> None:
        """Up to here nothing is known."""
        self.floor = max(self.floor, floor)
        self.newest = max(self.newest, floor)
        self._unseen = max(self._unseen, floor)

    def until(self, end: int) -> Cuts:
        """What is left of them where all behind a position is lost."""
        left = Cuts(self._most)
        for topic, (cut, at) in self._cuts.items():
            left.put(topic, cut.until(end), at)
        left.raise_floor(min(self.floor, end))
        left._unseen, left.drops = left.newest, self.drops
        return left

    def forget(self, now: float) -> None:
        """Forget cuts that are too old; the floor rises to the newest of them."""
        while self._cuts and next(iter(self._cuts.values()))[1] <= now - CUT_SECONDS:
            self._forget_first()

    def _forget_first(self) -> None:
        cut, _ = self._cuts.popitem(last=False)[1]
        self.raise_floor(cut.newest)

    def lost(
        self,
        subscription: Subscription,
        after: int,
        of: Callable[[str], Cut],
        matches: Callable[[tuple[str, ...], bool], bool],
    ) -> int:
        """The position of the newest event behind `after` that the subscription would have had and that was dropped; 0
        if there is none. `of` is the whole cut of a topic, and `matches` says what belongs to the subscription."""
        if after >= self.newest:
            return 0
        found = self.floor
        for topic in subscription.topics:
            public, private = of(topic)
            found = max(found, public)
            if private > found and subscription.private and topic not in subscription.public_only:
                found = private
        if subscription.patterns:
            found = max(found, self._unseen)
            for position, topics, is_private in self._recent:
                if position > after and position > found and matches(topics, is_private):
                    found = position
        return found if found > after else 0

    def dropped(self, since: int, after: int, matches: Callable[[tuple[str, ...], bool], bool]) -> int | None:
        """The position of the newest event behind `after` that belongs to a subscription and was dropped when `since`
        others had been, wherever its cuts were by then; 0 if there is none, None if there were too many to tell."""
        count = self.drops - since
        if count > len(self._recent):
            return None
        found = 0
        for position, topics, is_private in islice(reversed(self._recent), max(0, count)):
            if position > after and not topics:  # it had too many
                return None
            if position > after and position > found and matches(topics, is_private):
                found = position
        return found
