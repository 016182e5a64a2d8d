"""Entrance: what all connections of one server pass before any of them is a stream."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ssepool.core.callers import Callers, Stage, most_callers
from ssepool.runtime.files import max_clients
from ssepool.runtime.proxies import App, TrustedProxies
from ssepool.urls import is_network


class Entrance(NamedTuple):
    """What all connections of one server share."""

    app: App
    """The application, which is given the peer's address."""
    proxies: TrustedProxies
    """Who may say whose request it is."""
    callers: Callers
    """The connections that are no streams."""


_known: WeakKeyDictionary[Config, Entrance] = WeakKeyDictionary()


def entrance_of(config: Config) -> Entrance:
    """What the connections of a server have that uvicorn started by itself.

    Its `--forwarded-allow-ips` are read as `trusted_proxies` are: uvicorn's own middleware takes the left-most entry of
    X-Forwarded-For where all are trusted, which the client writes. How large the pool is nobody knows here, so the
    other half of all descriptors is for streams, and no answer that the application has begun to give is cut off.
    """
    found = _known.get(config)
    if found is None:
        app, trusted = config.loaded_app, [""][:0]
        if isinstance(app, ProxyHeadersMiddleware):
            given = config.forwarded_allow_ips
            names = given.split(",") if isinstance(given, str) else given
            trusted = [name for part in names if (name := part.strip()) == "*" or is_network(name)]
        proxies = TrustedProxies(trusted)
        if isinstance(app, ProxyHeadersMiddleware):
            app = proxies.forwarded(app.app)
        limit = max_clients()
        most = most_callers(limit, 0 if limit is None else limit // 2)
        found = _known[config] = Entrance(app, proxies, Callers(lambda: most, shared=False, last=Stage.BODY))
    return found
