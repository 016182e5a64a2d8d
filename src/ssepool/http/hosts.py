"""Hosts: the names under which a hub may be reached, and the middleware that turns requests for other names away.

A name that anybody owns may be made to point at any address, also at one that only its visitors reach, such as their
own machine (DNS rebinding). To a browser its pages are then of the hub's own site; `Host` still has that name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ssepool.core.fields import only
from ssepool.core.topics import shown
from ssepool.http.errors import error_reply
from ssepool.http.reply import JSONReply
from ssepool.runtime.handover import FORWARDED_HOST

MAX_KNOWN_HOSTS = 256
"""Values of `Host` whose judgement is remembered at most."""

MAX_HOST_BYTES = 300
"""Bytes of a `Host` at most: a name has 253 at the most (RFC 1035, 2.3.4), and its port six. What is longer is neither
looked at nor remembered."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:/?#@\s]+?)\.?)(?::[0-9]*)?")


class Hosts:
    """Which values of `Host` are allowed: addresses, the names of loopback, and `AccessConfig.allowed_hosts`.

    An address cannot be made to point elsewhere, and what ends in `.localhost` nobody owns (RFC 6761, 6.3).
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """`allowed` are the names beside addresses and loopback, or `*` for all. Unless there are some, nothing is
        checked before `enforce`."""
        self._names = frozenset(name.lower() for name in allowed)
        self._listed = self._names - {"*"}
        self.enforced = bool(self._names)
        """Whether requests for other names are turned away."""
        self._allows = lru_cache(MAX_KNOWN_HOSTS)(self._judge)

    def enforce(self, *names: str) -> None:
        """Turn requests for other names away from now on; `names` are allowed, too."""
        self._names |= {name.lower() for name in names}
        self._allows.cache_clear()
        self.enforced = True

    def lists(self, name: str) -> bool:
        """Whether this name, in lower case, is one of those of the configuration."""
        return name in self._listed

    def admits(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        forwarded: str | None = None,
        fields: Mapping[bytes, bytes] | None = None,
    ) -> bool:
        """Whether a request with these headers, their names in lower case, has one `Host`, which is allowed, and so is
        the one that was `forwarded` by a trusted proxy. `fields` are the headers by name, where they are at hand."""
        if not self.enforced:
            return True
        host = only(b"host", headers, dict(headers) if fields is None else fields)
        if host is None or len(host) > MAX_HOST_BYTES or not self._allows(host):
            return False
        return forwarded is None or (len(forwarded) <= MAX_HOST_BYTES and self._allows(forwarded.encode("latin-1")))

    def refusal(self, scope: Scope) -> JSONReply | None:
        """The answer to a request that may not pass: 400 (RFC 9112, 3.2) or 421 (RFC 9110, 15.5.20)."""
        forwarded = forwarded_host(scope)
        if self.admits(scope["headers"], forwarded):
            return None
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if not hosts and scope.get("http_version") != "1.1":
            return None  # HTTP/1.0 has no such field, and no browser speaks it
        if len(hosts) != 1:
            return error_reply(400, "invalid_host", f"{len(hosts)} header fields Host; it takes one")
        named = "X-Forwarded-Host", forwarded or ""
        if not self._allows(hosts[0].encode("latin-1")):
            named = "Host", hosts[0]
        message = (
            f"{named[0]} {shown(named[1])} is not one of this hub's names; "
            "allowed_hosts takes those that it has (--allowed-hosts, SSEPOOL_ALLOWED_HOSTS)"
        )
        return error_reply(421, "misdirected_request", message)

    def _judge(self, host: bytes) -> bool:
        if "*" in self._names:
            return True
        found = _HOST.fullmatch(host.decode("latin-1").lower())
        if found is None:
            return False
        name = found[1] or found[2]
        return name in self._names or name == "localhost" or name.endswith(".localhost") or _is_address(name)


def forwarded_host(scope: Mapping[str, Any]) -> str | None:
    """The `Host` that the client sent to a trusted proxy, where the server knows of one and it has said so."""
    return (scope.get("extensions") or {}).get(FORWARDED_HOST)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class KnownHost:
    """ASGI middleware: turns requests away whose `Host` is not allowed."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        """`app` gets the requests that `hosts` allow."""
        self.app = app
        """The application behind this middleware."""
        self.hosts = hosts
        """What is allowed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        refusal = self.hosts.refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)
