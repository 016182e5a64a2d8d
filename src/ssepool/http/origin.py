"""Origins: what pages of other sites may do through the browsers of their visitors, and what only the hub's own may."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssepool.core.fields import fields_of
from ssepool.core.topics import shown
from ssepool.errors import Forbidden
from ssepool.http.errors import error_reply
from ssepool.http.hosts import Hosts, forwarded_host
from ssepool.http.reply import JSONReply
from ssepool.http.wish import asks_for_stream

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
"""Methods that change nothing (RFC 9110, 9.2.1; RFC 10008, section 2)."""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
"""The port that an origin of this scheme leaves out."""
OTHER_SITES = frozenset({b"cross-site", b"same-site"})
"""Values of `Sec-Fetch-Site` for pages of other origins; the same site has other ports and names under a domain."""

_MESSAGES = re.compile(r"/connections/[^/]+/messages")


class Use(Enum):
    """What pages of other sites may do, each by a list of origins."""

    STREAM = "stream"
    MESSAGES = "messages"
    TICKETS = "tickets"
    PUBLISH = "publish"


METHODS = {
    Use.STREAM: ["GET", "HEAD", "QUERY"],
    Use.MESSAGES: ["POST"],
    Use.TICKETS: ["POST"],
    Use.PUBLISH: ["POST"],
}
"""What a browser is told that pages may do, whatever they do next."""

SETTINGS: dict[Use | None, str] = {
    Use.STREAM: "allow_origins",
    Use.MESSAGES: "allow_origins",
    Use.TICKETS: "allow_origins",
    Use.PUBLISH: "publish_origins",
}
"""The settings that name the pages of other sites that may change something."""


def use_of(scope: Mapping[str, Any]) -> Use | None:
    """What a request is for, and a preflight by the method that it asks for; None for all that is the hub's own pages'
    alone. A preflight for POST /events, which does not tell whether a stream is meant, counts as one for publishing."""
    method = scope["method"]
    if method == "OPTIONS":
        method = Headers(raw=scope["headers"]).get("access-control-request-method", "")
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path == "/events" and asks_for_stream(method, scope["headers"] if scope["method"] == "POST" else ()):
        return Use.STREAM
    if method in ("GET", "HEAD") and path == "/ssepool.js":
        return Use.STREAM
    if method == "POST" and path == "/events":
        return Use.PUBLISH
    if method == "POST" and path == "/tickets":
        return Use.TICKETS
    return Use.MESSAGES if method == "POST" and _MESSAGES.fullmatch(path) else None


class CrossOrigin:
    """ASGI middleware: tells browsers which pages of other sites may have an answer (Fetch standard, 3.2)."""

    def __init__(self, app: ASGIApp, allow_origins: Iterable[str] = (), publish_origins: Iterable[str] = ()) -> None:
        """`app` gets all requests but preflights. The origins are those of `HubConfig`."""
        self.app = app
        """The application behind this middleware."""
        streams, publishers = tuple(allow_origins), tuple(publish_origins)
        lists = {Use.STREAM: streams, Use.MESSAGES: streams, Use.TICKETS: streams, Use.PUBLISH: publishers}
        self._by_use = {use: _cors(app, METHODS[use], origins) for use, origins in lists.items() if origins}
        self._posting = _cors(app, ["POST"], streams) if streams else None
        """Answers the preflight of a page that may have the stream, and may not publish."""
        self._publishers = frozenset(publishers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass a request on."""
        use = use_of(scope) if scope["type"] == "http" else None
        cors = None if use is None else self._by_use.get(use)
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and use is Use.PUBLISH:
            origin = Headers(scope=scope).get("origin")
            if "*" not in self._publishers and origin not in self._publishers:
                cors = self._posting or cors
        if cors is None:
            await self.app(scope, receive, send)
            return

        async def varied(message: Message) -> None:
            # Also where no page asked, or one that may not have it: a cache would give a page the answer of another.
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "origin" not in headers.get("vary", "").lower():
                    headers.add_vary_header("Origin")
            await send(message)

        await cors(scope, receive, varied)


def _cors(app: ASGIApp, methods: Sequence[str], origins: tuple[str, ...]) -> ASGIApp:
    # Only the methods of this use: a browser remembers them for the address, for whatever the page does next.
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=methods,
        allow_headers=["*"],
        allow_credentials="*" not in origins,
    )


