"""The contract between the hub and whatever keeps its events."""

from __future__ import annotations

import asyncio
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from ssepool.brokers.record import Record
from ssepool.config import HubConfig, KiB
from ssepool.core.cut import Cut
from ssepool.core.event import Entry, Event
from ssepool.core.timelines import Timeline
from ssepool.core.window import Window
from ssepool.errors import BrokerError, DuplicateEvent, IdConflict
from ssepool.urls import without_password

MAX_MESSAGE_BYTES = 512 * KiB
"""The largest message of the side channel, in bytes."""

MAX_FACTS = 50_000
"""Facts that a broker keeps at a time at most."""

MAX_FACT_BYTES = 8 * KiB
"""The largest fact, in bytes."""

DROP_ENTRIES = 1000
"""Entries and cuts at most that are dropped in one step."""

PAGE_CUTS = 1000
"""Cuts that are read in one step at most."""

PAGE_FACTS = 1000
"""Facts that are read in one step at most."""

_FACT_NAME = re.compile("[a-z0-9-]{1,64}")

Wants = Callable[[tuple[str, ...], bool], bool]
"""Whether a client wants an event with these topics, which is private or not."""

PAGE_PLACES = 200
"""Events of one id that are looked at in one step."""


def anything(topics: tuple[str, ...], private: bool) -> bool:
    """Want every event."""
    return True


class Stored(NamedTuple):
    """Where an event is stored."""

    id: str
    """The id that its publisher chose, or else `<epoch>-<position>`."""
    position: int
    """Its place in the order; the first event has 1."""


class Kept(NamedTuple):
    """What the history has of an id and topics."""

    position: int
    """The event's place in the order."""
    content: str
    """The digest of its content, as `Record.content`."""


class Place(NamedTuple):
    """One of the events with a chosen id."""

    position: int
    """Its place in the order."""
    topics: tuple[str, ...]
    """The topics to which it was published."""
    private: bool
    """Whether it is private."""


class Fact(NamedTuple):
    """Something that all hubs of a broker have to know for a while, whatever becomes of them meanwhile."""

    name: str
    """Its name; there is one fact of a name."""
    number: int
    """Its place among all facts: what is kept later has a higher one."""
    data: bytes
    """What it says."""


class Bounds(NamedTuple):
    """What a broker keeps at one moment."""

    epoch: str
    """The name of this history. It changes when the broker has lost its data and begins anew."""
    oldest: int
    """The position before the oldest entry that is still kept."""
    newest: int
    """The position of the newest entry, even if it is no longer kept; 0 before the first."""
    bytes: int
    """What all entries that are kept take there, topics and all, approximately."""
    timelines: tuple[Timeline, ...] = ()
    """The names that this history had before, in their order (`core.timelines`)."""
    floor: int | None = None
    """Up to here entries may have been dropped of which no cut tells; None if `oldest` is this place."""

    @property
    def drops(self) -> bool:
        """Whether the broker drops what it is told to, and nothing else."""
        return self.floor is not None

    @property
    def untold(self) -> int:
        """Up to here entries may have been dropped of which no cut tells."""
        return self.oldest if self.floor is None else self.floor


