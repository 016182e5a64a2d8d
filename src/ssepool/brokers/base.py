"""The contract between the hub and whatever keeps its events."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from ssepool.brokers.record import Record
from ssepool.config import HubConfig, KiB
from ssepool.core.event import Entry, Event
from ssepool.core.window import Window
from ssepool.errors import DuplicateEvent

MOST_MESSAGE = 512 * KiB
"""Bytes of a message of the side channel at most."""


class Stored(NamedTuple):
    """Where an event is now."""

    id: str
    position: int


class Bounds(NamedTuple):
    """What a broker has at one moment."""

    epoch: str
    """Names this history. It changes when the broker has lost its data and begins anew."""
    oldest: int
    """The position before the oldest entry that is kept."""
    newest: int
    """The position of the newest entry, kept or not; 0 before the first."""
    bytes: int
    """Of all entries kept, about."""


class Broker(ABC):
    """Keeps events in one order, for all hubs and publishers that name the same URL.

    What is promised, by each broker alike:

    - *Order.* Every event has a position: whole numbers from 1 on, without holes. All readers see the same order. The
      events of one `append` stand in it as they were given; those of two, in the order in which they returned.
    - *Durability.* When `append` has returned, the events are as safe as the broker makes anything: on disk (sqlite,
      postgres, JetStream with file storage), as its settings say (redis), or in this process only (memory).
    - *All or nothing.* If `append` raises `DuplicateEvent`, or a `BrokerError` that does not say otherwise, nothing
      was stored. If the connection broke before the answer, the events may be stored or not: publishing them again
      with the same ids of the publisher's own is safe.
    - *Ids.* An event is known by the id that its publisher chose, or else by `<epoch>-<position>`. `find` knows both,
      on every node, for as long as the event is kept. A chosen id that is kept already is not stored again: with
      `on_duplicate="ignore"` `append` returns where it is, with `"refuse"` it raises `DuplicateEvent`.
    - *Reading.* `tail` and `read` give every entry behind a position in order: at least once inside, exactly once to
      a subscriber, because positions tell what it has. Both are of the history that `open` or `bounds` named last:
      where another has begun they raise `BrokerError` until `bounds` has told so, since a position means nothing in it.
    - *Bounds.* `history_events` and `history_bytes` hold soon after each `append`, `history_age` after `trim`.

    Every method may raise `BrokerError` when the broker cannot be reached or fails; none retries for longer than a
    connection takes to be made again, and all may be cancelled at any time. Messages never show a password.
    """

    def __init__(self, config: HubConfig) -> None:
        """Nothing is connected yet. Raises `ConfigError` for a URL or a library that will not do."""
        self.config = config
        self.url = without_password(config.broker)

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make what is not there yet: tables, streams. Raises `ConfigError` for credentials that are
        refused and servers that are too old, `BrokerError` if the server is not there."""

    @abstractmethod
    async def close(self) -> None:
        """Give everything back. May be called at any time, also twice."""

    @abstractmethod
    async def append(self, records: Sequence[Record]) -> list[Stored]:
        """Put events at the end of the order; returns one `Stored` for each. Raises `DuplicateEvent` and
        `BrokerError`. Never called while another call is under way: publishes come joined (see `GroupCommit`)."""

    @abstractmethod
    def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """All entries behind a position, and then what is appended, by whomever, as it comes. It never ends by itself;
        where entries are gone that should have come, it goes on behind them. Pages are small enough (1,000 entries,
        about 1 MiB) that a slow reader holds no more than one or two."""

    @abstractmethod
    async def read(self, after: int, *, most: int) -> Sequence[Entry]:
        """At most `most` of the entries kept behind a position, in order; none means that there are none."""

    @abstractmethod
    async def find(self, id: str) -> int | None:
        """The position of an event that is kept, by its id, chosen or made; None if it is not kept."""

    @abstractmethod
    async def bounds(self) -> Bounds:
        """What is there now. Also the sign of life: hubs ask about once a second."""

    @abstractmethod
    async def trim(self) -> None:
        """Drop what is older than `history_age` or beyond the other bounds. Called every few seconds by each hub."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Give a message of at most `MOST_MESSAGE` bytes to all hubs that listen now. Delivered at most once, kept
        nowhere: for what the hubs tell each other, never for events."""

    @abstractmethod
    def messages(self) -> AsyncIterator[bytes]:
        """What is sent from now on, by whomever, also by this hub itself. Never ends by itself."""


class InstantBroker(Broker):
    """A broker that keeps events in this process, where nothing has to wait."""

    window: Window
    """All that is kept."""
    listener: Callable[[Sequence[Entry]], None] | None = None
    """Called with all that is appended, in order, each entry once, before `append` returns."""

    @abstractmethod
    def append_nowait(self, events: Sequence[Event]) -> list[str]:
        """Put events at the end of the order, at once; returns their ids. Raises `EventTooLarge`, `DuplicateEvent`."""


def new_epoch() -> str:
    """A name for a history that begins."""
    return secrets.token_hex(4)


def duplicate(id: str) -> DuplicateEvent:
    """What `append` raises under `on_duplicate="refuse"`."""
    return DuplicateEvent(f"an event with the id {id!r} is in the history already (on_duplicate=refuse)")


def without_password(url: str) -> str:
    """A URL as it may be shown: without what may be a password, also where that was written without escapes."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    if ":" in credentials:
        credentials = credentials.partition(":")[0] + ":***"
    query = host.partition("?")
    shown = re.sub(r"(?i)(password|passwd|pass|secret|token)=[^&]*", r"\1=***", query[2])
    return f"{scheme}{separator}{credentials}{at}{query[0]}{query[1]}{shown}"
