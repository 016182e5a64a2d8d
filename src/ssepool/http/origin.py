"""SameOrigin: pages of other sites cannot change anything in the hub through the browsers of their visitors."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ssepool.core.topics import shown
from ssepool.http.errors import error_reply
from ssepool.http.hosts import Hosts

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
"""The port that an origin of this scheme leaves out."""


class SameOrigin:
    """ASGI middleware: answers 403 to a request that may change something and comes from a page of another site.

    Any web page can send a form to any address, for instance to a hub on the visitor's own machine. The browser then
    names the page's origin in `Origin` (RFC 6454, section 7); a request without `Origin` does not come from a page. The
    scheme is not compared, because a proxy that ends TLS changes it. A page of a name of `allowed_hosts` is one of the
    hub's own also where a proxy gives the hub another `Host`.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, allow_origins: Iterable[str] = ()) -> None:
        """`app` gets the allowed requests. `hosts` know the hub's names. `allow_origins` are the allowed origins of
        other sites, or `*` for all, as in `HubConfig`."""
        self.app = app
        """The application behind this middleware."""
        self.hosts = hosts
        """The hub's names."""
        self.allowed = frozenset(origin.lower().rstrip("/") for origin in allow_origins)
        """The allowed origins of other sites, in lower case."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        foreign = [origin for origin in headers.getlist("origin") if not self._is_allowed(origin.lower(), host.lower())]
        if not foreign:
            return await self.app(scope, receive, send)
        message = (
            f"a page of {shown(foreign[0])} may not do this at {shown(host)}; "
            "allow_origins takes the origins of other sites that may"
        )
        await error_reply(403, "forbidden_origin", message)(scope, receive, send)

    def _is_allowed(self, origin: str, host: str) -> bool:
        if "*" in self.allowed or origin in self.allowed:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        port = DEFAULT_PORTS.get(parts.scheme, "")
        name = parts.netloc.removesuffix(port)
        return bool(name) and (name == host.removesuffix(port) or self.hosts.lists(name))
