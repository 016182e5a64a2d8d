"""Shortcuts: plain requests that the hub serves in front of its application, with its middleware and its routes.

The application adds nothing to two kinds of requests: a well-formed subscription, and events that can be published
without waiting. For every other request a shortcut does nothing and returns None, and the routes serve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from ssepool.core.grant import Grant
from ssepool.core.states import PoolState
from ssepool.core.visit import Visit
from ssepool.errors import SSEPoolError
from ssepool.http import publish, subscribe
from ssepool.http.access.asking import Asking
from ssepool.http.access.door import Door
from ssepool.http.hosts import Hosts, forwarded_host
from ssepool.http.origin import is_embedded
from ssepool.http.query import MAX_QUERY_BYTES, Ignored
from ssepool.http.wish import read_wish
from ssepool.http.wishes import Wishes
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import Reply


class Shortcuts:
    """The shortcuts of one hub. Its application uses them, and so does the server in front of that application."""

    def __init__(self, engine: Engine, hosts: Hosts, door: Door) -> None:
        """`engine` and `hosts` are the hub's; `door` is that of the application."""
        self._engine = engine
        self._hosts = hosts
        self._door = door
        self._ignored = Ignored(engine.config.ignore_parameters)
        self._wishes = Wishes()

    @property
    def asks_who_publishes(self) -> bool:
        """Whether `publication` has to know the client's address."""
        rates = self._engine.rates
        return rates.publish is not None or rates.failure is not None or self._door.asks_where

    def publication(
        self, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes, client: tuple[str, int] | None = None
    ) -> Reply | None:
        """Publish the events of a plain POST to `/events` and return the answer; None: nothing has been done.

        `url` is the request's target as it came. The names of `headers` are in lower case. `client` is where it comes
        from, behind trusted proxies, where this `asks_who_publishes`.
        """
        if url != publish.TARGET or not self._hosts.admits(headers):
            return None
        ip = client[0] if client else None
        if ip is not None and not self._engine.rates.allows("failure", ip, self._engine.now()):
            return None
        scope = {
            "type": "http",
            "method": "POST",
            "path": publish.PATH,
            "query_string": b"",
            "headers": headers,
            "client": client,
        }
        grant = self._grant(Asking(scope, "publish"))
        return None if grant is None else publish.publish_nowait(self._engine, self._door, grant, headers, body, ip)

    def subscription(self, scope: Mapping[str, Any]) -> Visit | None:
        """The visit of a GET request, from its ASGI scope; None unless it is a well-formed subscription.

        None too for a `Host` that is not allowed, for what a page of another site embeds, for a query that is too long,
        before the hub is open, and for a page's request if `allow_origins` is set: middleware answers these, or adds
        header fields to the answer.
        """
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path != subscribe.PATH or len(scope["query_string"]) > MAX_QUERY_BYTES:
            return None
        asking = Asking(scope, "subscribe")
        fields = asking.fields
        if not self._hosts.admits(scope["headers"], forwarded_host(scope), fields):
            return None
        if b"sec-fetch-site" in fields and is_embedded(fields):
            return None
        if self._engine.pool.state is PoolState.NEW:
            return None
        if self._engine.config.allow_origins and b"origin" in fields:
            return None
        engine, door, query = self._engine, self._door, scope["query_string"]
        try:
            wish = self._wishes.get(query)
            if wish is None:
                wish = read_wish(scope, allow_regexp=engine.config.allow_regexp, ignored=self._ignored)
                self._wishes.add(query, wish)
            asking.wanted = wish.subscription
            grant = self._grant(asking)
            return None if grant is None else subscribe.visit_of(engine, door, scope, wish, grant)
        except (HTTPException, SSEPoolError):
            return None

    def _grant(self, asking: Asking) -> Grant | None:
        """The grant of a request; None if it takes time to know, or if there is anything to say about it."""
        try:
            return self._door.at_once(asking)
        except Exception:  # of the application's function, too: the route asks it again, and answers what it raises
            return None
