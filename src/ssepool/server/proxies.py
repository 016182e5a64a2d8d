"""TrustedProxies: whose X-Forwarded-For is believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

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

    def client(self, peer: tuple[str, int], headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, int]:
        """The address of the client behind `peer`, or of `peer` itself. Names of headers are in lower case."""
        if not self._trusts(peer[0]):
            return peer
        forwarded = b",".join([value for name, value in headers if name == b"x-forwarded-for"])
        entries = [entry for part in forwarded.decode("latin-1").split(",") if (entry := part.strip())]
        farthest = peer
        for entry in reversed(entries):
            parsed = _parse(entry)
            if parsed is None:
                return peer
            address, port = parsed
            farthest = (str(address), port)
            if self._everybody or not self._has(address):
                break
        return farthest

    def forwarded(self, app: App) -> App:
        """An application whose requests have the client's address, and the scheme that the client used."""

        async def forwarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan" and (peer := scope.get("client")) and self._trusts(peer[0]):
                scope["client"] = self.client(peer, scope["headers"])
                for name, value in scope["headers"]:
                    if name == b"x-forwarded-proto" and (scheme := value.strip().lower()) in (b"http", b"https"):
                        scope["scheme"] = scheme.decode()
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
