"""Bans: clients that were kicked and are to stay away for a while."""

from __future__ import annotations

from ssepool.core.visit import Visit

KICK_SECONDS = 30.0
"""How long a kicked client is kept away by default."""


class Bans:
    """Recognises kicked clients by the fingerprints of their visits. Times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, fingerprint: str, until: float) -> None:
        """Keep the client with this fingerprint away until then."""
        self._until[fingerprint] = until

    def contains(self, visit: Visit, now: float) -> bool:
        """Whether this client is to stay away."""
        return bool(self._until) and self._until.get(visit.fingerprint, now) > now

    def expire(self, now: float) -> None:
        """Forget the bans that have run out."""
        if self._until:
            self._until = {fingerprint: until for fingerprint, until in self._until.items() if until > now}
