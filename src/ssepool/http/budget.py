"""Budget: what the request bodies under way in a hub may hold of its memory together."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ssepool.config import MiB

MAX_BODIES_BYTES = 64 * MiB
"""Bytes of all request bodies under way at most, and of the events in them, unless one alone may have more
(`max_body`)."""


class Budget:
    """Counts the bytes of all request bodies under way in one hub.

    `max_body` bounds one body, and a client may have as many under way as it opens connections.
    """

    def __init__(self, max_bytes: int = MAX_BODIES_BYTES) -> None:
        """`max_bytes` are the bytes of all bodies together at most."""
        self.max_bytes = max_bytes
        """Bytes of all bodies together at most."""
        self.taken = 0
        """Bytes that are held now."""

    def share(self) -> Share:
        """The part of one body, for a `with` statement. It has no bytes yet."""
        return Share(self)


class Share:
    """What one body has of the budget. It gives that back when its `with` statement ends, however that comes."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget) -> None:
        """`budget` is the hub's."""
        self._budget = budget
        self._size = 0

    def take(self, size: int) -> bool:
        """Take so many bytes more. False if the budget has not as many left: then nothing has been taken."""
        if self._budget.taken + size > self._budget.max_bytes:
            return False
        self._budget.taken += size
        self._size += size
        return True

    def can_have(self, size: int) -> bool:
        """Whether so many bytes more would fit if no other body were under way."""
        return self._size + size <= self._budget.max_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._budget.taken -= self._size
        self._size = 0
