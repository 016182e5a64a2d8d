"""TrustedProxies: whose word is taken for the address of a client."""

from __future__ import annotations

from typing import Any

import pytest

from ssepool.runtime.handover import FORWARDED_HOST
from ssepool.runtime.proxies import TrustedProxies

PEER = ("127.0.0.1", 5)

Address = tuple[str, int] | None

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
    "all are trusted": (("*",), ("9.9.9.9", 5), ["1.2.3.4, 5.6.7.8"], ("5.6.7.8", 0)),
    "all among others": (("10.0.0.1", "*"), ("9.9.9.9", 5), ["1.2.3.4, 10.0.0.1"], ("10.0.0.1", 0)),
    "all are trusted, in two headers": (("*",), ("9.9.9.9", 5), ["1.2.3.4", "5.6.7.8"], ("5.6.7.8", 0)),
    "a client that is trusted itself": (("10.0.0.0/8", "127.0.0.1"), PEER, ["10.2.0.1, 10.0.0.1"], ("10.2.0.1", 0)),
    "no address": (("127.0.0.1",), PEER, ["unknown"], PEER),
    "no address, and all are trusted": (("*",), PEER, ["1.2.3.4, _hidden"], PEER),
    "no address behind a proxy": (("127.0.0.1", "10.0.0.1"), PEER, ["1.2.3.4, none, 10.0.0.1"], PEER),
    "no address, but it does not count": (("127.0.0.1",), PEER, ["none, 1.2.3.4"], ("1.2.3.4", 0)),
    "no port": (("127.0.0.1",), PEER, ["1.2.3.4:http"], PEER),
    "no end of an address": (("127.0.0.1",), PEER, ["[2001:db8::1]99"], PEER),
    "nothing between commas": (("127.0.0.1",), PEER, [" , 1.2.3.4 ,, "], ("1.2.3.4", 0)),
    "bytes of any kind": (("127.0.0.1",), PEER, ["\xff\xfe"], PEER),
    "a mapped peer": (("127.0.0.1",), ("::ffff:127.0.0.1", 5), ["1.2.3.4"], ("1.2.3.4", 0)),
    "a mapped proxy": (("::ffff:127.0.0.1",), PEER, ["1.2.3.4"], ("1.2.3.4", 0)),
    "a mapped network": (("::ffff:127.0.0.0/104",), PEER, ["1.2.3.4"], ("1.2.3.4", 0)),
    "a mapped peer that is not trusted": (("10.0.0.1",), ("::ffff:127.0.0.1", 5), ["1.2.3.4"], ("::ffff:127.0.0.1", 5)),
    "a mapped proxy behind": (("127.0.0.1", "10.0.0.1"), PEER, ["1.2.3.4, ::ffff:10.0.0.1"], ("1.2.3.4", 0)),
    "a mapped client": (("127.0.0.1",), PEER, ["::ffff:1.2.3.4"], ("1.2.3.4", 0)),
    "a zone": (("127.0.0.1",), PEER, ["fe80::1%eth0"], ("fe80::1%eth0", 0)),
    "a zone of any length": (("127.0.0.1",), PEER, ["fe80::1%" + "x" * 60], PEER),
    "a peer without an address": (("127.0.0.1",), ("testclient", 5), ["1.2.3.4"], ("testclient", 5)),
    "the peer of a Unix socket": ((), None, ["6.6.6.6, 1.2.3.4"], ("1.2.3.4", 0)),
    "of a Unix socket, behind two proxies": (("10.0.0.1",), None, ["6.6.6.6, 1.2.3.4, 10.0.0.1"], ("1.2.3.4", 0)),
    "of a Unix socket that says nothing": ((), None, [], None),
    "of a Unix socket that says nonsense": ((), None, ["me"], None),
}
"""The trusted proxies, the peer, its headers, and whose request it is."""


@pytest.mark.parametrize(("proxies", "peer", "forwarded", "client"), CLIENTS.values(), ids=CLIENTS)
async def test_the_address_of_a_client_is_the_same_both_ways(
    proxies: tuple[str, ...], peer: Address, forwarded: list[str], client: Address
) -> None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in forwarded)]
    trusted = TrustedProxies(proxies)
    assert trusted.client(peer, headers) == client
    assert (await asked(trusted, client=peer, headers=headers))["client"] == client


async def asked(trusted: TrustedProxies, **scope: Any) -> Any:
    """The scope of a request as the application gets it."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await trusted.forwarded(app)({"type": "http", **scope}, None, None)
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        ("127.0.0.1", b"https", "https"),
        ("127.0.0.1", b" HTTP ", "http"),
        ("127.0.0.1", b"gopher", "other"),
        ("10.0.0.1", b"https", "other"),
    ],
)
async def test_a_trusted_proxy_tells_the_scheme_too(peer: str, said: bytes, scheme: str) -> None:
    headers = [(b"x-forwarded-proto", said)]
    scope = await asked(TrustedProxies(("127.0.0.1",)), client=(peer, 5), headers=headers, scheme="other")
    assert (scope["scheme"], scope["client"]) == (scheme, (peer, 5))


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"client": None, "headers": []}])
async def test_what_has_no_client_and_says_none_goes_through(scope: dict[str, Any]) -> None:
    assert await asked(TrustedProxies(("*",)), **scope) == {"type": "http", **scope}


HOSTS: dict[str, tuple[Address, list[bytes], str | None]] = {
    "of a proxy": (PEER, [b"hub.example:8443"], "hub.example:8443"),
    "of a Unix socket": (None, [b"hub.example"], "hub.example"),
    "of a stranger": (("9.9.9.9", 5), [b"hub.example"], None),
    "of a proxy that says nothing": (PEER, [], None),
    "at length": (PEER, [b" , "], None),
    "of which a client may have written the first": (PEER, [b"evil.example, hub.example"], "hub.example"),
    "in two headers": (PEER, [b"evil.example", b"hub.example"], "hub.example"),
}


@pytest.mark.parametrize(("peer", "said", "host"), HOSTS.values(), ids=HOSTS)
async def test_a_trusted_proxy_tells_the_host_that_the_client_asked_for(
    peer: Address, said: list[bytes], host: str | None
) -> None:
    headers = [(b"host", b"inner"), *((b"x-forwarded-host", value) for value in said)]
    proxies = TrustedProxies(("127.0.0.1",))
    assert proxies.host(peer, headers) == host
    scope = await asked(proxies, client=peer, headers=headers)
    assert scope.get("extensions", {}).get(FORWARDED_HOST) == host


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        (("127.0.0.1", 5), None),
        (None, None),
        (("9.9.9.9", 5), "9.9.9.9"),
        (("::ffff:9.9.9.9", 5), "9.9.9.9"),
        (("2001:db8::1", 5), "2001:db8::/64"),
    ],
)
def test_the_connections_of_a_proxy_are_of_many(peer: Address, source: str | None) -> None:
    assert TrustedProxies(("127.0.0.1",)).source(peer) == source


@pytest.mark.parametrize("name", [b"x-real-ip", b"forwarded", b"x-forwarded-host"])
def test_no_other_header_is_looked_at(name: bytes) -> None:
    assert TrustedProxies(("*",)).client(PEER, [(name, b"1.2.3.4")]) == PEER
