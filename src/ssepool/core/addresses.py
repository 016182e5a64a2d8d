"""Addresses: which of them count as one source."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

MAX_REMEMBERED = 4096
"""Addresses of which it is remembered what they count as."""

PREFIX_BITS = 64
"""Bits of an IPv6 address that count: who has one has all that begin alike (RFC 6177, RFC 7421)."""


@lru_cache(MAX_REMEMBERED)
def counted(ip: str) -> str:
    """What an address counts as: one of IPv6 as its network, what is no address as itself."""
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
