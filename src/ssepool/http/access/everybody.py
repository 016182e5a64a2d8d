"""Everybody: all rights for whoever reaches the hub, where the way to it is guarded otherwise."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from ssepool.core.grant import ANYBODY, Grant
from ssepool.errors import Forbidden
from ssepool.http.access.asking import Asking

PROXY_FIELDS = frozenset({b"forwarded", b"via"})
"""Header fields that a request gets on its way through a proxy, beside those that begin with `X-Forwarded-`."""


class Everybody:
    """A source: grants everything, to each request that reaches it."""

    asks_where = False
    """The server in front has seen to it where requests come from: it listens on loopback alone."""

    def at_once(self, asking: Asking) -> Grant:
        """See `Source`."""
        return ANYBODY

    async def in_time(self, asking: Asking) -> Grant:
        """See `Source`."""
        return ANYBODY


class Developer(Everybody):
    """As `Everybody`, for programs of this machine alone: with a proxy on it the whole world comes from loopback, so
    what came through one is turned away."""

    def at_once(self, asking: Asking) -> Grant:
        """See `Source`. Raises `Forbidden`."""
        scope = asking.scope
        client = scope.get("client")
        if client and not _is_loopback(client[0]):
            raise Forbidden(f"a hub that is open for development answers to this machine alone, not to {client[0]}")
        # In one string, because to look at each name takes a twentieth of the time in which a client is let in. No name
        # has a line feed in it.
        if not asking.fields.keys().isdisjoint(PROXY_FIELDS) or b"\nx-forwarded-" in b"\n".join((b"", *asking.fields)):
            raise Forbidden("a hub that is open for development answers to nobody behind a proxy")
        return ANYBODY


@lru_cache
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost", "testclient")  # a Unix socket's peer; test clients of frameworks
