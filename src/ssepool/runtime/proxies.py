"""TrustedProxies: whose X-Forwarded-For and X-Forwarded-Host are believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from ssepool.core.addresses import counted
from ssepool.core.fields import fields_of
from ssepool.runtime.handover import FORWARDED_HOST

MAX_ENTRY_CHARACTERS = 64
"""Characters of an entry of `X-Forwarded-For` at most: an address of IPv6 may end in a zone of any length (RFC 4007,
11.2), and stays as long as its connection."""

MAX_REMEMBERED = 4096
"""Peers of which it is remembered whether they are trusted."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
"""An address of either version."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
"""A network of either version."""

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as sockets of IPv6 write them."""

Peer = tuple[str, int]
"""Host and port of whoever has connected."""

APPLIED = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})
"""The header fields of a proxy that say something here."""

Headers = Iterable[tuple[bytes, bytes]]
"""Names, in lower case, and values."""

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""


class TrustedProxies:
    """Finds the client of a request: the right-most entry of X-Forwarded-For that is not a trusted proxy.

    Each proxy appends whom it has seen, so what stands left of that entry is no proxy's word: the client may have
    written it.
    """

    def __init__(self, proxies: Sequence[str]) -> None:
        """`proxies` as in `ServerConfig.trusted_proxies`. With `*` every peer is trusted, and none behind it: the
        right-most entry counts."""
        self._everybody = "*" in proxies
        self._networks = [_unmapped_network(ipaddress.ip_network(proxy)) for proxy in proxies if proxy != "*"]
        self._trusts = lru_cache(MAX_REMEMBERED)(self._trusts_peer)

    def trusts(self, peer: Peer | None) -> bool:
        """Whether a peer is a proxy whose word counts. One without an address is: whoever connects to a Unix socket was
        let in by its permissions, and stands between the hub and its clients."""
        return peer is None or self._trusts(peer[0])

    def source(self, peer: Peer | None) -> str | None:
        """What the connections of a peer count as; None for those of a proxy, which has the connections of many."""
        return None if peer is None or self._trusts(peer[0]) else counted(peer[0])

    def client(self, peer: Peer | None, headers: Headers) -> Peer | None:
        """The address of the client behind `peer`, or of `peer` itself. Names of headers are in lower case."""
        if not self.trusts(peer):
            return peer
        farthest = peer
        for entry in reversed(_entries(headers, b"x-forwarded-for")):
            parsed = _parse(entry)
            if parsed is None:
                return peer
            address, port = parsed
            farthest = (str(address), port)
            if self._everybody or not self._has(address):
                break
        return farthest

    def host(self, peer: Peer | None, headers: Headers) -> str | None:
        """The `Host` that the client sent to the proxy `peer`: the right-most entry of X-Forwarded-Host, which this
        proxy has written. None if it says nothing, or is no proxy."""
        entries = _entries(headers, b"x-forwarded-host") if self.trusts(peer) else []
        return entries[-1] if entries else None

    def apply(self, scope: Any) -> None:
        """Put the client's address and what it asked for into the ASGI scope of a request, which has the peer's."""
        peer, headers = scope.get("client"), scope["headers"]
        if fields_of(scope).keys().isdisjoint(APPLIED) or not self.trusts(peer):
            return  # nearly all end here, and each microsecond counts when all come at once
        scope["client"] = self.client(peer, headers)
        host = self.host(peer, headers)
        if host is not None:
            scope.setdefault("extensions", {})[FORWARDED_HOST] = host
        for name, value in headers:
            if name == b"x-forwarded-proto" and (scheme := value.strip().lower()) in (b"http", b"https"):
                scope["scheme"] = scheme.decode()

    def forwarded(self, app: App) -> App:
        """An application whose requests have the client's address, and the scheme and host that the client used."""

        async def forwarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                self.apply(scope)
            await app(scope, receive, send)

        return forwarded

    def _trusts_peer(self, host: str) -> bool:
        if self._everybody:
            return True
        try:
            return self._has(_unmapped(ipaddress.ip_address(host)))
        except ValueError:
            return False

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _entries(headers: Headers, wanted: bytes) -> list[str]:
    """The entries of a header that is a list, also where it comes several times (RFC 9110, 5.3)."""
    values = [value for name, value in headers if name == wanted]
    if not values:
        return []  # as nearly always, where no proxy is
    return [entry for part in b",".join(values).decode("latin-1").split(",") if (entry := part.strip())]


def _parse(entry: str) -> tuple[Address, int] | None:
    """An address and its port, 0 if it has none; None for what is no address."""
    if len(entry) > MAX_ENTRY_CHARACTERS:
        return None
    host, port = entry, ""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        if port and not port.startswith(":"):
            return None
        port = port[1:]
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    try:
        return _unmapped(ipaddress.ip_address(host)), int(port or 0)
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    """An IPv4 address also where it is written as one of IPv6: `::ffff:127.0.0.1`."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _unmapped_network(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
