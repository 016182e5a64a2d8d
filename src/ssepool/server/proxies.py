"""TrustedProxies: whose X-Forwarded-For is believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class TrustedProxies:
    """Finds a request's client, as uvicorn's middleware does for the requests that come as far as that."""

    def __init__(self, proxies: Sequence[str]) -> None:
        """`proxies` as in `ServerConfig.trusted_proxies`."""
        hosts = "*" if "*" in proxies else list(proxies)
        self._hosts = ProxyHeadersMiddleware(_nothing, hosts).trusted_hosts

    def client(self, peer: tuple[str, int], headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, int]:
        """The address of the client behind `peer`, or of `peer` itself. Names of headers are in lower case."""
        if peer[0] not in self._hosts:
            return peer
        forwarded = b", ".join([value for name, value in headers if name == b"x-forwarded-for"])
        if not forwarded:
            return peer
        host, port = self._hosts.get_trusted_client_address(forwarded.decode("latin-1"))
        return (host, port) if host else peer


async def _nothing(*_: Any) -> None:
    """The application of a middleware that is only asked whom it trusts."""
