"""Limits by address, user and topic, and of patterns. All are checked in one step, then all are taken in the same."""

from __future__ import annotations

from collections.abc import Iterable

from ssepool.config import PoolConfig
from ssepool.core.addresses import counted

Keys = tuple[tuple[str, str], ...]
"""What a request counts under: kinds (`ip`, `user`, `topic`, `pattern`, `waiting`) with names."""

SETTINGS = {
    "ip": "max_per_ip",
    "user": "max_per_user",
    "topic": "max_per_topic",
    "waiting": "max_waiting_per_ip",
}
"""The setting that bounds each kind."""


class Limits:
    """How many connections and waiters each address, user and topic has; nothing is counted that has no limit. Of
    patterns it is bounded how many there are, however many have them.

    A waiter counts like a connection: whoever is granted a slot has been within the limits all along, so a limit
    can never hold up the head of the queue.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._bounds = {kind: bound for kind, name in SETTINGS.items() if (bound := getattr(config, name))}
        self.any = bool(self._bounds)
        """Whether anything is limited by address, user or topic."""
        self._taken: dict[tuple[str, str], int] = {}
        self._max_patterns = config.max_patterns
        self._patterns = 0

    def keys(self, ip: str | None, user: str | None, topics: Iterable[str], patterns: Iterable[str] = ()) -> Keys:
        """What a request counts under, each once; empty if there are no limits. `patterns` are the forms of those that
        are bounded."""
        bounded = tuple([("pattern", form) for form in dict.fromkeys(patterns)]) if patterns else ()
        if not self._bounds:
            return bounded
        found = [
            ("ip", counted(ip) if ip and "ip" in self._bounds else ip),
            ("user", user),
            *(("topic", topic) for topic in dict.fromkeys(topics)),
        ]
        return (*((kind, name) for kind, name in found if name is not None and kind in self._bounds), *bounded)

    def waiting_keys(self, ip: str | None) -> Keys:
        """What a request counts under beside its `keys` for as long as it waits."""
        return (("waiting", counted(ip)),) if ip and "waiting" in self._bounds else ()

    def exceeded(self, keys: Keys) -> str | None:
        """A sentence about the first limit that one more request would exceed, or None."""
        more = 0
        for key in keys:
            kind, name = key
            taken = self._taken.get(key, 0)
            if kind == "pattern":
                more += not taken
            elif taken >= self._bounds[kind]:
                who = "ip" if kind == "waiting" else kind
                return f"{SETTINGS[kind]}={self._bounds[kind]} reached by {who} {name!r}"
        if more and self._patterns + more > self._max_patterns:
            return f"max_patterns={self._max_patterns} does not allow {more} more than {self._patterns}"
        return None

    def take(self, keys: Keys) -> None:
        """Count one more under these keys."""
        for key in keys:
            taken = self._taken.get(key, 0)
            self._taken[key] = taken + 1
            if not taken and key[0] == "pattern":
                self._patterns += 1

    def give(self, keys: Keys) -> None:
        """Count one less under these keys."""
        for key in keys:
            left = self._taken[key] - 1
            if left:
                self._taken[key] = left
            else:
                del self._taken[key]
                if key[0] == "pattern":
                    self._patterns -= 1

    def taken(self) -> dict[tuple[str, str], int]:
        """A copy of all counts, for tests and diagnosis."""
        return dict(self._taken)
