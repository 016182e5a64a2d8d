"""Limits by address, user and topic, and of patterns. All are checked in one step, then all are taken in the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from ssepool.config import PoolConfig

MAX_REMEMBERED = 4096
"""Addresses of which it is remembered what they count as."""

PREFIX_BITS = 64
"""Bits of an IPv6 address that count: who has one has all that begin alike (RFC 6177, RFC 7421)."""

Keys = tuple[tuple[str, str], ...]
"""What a request counts under: kinds (`ip`, `user`, `topic`, `pattern`) with names."""


class Limits:
    """How many connections and waiters each address, user and topic has; nothing is counted that has no limit. Of
    patterns it is bounded how many there are, however many have them.

    A waiter counts like a connection: whoever is granted a slot has been within the limits all along, so a limit
    can never hold up the head of the queue.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._bounds = {
            kind: bound
            for kind, bound in (
                ("ip", config.max_per_ip),
                ("user", config.max_per_user),
                ("topic", config.max_per_topic),
            )
            if bound is not None
        }
        self._taken: dict[tuple[str, str], int] = {}
        self._max_patterns = config.max_patterns
        self._patterns = 0

    def __bool__(self) -> bool:
        """Whether anything is limited by address, user or topic."""
        return bool(self._bounds)

    def keys(self, ip: str | None, user: str | None, topics: Iterable[str], patterns: Iterable[str] = ()) -> Keys:
        """What a request counts under, each once; empty if there are no limits. `patterns` are the forms of those that
        are bounded."""
        bounded = tuple(("pattern", form) for form in dict.fromkeys(patterns))
        if not self._bounds:
            return bounded
        found = [
            ("ip", _counted(ip) if ip and "ip" in self._bounds else ip),
            ("user", user),
            *(("topic", topic) for topic in dict.fromkeys(topics)),
        ]
        return (*((kind, name) for kind, name in found if name is not None and kind in self._bounds), *bounded)

    def exceeded(self, keys: Keys) -> str | None:
        """A sentence about the first limit that one more request would exceed, or None."""
        more = 0
        for key in keys:
            kind, name = key
            taken = self._taken.get(key, 0)
            if kind == "pattern":
                more += not taken
            elif taken >= self._bounds[kind]:
                return f"max_per_{kind}={self._bounds[kind]} reached by {kind} {name!r}"
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


@lru_cache(MAX_REMEMBERED)
def _counted(ip: str) -> str:
    """What an address counts as: one of IPv6 as its network."""
    if ":" not in ip:
        return ip
    try:
        address = IPv6Address(ip)
    except ValueError:
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    rest = 128 - PREFIX_BITS
    return str(IPv6Network((int(address) >> rest << rest, PREFIX_BITS)))