class Broker(ABC):
    """Keeps events in one order, for all hubs and publishers that name the same URL.

    Every broker promises the same:

    - *Order.* Every event has a position: whole numbers from 1 on, as they are given out without holes. All readers
      see the same order. The
      events of one `append` keep the order in which the caller gave them; the events of two calls stand in the order
      in which the calls returned.
    - *Durability.* When `append` has returned, the events are as safe as the broker makes anything: on disk (sqlite,
      postgres, JetStream with file storage), as its settings say (redis), or in this process only (memory).
    - *All or nothing.* If `append` raises `DuplicateEvent`, or a `BrokerError` that does not say otherwise, nothing
      was stored. If the connection broke before the answer, the events may or may not be stored. A publisher that
      chose their ids can safely publish them again.
    - *Ids.* An event has the id that its publisher chose, or else `<epoch>-<position>`. `find` knows both kinds, on
      every node, for as long as the event is kept. A chosen id is one for each set of topics: the same id under other
      topics is another event. One that is kept already for the same topics is not stored again: with
      `on_duplicate="ignore"` `append` returns where it is, with `"refuse"` it raises `DuplicateEvent`. If its content
      (data, type, retry, private, key, removed) differs, `append` raises `IdConflict` in any case.
    - *Reading.* `tail` and `read` return the entries behind a position in order. They may return an entry twice; a
      subscriber still receives it once, because its position says what the subscriber has. Both read the history that
      `open` or `bounds` named last. If another history has begun, they raise `BrokerError` until `bounds` has named
      it, because a position of the old history means nothing in the new one. A record that cannot be read does not
      hold up those behind it: `unreadable` (`brokers.record`) makes an entry without bytes, which stands in its
      place.
    - *Facts* are as safe as events, and outlive every hub (but for memory). What `keep` has returned from is in the
      next `kept` of each hub, until its time is over.
    - *Bounds.* A broker drops what it is told to `drop`, and nothing else: which entries are kept is one decision, made
      in one place (`core.window`), the same for all brokers. (An `InstantBroker` has that window, and is
      told nothing.) What has been
      appended stays until then for all tails, also where the history keeps nothing, and for publishers that repeat it.
    - *Timelines.* A history whose end may have been cut off (a backup restored, a failover to a replica that lacks the
      newest) goes on under another name: its epoch. Positions go on behind what is there, and so are given out a second
      time, but no id ever names two events. A new timeline begins in `open`, if no other hub has the history open and
      there is something in it; in `append`, in one step with it, if the history has less than this object has ever seen
      of the same name; and in `renew`. `Bounds.timelines` keeps where those before ended, and an entry keeps the id
      that it was given: `<epoch>-<position>` with the epoch of its time (`Timelines.epoch_at`).

    Every method may raise `BrokerError` when the broker fails or cannot be reached. None retries for longer than it
    takes to connect again, and all may be cancelled at any time. No message of an error shows a password.
    """

    follows = True
    """Whether this is a hub's, which has clients. What only publishes begins no timeline in `open`: each run would be
    one, and only so many are remembered."""
    max_facts = MAX_FACTS
    """Facts that are kept at a time at most."""

    def __init__(self, config: HubConfig) -> None:
        """Connect nothing yet. Raises `ConfigError` for a URL that the broker cannot use."""
        self.config = config
        """The hub's settings."""
        self.url = without_password(config.broker)
        """The broker's URL for messages, without its password."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create the tables or streams that are missing.

        Raises `ConfigError` if the server refuses the credentials or is too old, `BrokerError` if it does not answer.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections and files. May be called at any time, even twice."""

    @abstractmethod
    async def append(self, records: Sequence[Record]) -> list[Stored]:
        """Put events at the end of the order, and return one `Stored` for each.

        Raises `DuplicateEvent` (or its `IdConflict`) and `BrokerError`. A broker outside this process
        looks at the history first: the error's `places` are all events that it refuses. Only if there are none, events
        are refused for others of the same call. The caller waits for one call to return before it makes the next
        (`GroupCommit` joins what is published meanwhile).
        """

    @abstractmethod
    def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """All entries behind a position, and then new ones as any process appends them.

        It never ends by itself. Entries beyond the bounds come too for as long as they are there, since a tail may be a
        moment behind. Where the next entries are gone, it goes on behind them. Pages are so small (1,000
        entries, about 1 MiB) that a slow reader holds no more than one or two. The first page comes as soon as the tail
        follows, and is empty if there is nothing yet: who waits for news knows then that they will come.
        """

    @abstractmethod
    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        """At most `max_entries` of the entries kept behind a position, in order; empty only if there are none."""

    async def fetch(self, positions: Sequence[int]) -> Sequence[Entry]:
        """Those of the entries at these positions (in order, `DROP_ENTRIES` at most) that are still there, in order, as
        far as about 1 MiB: the first of them in any case."""
        if not positions:
            return ()
        wanted = frozenset(positions)
        entries = await self.read(positions[0] - 1, max_entries=positions[-1] - positions[0] + 1)
        return [entry for entry in entries if entry.position in wanted]

    async def drop(self, positions: Sequence[int], cuts: Mapping[str, Cut], floor: int) -> None:
        """Forget the entries at these positions, and remember of the topics in `cuts` how far they have been dropped.

        Each takes `DROP_ENTRIES` at most. What is gone already makes no difference, and no cut falls: hubs that drop
        the same do not hinder each other. Cuts that are not above `floor` are forgotten, and `Bounds.floor` rises to
        it. In one step: whoever finds an entry gone finds the cut.
        """
        raise NotImplementedError

    async def cuts(self, after: str = "") -> Sequence[tuple[str, Cut]]:
        """At most `PAGE_CUTS` topics behind this name, in the order of their bytes in UTF-8, each with how far it has
        been dropped; empty only if there are none."""
        raise NotImplementedError

    async def renew(self, epoch: str) -> Bounds:
        """Begin a new timeline behind what is there, if the history still has this name; and say what there is now."""
        raise NotImplementedError

    @abstractmethod
    async def find(self, id: str, wants: Wants = anything) -> int | None:
        """The position of the event with this id, chosen or made; None if it is not kept.

        A chosen id may name several events. Then it is the first of those that `wants`, which is called with the topics
        of an event and whether it is private.
        """

    @abstractmethod
    async def bounds(self) -> Bounds:
        """What the broker keeps now. Hubs ask about once a second, also to see that the broker is alive."""

    @abstractmethod
    async def trim(self) -> None:
        """Drop the entries that are older than `history_age` or beyond the other bounds. Each hub calls this every few
        seconds."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send a message of at most `MAX_MESSAGE_BYTES` bytes to all hubs that listen now.

        Each receives it at most once, and the broker does not keep it: the side channel is for what hubs tell each
        other, never for events.
        """

    @abstractmethod
    def messages(self) -> AsyncIterator[bytes]:
        """All messages that any hub sends from now on, this hub included. It never ends by itself."""

    @abstractmethod
    async def keep(self, name: str, data: bytes, seconds: float) -> None:
        """Keep a fact for so long, in the place of the one of this name, if there is one.

        A name takes 1 to 64 small letters, digits and hyphens, and a fact `MAX_FACT_BYTES`: else `ValueError`. Raises
        `BrokerError` too if `max_facts` others are kept: none is given up for another.
        """

    @abstractmethod
    async def kept(self, after: int = 0) -> Sequence[Fact]:
        """At most `PAGE_FACTS` of the facts behind a number whose time is not over, in order; empty only if there are
        none. Hubs ask every few seconds for what is new."""

    def _check_fact(self, name: str, data: bytes) -> None:
        if not _FACT_NAME.fullmatch(name) or len(data) > MAX_FACT_BYTES:
            raise ValueError(f"a fact {name!r} of {len(data)} bytes is not allowed; it takes {MAX_FACT_BYTES} at most")

    def _full_of_facts(self) -> BrokerError:
        return BrokerError(f"{self.url} keeps {self.max_facts} facts, which is the most; one more was not kept")


