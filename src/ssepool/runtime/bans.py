"""Bans: clients that were kicked and are to stay away for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssepool.runtime.visit import Visit


class Bans:
    """Recognises kicked clients by their likeness: address, user, subscription and data. Times in seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, likeness: str, until: float) -> None:
        self._until[likeness] = until

    def cover(self, visit: Visit, now: float) -> bool:
        """Whether this client is to stay away."""
        return bool(self._until) and self._until.get(visit.likeness, now) > now

    def expire(self, now: float) -> None:
        if self._until:
            self._until = {likeness: until for likeness, until in self._until.items() if until > now}
