"""The contract between the hub and whatever keeps its events."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from ssepool.brokers.record import Record
from ssepool.config import HubConfig, KiB, without_password
from ssepool.core.event import Entry, Event
from ssepool.core.window import Window
from ssepool.errors import DuplicateEvent

MAX_MESSAGE_BYTES = 512 * KiB
"""The largest message of the side channel, in bytes."""


class Stored(NamedTuple):
    """Where an event is stored."""

    id: str
    """The id that its publisher chose, or else `<epoch>-<position>`."""
    position: int
    """Its place in the order; the first event has 1."""


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


class Broker(ABC):
    """Keeps events in one order, for all hubs and publishers that name the same URL.

    Every broker promises the same:

    - *Order.* Every event has a position: whole numbers from 1 on, without holes. All readers see the same order. The
      events of one `append` keep the order in which the caller gave them; the events of two calls stand in the order
      in which the calls returned.
    - *Durability.* When `append` has returned, the events are as safe as the broker makes anything: on disk (sqlite,
      postgres, JetStream with file storage), as its settings say (redis), or in this process only (memory).
    - *All or nothing.* If `append` raises `DuplicateEvent`, or a `BrokerError` that does not say otherwise, nothing
      was stored. If the connection broke before the answer, the events may or may not be stored. A publisher that
      chose their ids can safely publish them again.
    - *Ids.* An event has the id that its publisher chose, or else `<epoch>-<position>`. `find` knows both kinds, on
      every node, for as long as the event is kept. A chosen id that is kept already is not stored again: with
      `on_duplicate="ignore"` `append` returns where it is, with `"refuse"` it raises `DuplicateEvent`.
    - *Reading.* `tail` and `read` return the entries behind a position in order. They may return an entry twice; a
      subscriber still receives it once, because its position says what the subscriber has. Both read the history that
      `open` or `bounds` named last. If another history has begun, they raise `BrokerError` until `bounds` has named
      it, because a position of the old history means nothing in the new one. A record that cannot be read does not
      hold up those behind it: `unreadable` (`brokers.record`) makes an entry without a frame, which stands in its
      place.
    - *Bounds.* `history_events` and `history_bytes` hold soon after each `append`, `history_age` after `trim`.

    Every method may raise `BrokerError` when the broker fails or cannot be reached. None retries for longer than it
    takes to connect again, and all may be cancelled at any time. No message of an error shows a password.
    """

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

        Raises `DuplicateEvent` and `BrokerError`. The caller waits for one call to return before it makes the next
        (`GroupCommit` joins what is published meanwhile).
        """

    @abstractmethod
    def tail(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """All entries behind a position, and then new ones as any process appends them.

        It never ends by itself. Where the next entries are gone, it goes on behind them. Pages are so small (1,000
        entries, about 1 MiB) that a slow reader holds no more than one or two.
        """

    @abstractmethod
    async def read(self, after: int, *, max_entries: int) -> Sequence[Entry]:
        """At most `max_entries` of the entries kept behind a position, in order; empty only if there are none."""

    @abstractmethod
    async def find(self, id: str) -> int | None:
        """The position of the event with this id, chosen or made; None if it is not kept."""

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


class InstantBroker(Broker):
    """A broker that keeps events in this process, so that no call has to wait."""

    window: Window
    """The entries that are kept."""
    listener: Callable[[Sequence[Entry]], None] | None = None
    """Called with the new entries of each `append`, in order and each once, before `append` returns."""

    @abstractmethod
    def append_nowait(self, events: Sequence[Event]) -> list[str]:
        """Put events at the end of the order without waiting, and return their ids.

        Raises `EventTooLarge` and `DuplicateEvent`; then nothing was stored.
        """


def new_epoch() -> str:
    """A random name for a new history: eight hexadecimal digits."""
    return secrets.token_hex(4)


def duplicate(id: str) -> DuplicateEvent:
    """The error that `append` raises with `on_duplicate="refuse"`."""
    return DuplicateEvent(f"an event with the id {id!r} is in the history already (on_duplicate=refuse)")