class InstantBroker(Broker):
    """A broker that keeps events in this process, so that no call has to wait."""

    window: Window
    """The entries that are kept."""
    listener: Callable[[Sequence[Entry]], None] | None = None
    """Called with the new entries of each `append`, in order and each once, before `append` returns. It has to `enter`
    them, in this order, then or soon."""

    @abstractmethod
    def append_nowait(self, events: Sequence[Event]) -> list[str]:
        """Put events at the end of the order without waiting, and return their ids.

        Raises `EventTooLarge` and `DuplicateEvent`; then nothing was stored.
        """

    @abstractmethod
    def enter(self, entries: Sequence[Entry]) -> None:
        """Put the next entries that were stored into the window: for ten thousand that takes too long for one step."""


def new_epoch() -> str:
    """A random name for a new history: eight hexadecimal digits."""
    return secrets.token_hex(4)


def duplicate(id: str) -> DuplicateEvent:
    """The error that `append` raises with `on_duplicate="refuse"`."""
    return DuplicateEvent(
        f"an event with the id {id!r} is in the history already, for the same topics (on_duplicate=refuse)"
    )


def conflict(id: str) -> IdConflict:
    """The error that `append` raises for another event under an id and topics that one has already."""
    return IdConflict(
        f"an event with the id {id!r} is in the history already, for the same topics and with other data, type, retry, "
        "private, key or removed; it takes an id of its own"
    )


def assign(records: Sequence[Record], kept: Mapping[str, Kept], newest: int, *, refuse: bool) -> list[int]:
    """The position of each event of an append: where it is kept, or where it is to be stored behind `newest`.

    `kept` has, by their claims, the events that the history has already. Raises `DuplicateEvent` as `append` does.
    """
    if all(record.id is None for record in records):
        return list(range(newest + 1, newest + 1 + len(records)))
    claims = [record.claim for record in records]
    refused = [
        place
        for place, claim in enumerate(claims)
        if claim in kept and (refuse or records[place].content != kept[claim or ""].content)
    ]
    if refused:
        raise _refusal([records[place] for place in refused], kept, refused)
    here: dict[str, Kept] = dict(kept)
    positions = []
    for record, claim in zip(records, claims, strict=True):
        if claim is not None and claim in here:
            if claim not in kept and (refuse or record.content != here[claim].content):
                raise _refusal([record], here)
            positions.append(here[claim].position)
            continue
        newest += 1
        if claim is not None:
            here[claim] = Kept(newest, record.content)
        positions.append(newest)
    return positions


def first_of_each(records: Sequence[Record], *, refuse: bool) -> tuple[list[Record], bool]:
    """The records without those that repeat the claim of an earlier one, and whether none of them is refused for that
    one: else the history is only to be looked at, and `assign` raises."""
    if all(record.id is None for record in records):
        return list(records), True
    seen: dict[str, str] = {}
    once: list[Record] = []
    is_clear = True
    for record in records:
        claim = record.claim
        if claim is None or claim not in seen:
            once.append(record)
            if claim is not None:
                seen[claim] = record.content
        elif refuse or seen[claim] != record.content:
            is_clear = False
    return once, is_clear


def _refusal(refused: Sequence[Record], kept: Mapping[str, Kept], places: Sequence[int] = ()) -> DuplicateEvent:
    first = refused[0]
    is_same = first.content == kept[first.claim or ""].content
    error = duplicate(first.id or "") if is_same else conflict(first.id or "")
    error.places = places
    return error


async def first_wanted(page: Callable[[int], Awaitable[Sequence[Place]]], wants: Wants) -> int | None:
    """The position of the first event that `wants` takes, of those that `page` returns: the next few behind a position,
    in order. Other tasks get their turn between two pages."""
    after = 0
    while places := await page(after):
        for place in places:
            if wants(place.topics, place.private):
                return place.position
        after = places[-1].position
        await asyncio.sleep(0)
    return None
