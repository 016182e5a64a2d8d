"""The contract between the hub and whatever keeps its events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssepool.config import HubConfig
from ssepool.core.event import Event
from ssepool.core.feed import Entry


class Found(NamedTuple):
    """Where a client that was last at some id goes on."""

    position: int
    """Replay starts after this position."""
    complete: bool
    """False if the id is not kept any more, so that events may be missing before what is replayed."""


class History(NamedTuple):
    events: int
    bytes: int


class Broker(ABC):
    """Keeps events in one order and hands every entry, in that order, to one listener.

    Positions are whole numbers that only grow. `append` returns when the entries are in the order and, for a durable
    broker, on disk; the listener gets them in that same order, each exactly once.
    """

    def __init__(self, config: HubConfig) -> None:
        self.config = config

    @abstractmethod
    async def open(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        """Connect; from now on `listener` is called with all that is appended, by whichever process."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> list[str]:
        """Put the events into the order, all or none, and return their ids. Raises `BrokerError`."""

    def append_nowait(self, events: Sequence[Event]) -> list[str]:
        """As `append`, for brokers that never wait. Raises `NotImplementedError` by default."""
        raise NotImplementedError(f"{type(self).__name__} cannot publish without waiting; use publish()")

    @abstractmethod
    def find(self, id: str) -> Found:
        """Where a client goes on that has all up to this id."""

    @abstractmethod
    def read(self, after: int, *, most: int) -> Sequence[Entry]:
        """At most `most` entries behind a position, in order; none means that there are none."""

    @property
    @abstractmethod
    def newest(self) -> int:
        """The position of the newest entry, 0 before the first."""

    @property
    @abstractmethod
    def oldest(self) -> int:
        """The position before the oldest entry that is kept: replay can start behind it, not earlier."""

    @abstractmethod
    def expire(self) -> None:
        """Drop what is older than `history_age`. Called by the reaper."""

    @abstractmethod
    def history(self) -> History:
        """How much is kept."""
