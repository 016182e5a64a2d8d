"""Foreign: whether a page of another site has sent a request, together with what the browser adds by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from ssepool.http.access.asking import Asking
from ssepool.runtime.handover import FORWARDED_HOST

OWN_SITES = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for the hub's own pages, and for what no page sent (Fetch Metadata, section 2.4)."""
USUAL_PORTS = {"http": ":80", "https": ":443"}
"""The port that an origin of this scheme leaves out."""


def is_foreign(asking: Asking, trusted: Collection[str], is_listed: Callable[[str], bool] = lambda name: False) -> bool:
    """Whether a page of another site sent this. Such a page may not use the cookies of its visitors.

    `trusted` are the origins of other sites that may; `*` does not count, for it means nobody in particular.
    `is_listed` tells which names are the hub's own, beside that of the request. What says nothing of a page comes from
    none: every browser names the origin of an EventSource or a fetch that goes elsewhere (Fetch standard, 3.2).
    """
    origins = asking.headers.getlist("origin")
    if origins and all(origin in trusted and origin != "*" for origin in origins):
        return False
    sites = asking.headers.getlist("sec-fetch-site")
    if sites:
        return not OWN_SITES.issuperset(sites)
    extensions = asking.scope.get("extensions") or {}
    host = (extensions.get(FORWARDED_HOST) or asking.headers.get("host", "")).lower()
    return not all(_is_own(origin.lower(), host, is_listed) for origin in origins)


def _is_own(origin: str, host: str, is_listed: Callable[[str], bool]) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = USUAL_PORTS.get(parts.scheme, "")
    name = parts.netloc.removesuffix(port)
    return bool(name) and (name == host.removesuffix(port) or is_listed(name))
