"""Remembered: what is worth keeping for a while, of bounded number and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Values by name, each until its time has come. What is too much leaves in the order in which it came. Pure: times
    are in seconds of one clock."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """At most `most` values are kept, of `most_bytes` bytes together."""
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[str, tuple[T, float, int]] = {}
        self.size = 0
        """Bytes of all that is kept, by what was said of each."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, name: str, value: T, *, until: float, size: int, now: float) -> None:
        """Keep a value of so many bytes until then, in the place of one of this name."""
        self._drop(name)
        self._kept[name] = value, until, size
        self.size += size
        while self._kept:
            oldest = next(iter(self._kept))
            over = len(self._kept) > self._most or self.size > self._most_bytes
            if not over and self._kept[oldest][1] > now:
                return
            self._drop(oldest)

    def get(self, name: str, now: float) -> T | None:
        """The value of this name; None if it is not there any more."""
        found = self._kept.get(name)
        if found is None or found[1] <= now:
            return None
        return found[0]

    def take(self, name: str, now: float) -> T | None:
        """As `get`, and it is gone then."""
        value = self.get(name, now)
        self._drop(name)
        return value

    def forget(self, condition: Callable[[T], bool]) -> None:
        """Forget the values for which this holds."""
        for name in [name for name, (value, _, _) in self._kept.items() if condition(value)]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        if (found := self._kept.pop(name, None)) is not None:
            self.size -= found[2]
