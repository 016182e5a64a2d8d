"""Budget: what the request bodies under way in a hub may hold of its memory together."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ssepool.config import MiB
from ssepool.core.addresses import counted

MAX_BODIES_BYTES = 64 * MiB
"""Bytes of all request bodies under way at most, and of the events in them, unless one alone may have more
(`max_body`)."""
SOURCES = 4
"""An address has one part of so many at most, but always room for one body: a few slow clients of one address must not
keep the bodies of all others out."""


class Budget:
    """Counts the bytes of all request bodies under way in one hub, and those of each address.

    `max_body` bounds one body, and a client may have as many under way as it opens connections.
    """

    def __init__(self, max_bytes: int = MAX_BODIES_BYTES, max_body: int = 0) -> None:
        """`max_bytes` are the bytes of all bodies together at most, unless those of one (`max_body`), and as much again
        for the events in it, are more."""
        self.max_bytes = max(max_bytes, 2 * max_body)
        """Bytes of all bodies together at most."""
        self.max_share = max(self.max_bytes // SOURCES, 2 * max_body)
        """Bytes of all bodies of one address at most."""
        self.taken = 0
        """Bytes that are held now."""
        self._of: dict[str, int] = {}

    def share(self, ip: str | None = None) -> Share:
        """The part of one body, for a `with` statement. It has no bytes yet. Without an address it only counts for
        all."""
        return Share(self, counted(ip) if ip else None)

    def take(self, source: str | None, size: int) -> bool:
        """Take so many bytes more. False if there are not as many left, for all or for this source: then nothing has
        been taken."""
        if self.taken + size > self.max_bytes:
            return False
        if source is not None:
            held = self._of.get(source, 0) + size
            if held > self.max_share:
                return False
            self._of[source] = held
        self.taken += size
        return True

    def give(self, source: str | None, size: int) -> None:
        """Give so many bytes back."""
        self.taken -= size
        if source is not None and source in self._of:
            self._of[source] -= size
            if not self._of[source]:
                del self._of[source]


class Share:
    """What one body has of the budget. It gives that back when its `with` statement ends, however that comes."""

    __slots__ = ("_budget", "_size", "_source")

    def __init__(self, budget: Budget, source: str | None) -> None:
        """`budget` is the hub's, `source` what the client's address counts as."""
        self._budget = budget
        self._source = source
        self._size = 0

    def take(self, size: int) -> bool:
        """Take so many bytes more. False if there are not as many left: then nothing has been taken."""
        if not self._budget.take(self._source, size):
            return False
        self._size += size
        return True

    def can_have(self, size: int) -> bool:
        """Whether so many bytes more would fit if no other body were under way."""
        budget = self._budget
        return self._size + size <= (budget.max_bytes if self._source is None else budget.max_share)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._budget.give(self._source, self._size)
        self._size = 0
