"""TrustedProxies: whose word is taken for the address of a client."""

from __future__ import annotations

import pytest

from ssepool.server.proxies import TrustedProxies

PEER = ("127.0.0.1", 5)

Address = tuple[str, int]

CLIENTS: dict[str, tuple[tuple[str, ...], Address, list[str], Address]] = {
    "nobody is trusted": ((), PEER, ["1.2.3.4"], PEER),
    "the peer is not trusted": (("10.0.0.1",), PEER, ["1.2.3.4"], PEER),
    "the peer says nothing": (("127.0.0.1",), PEER, [], PEER),
    "the peer says nothing, at length": (("127.0.0.1",), PEER, [""], PEER),
    "the peer says it": (("127.0.0.1",), PEER, ["1.2.3.4"], ("1.2.3.4", 0)),
    "with a port": (("127.0.0.1",), PEER, ["1.2.3.4:99"], ("1.2.3.4", 99)),
    "of version 6": (("::1",), ("::1", 5), ["[2001:db8::1]:99"], ("2001:db8::1", 99)),
    "only what the last proxy saw": (("127.0.0.1",), PEER, ["6.6.6.6, 1.2.3.4"], ("1.2.3.4", 0)),
    "behind two proxies": (("127.0.0.1", "10.0.0.1"), PEER, ["6.6.6.6, 1.2.3.4, 10.0.0.1"], ("1.2.3.4", 0)),
    "in two headers": (("127.0.0.1", "10.0.0.1"), PEER, ["1.2.3.4", "10.0.0.1"], ("1.2.3.4", 0)),
    "a network is trusted": (("127.0.0.0/8",), PEER, ["1.2.3.4"], ("1.2.3.4", 0)),
    "another network is": (("10.0.0.0/8",), PEER, ["1.2.3.4"], PEER),
    "all are trusted": (("*",), ("9.9.9.9", 5), ["1.2.3.4, 5.6.7.8"], ("1.2.3.4", 0)),
    "all among others": (("10.0.0.1", "*"), ("9.9.9.9", 5), ["1.2.3.4"], ("1.2.3.4", 0)),
}


@pytest.mark.parametrize(("proxies", "peer", "forwarded", "client"), CLIENTS.values(), ids=CLIENTS)
def test_the_address_of_a_client(
    proxies: tuple[str, ...], peer: Address, forwarded: list[str], client: Address
) -> None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode()) for value in forwarded)]
    assert TrustedProxies(proxies).client(peer, headers) == client


def test_bytes_of_any_kind_do_no_harm() -> None:
    assert TrustedProxies(("127.0.0.1",)).client(PEER, [(b"x-forwarded-for", b"\xff\xfe")]) == ("\xff\xfe", 0)


@pytest.mark.parametrize("name", [b"x-real-ip", b"forwarded", b"x-forwarded-host"])
def test_no_other_header_is_looked_at(name: bytes) -> None:
    assert TrustedProxies(("*",)).client(PEER, [(name, b"1.2.3.4")]) == PEER
