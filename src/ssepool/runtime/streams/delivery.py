"""Delivery: one loop that brings every connection up to the head of its feed, in slices."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from ssepool.config import HubConfig, MiB
from ssepool.core.event import Entry
from ssepool.core.feed import Feed, Member
from ssepool.core.states import Reason

logger = logging.getLogger("ssepool")

SLICE_SECONDS = 0.002
"""Seconds that delivery holds the event loop at a time."""

STRIDE_LINKS = 4
"""Connections that are written to between two looks at the clock: a write takes some 10 us, a look one in a hundred."""

MAX_WAKES = 64
"""Tasks that a slice wakes at the most: their sends run in the loop's next turn, outside the slice's clock."""

PAGE_WAKES = 24
"""What a page of a replay counts among them: it is looked for in the task, for about a millisecond."""

MAX_BACKLOG_BYTES = 16 * MiB
"""Bytes of memory (`Entry.size`) appended to feeds but not yet offered to all their connections, beyond which
publishers wait; an entry counts once for each feed."""

HELD_SHARES = 4
"""How often `lag_bytes` may be held for all lagging clients together, beyond what the history has at hand."""


class Delivery:
    """Feeds with something new take turns. A turn visits the feed's connections; each writes what it lacks.

    Connections that are still given what they missed take turns with the feeds, as if they were one more of them.
    Events that are published meanwhile join in: connections that come later in the round get them with the same
    write, the others in the next round.
    """

    def __init__(self, config: HubConfig, now: Callable[[], float]) -> None:
        """`now` is the hub's clock, in seconds."""
        self.config = config
        """The settings: how far a client may lag."""
        self._now = now
        self._rounds: OrderedDict[Feed | None, Iterator[int]] = OrderedDict()
        """What each feed's turn has still to visit; under None, the replays'."""
        self._replays: OrderedDict[Member, None] = OrderedDict()
        self._scheduled = False
        self._backlog = 0
        self._room: asyncio.Future[None] | None = None

    def append(self, feed: Feed, entry: Entry, now: float) -> None:
        """Put an entry into a feed and have it delivered."""
        feed.append(entry, now)
        self._backlog += entry.size
        if feed not in self._rounds:
            self._rounds[feed] = self._round(feed)
            self._schedule()

    def again(self, link: Member) -> None:
        """Flush a link that is given what it missed, when its turn comes."""
        self._replays[link] = None
        if None not in self._rounds:
            self._rounds[None] = self._replay_round()
            self._schedule()

    def caught_up(self, feed: Feed, link: Member) -> None:
        """A connection has everything, or has gone: what only it still needed can be dropped."""
        if link in feed.behind:
            del feed.behind[link]
            if not feed.behind and feed not in self._rounds:
                feed.clear()

    def relieve(self, feeds: Iterable[Feed], oldest: int) -> None:
        """Bound what feeds hold for stalled clients alone: entries up to the position `oldest`, which the history has
        at hand no more. If all feeds with such entries hold more than `HELD_SHARES` times `lag_bytes`, each keeps an
        equal share."""
        alone = [
            feed
            for feed in feeds
            if feed.entries and feed.entries[0].position <= oldest and feed not in self._rounds  # which settles it
        ]
        bound = HELD_SHARES * self.config.lag_bytes
        if sum([feed.size for feed in alone]) > bound:
            for feed in alone:
                self._settle(feed, feed.head, bound // len(alone))
                if self.config.lag_policy == "disconnect":  # whom that leaves without what it needs
                    self._rounds[feed] = self._round(feed)
                    self._schedule()

    @property
    def has_room(self) -> bool:
        """Whether delivery keeps up, so that more may be published."""
        return self._backlog <= MAX_BACKLOG_BYTES

    async def room(self) -> None:
        """Wait while more is published than delivered."""
        while not self.has_room:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._slice)

    def _slice(self) -> None:
        self._scheduled = False
        now = self._now
        deadline = now() + SLICE_SECONDS
        wakes = 0
        while self._rounds:
            feed, turn = next(iter(self._rounds.items()))
            for weight in turn:
                wakes += weight
                if wakes >= MAX_WAKES or now() >= deadline:
                    self._rounds.move_to_end(feed)  # a big feed must not starve the small ones
                    self._schedule()
                    return
            del self._rounds[feed]
            if self._rounds.keys() <= {None}:
                self._offered_all()

    def _offered_all(self) -> None:
        self._backlog = 0
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def _round(self, feed: Feed) -> Iterator[int]:
        while True:
            reached = feed.head
            links = tuple(feed.members)
            for start in range(0, len(links), STRIDE_LINKS):
                weight = 0
                for link in links[start : start + STRIDE_LINKS]:
                    try:
                        link.flush()
                    except Exception:  # one link's defect must not end delivery to all others
                        self._fail(link)
                    weight += link.weight
                yield weight
            self._settle(feed, reached, self.config.lag_bytes)
            if self.config.lag_policy == "disconnect":
                yield from self._part_with_lagging(feed)
            if feed.head == reached:
                return

    def _replay_round(self) -> Iterator[int]:
        while self._replays:
            link, _ = self._replays.popitem(last=False)
            try:
                link.flush()
            except Exception:  # as in a round
                self._fail(link)
            yield link.weight * PAGE_WAKES

    def _fail(self, link: Member) -> None:
        logger.exception("a link failed while writing; its client is sent away")
        link.end(Reason.ERROR)

    def _settle(self, feed: Feed, reached: int, max_bytes: int) -> None:
        """After a round everybody has what came before it, but for those that are behind."""
        slowest = healthy = reached
        for link in feed.behind:
            cursor = link.cursor
            slowest = min(slowest, cursor)
            if not link.stalled:
                healthy = min(healthy, cursor)
        if slowest == feed.head:
            feed.clear()
            return
        config = self.config
        feed.trim(
            slowest,
            healthy,
            max_entries=config.lag_events,
            max_bytes=max_bytes,
            keep_latest=config.lag_policy == "latest",
        )

    def _part_with_lagging(self, feed: Feed) -> Iterator[int]:
        for link in tuple(feed.behind):
            if link in feed.behind and link.cursor < feed.first:  # it may have gone since the slice before
                try:
                    link.close(Reason.LAGGED)
                except Exception:  # as in a round
                    self._fail(link)
                yield link.weight