def is_embedded(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another site asks for this without wanting to read it: as an image, say, in a frame, or with
    `no-cors`. Such a request names no origin (Fetch Metadata Request Headers, 2). `fields` are its headers by name."""
    if fields.get(b"sec-fetch-site") not in OTHER_SITES:
        return False
    mode, dest = fields.get(b"sec-fetch-mode", b""), fields.get(b"sec-fetch-dest", b"")
    return mode not in (b"cors", b"navigate") or (mode == b"navigate" and dest != b"document")


class Pages:
    """The pages of the hub, and those of other sites that may do something: what `Origin` and `Sec-Fetch-Site` say of
    a request, compared with the settings.

    The scheme is not compared, because a proxy that ends TLS changes it. Where a trusted proxy has forwarded the `Host`
    that the browser sent, the origin is compared with that. A page of a name of `allowed_hosts` is one of the hub's own
    also where a proxy gives the hub another `Host`.
    """

    def __init__(self, hosts: Hosts, allow_origins: Iterable[str] = (), publish_origins: Iterable[str] = ()) -> None:
        """`hosts` know the hub's names. The origins are those of `HubConfig`; `*` for all."""
        self.hosts = hosts
        """The hub's names."""
        streams, publishers = frozenset(allow_origins), frozenset(publish_origins)
        self._allowed = {
            Use.STREAM: streams,
            Use.MESSAGES: streams,
            Use.TICKETS: streams,
            Use.PUBLISH: publishers,
        }

    def foreign(self, scope: Mapping[str, Any], use: Use | None, *, with_cookies: bool = False) -> str | None:
        """The page of another site that this request comes from, unless that may do this; None else. A request without
        any such field comes from no page. With cookies `*` allows nobody, as in browsers (Fetch standard, 3.2.3)."""
        allowed = frozenset[str]() if use is None else self._allowed[use]
        if "*" in allowed and not with_cookies:
            return None
        headers = Headers(raw=scope["headers"])
        host = (forwarded_host(scope) or headers.get("host", "")).lower()
        origins = headers.getlist("origin")
        for origin in origins:
            if not (origin in allowed or self._is_own(origin.lower(), host)):
                return shown(origin)
        if not origins and headers.get("sec-fetch-site", "").encode("latin-1") in OTHER_SITES:
            return "another site"
        return None

    def check_cookies(self, scope: Mapping[str, Any]) -> None:
        """Raise `Forbidden` for a request that came with cookies, on which its rights may rest, from a page of another
        site that may not have the answer; and for one that changes something and does not say where it is from."""
        if self.foreign(scope, use_of(scope), with_cookies=True) is not None:
            raise Forbidden("a page of another site may not use what this browser keeps for the hub")
        names = {name for name, _ in scope["headers"]}
        if scope["method"] not in SAFE_METHODS and not names & {b"origin", b"sec-fetch-site"}:
            raise Forbidden("with a cookie, a change takes the field Origin or Sec-Fetch-Site, as browsers send them")

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        port = DEFAULT_PORTS.get(parts.scheme, "")
        name = parts.netloc.removesuffix(port)
        return bool(name) and (name == host.removesuffix(port) or self.hosts.lists(name))


class SameOrigin:
    """ASGI middleware: answers 403 to a page of another site that may change something, or would take a stream that it
    cannot read.

    Any web page can send a form to any address, for instance to a hub on the visitor's own machine. The browser then
    names the page's origin in `Origin` (RFC 6454, section 7), or at least says in `Sec-Fetch-Site` that it is another
    one.
    """

    def __init__(self, app: ASGIApp, pages: Pages) -> None:
        """`app` gets the allowed requests. `pages` know the hub's own, and those of other sites that may send messages
        or publish."""
        self.app = app
        """The application behind this middleware."""
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        await (self._refusal(scope) or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONReply | None:
        if scope["type"] != "http":
            return None
        use = use_of(scope)
        if scope["method"] in SAFE_METHODS:
            if use is not Use.STREAM or scope["path"].endswith(".js") or not is_embedded(fields_of(scope)):
                return None
            message = "a page of another site may not embed a stream: it cannot read it; it takes EventSource or fetch"
            return error_reply(403, "forbidden_origin", message)
        foreign = self._pages.foreign(scope, use)
        if foreign is None:
            return None
        host = forwarded_host(scope) or Headers(scope=scope).get("host", "")
        who = (
            f"{SETTINGS[use]} takes the origins of other sites that may"
            if use in SETTINGS
            else "only the hub's own pages may"
        )
        message = f"a page of {foreign} may not do this at {shown(host)}; {who}"
        return error_reply(403, "forbidden_origin", message)
