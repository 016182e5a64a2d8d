"""SameOrigin: keeps pages of other sites from changing anything in the hub through their visitors' browsers."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ssepool.core.topics import shown
from ssepool.http.errors import refusal

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class SameOrigin:
    """ASGI middleware: 403 for a request that changes something and comes from a page of another site.

    A form of any web page can be sent to any address, also to a hub on its visitor's own machine; the browser then
    tells whose page it was in `Origin`. What has no `Origin` is no page's. The scheme is not compared, because a proxy
    that ends TLS changes it. `allow_origins` are the origins of other sites that may (`*`: all), as in `HubConfig`.
    """

    def __init__(self, app: ASGIApp, allow_origins: Iterable[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(origin.lower().rstrip("/") for origin in allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE:
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
        await refusal(403, "forbidden_origin", message)(scope, receive, send)

    def _is_allowed(self, origin: str, host: str) -> bool:
        if "*" in self.allowed or origin in self.allowed:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        port = DEFAULT_PORTS.get(parts.scheme, "")
        return bool(parts.netloc) and parts.netloc.removesuffix(port) == host.removesuffix(port)
