"""Bans: clients that were kicked and are to stay away for a while."""

from __future__ import annotations

from collections.abc import Iterable

from ssepool.core.visit import Visit

KICK_SECONDS = 30.0
"""How long a kicked client is kept away by default."""

MAX_BANS = 10_000
"""Clients that are kept away at the same time at most; beyond that the first of them may come back."""

MAX_BAN_SECONDS = 1e9
"""How long a client is kept away at most: some thirty years."""


class Bans:
    """Recognises kicked clients by the fingerprints of their visits. Times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, fingerprint: str, until: float) -> None:
        """Keep the client with this fingerprint away until then."""
        self._until.pop(fingerprint, None)
        self._until[fingerprint] = until
        if len(self._until) > MAX_BANS:
            del self._until[next(iter(self._until))]

    def left(self, now: float) -> list[tuple[str, float]]:
        """Fingerprints, and for how many seconds more each is kept away, in the order in which they were added."""
        return [(fingerprint, round(until - now, 1)) for fingerprint, until in self._until.items() if until > now]

    def learn(self, left: Iterable[tuple[str, float]], now: float) -> None:
        """Add what another node has `left`. A ban that is known already is never made shorter."""
        for fingerprint, seconds in left:
            until = now + min(seconds, MAX_BAN_SECONDS)
            if until > self._until.get(fingerprint, now):
                self.add(fingerprint, until)

    def contains(self, visit: Visit, now: float) -> bool:
        """Whether this client is to stay away."""
        return bool(self._until) and self.seconds_left(visit, now) > 0

    def seconds_left(self, visit: Visit, now: float) -> float:
        """For how many seconds more this client is to stay away; 0 if it is not."""
        return max(0.0, self._until.get(visit.fingerprint, now) - now) if self._until else 0.0

    def expire(self, now: float) -> None:
        """Forget the bans that have run out."""
        if self._until:
            self._until = {fingerprint: until for fingerprint, until in self._until.items() if until > now}
