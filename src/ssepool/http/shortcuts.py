"""Shortcuts: plain requests that are dealt with in front of the application, its middleware and its routes.

Nothing stands around these two for which they would need the application: a subscription that is well formed, and an
event to publish that has nothing to wait for. For everything else a shortcut does nothing, and the routes are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssepool.core.states import PoolState
from ssepool.core.visit import Visit
from ssepool.errors import SSEPoolError
from ssepool.http import publish, subscribe
from ssepool.http.errors import APIError
from ssepool.http.query import MAX_QUERY_BYTES
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import Reply


class Shortcuts:
    """Those of one hub, for its application and for the server that serves it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def publication(self, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Reply | None:
        """The answer to a plain publish, if it can be given at once; None: nothing has been done."""
        return publish.publish_nowait(self._engine, headers, body) if url == publish.TARGET else None

    def subscription(self, scope: Mapping[str, Any]) -> Visit | None:
        """The visit of a plain GET, if it is a subscription without errors, from a page of our own."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path != subscribe.PATH or len(scope["query_string"]) > MAX_QUERY_BYTES:
            return None
        if self._engine.pool.state is PoolState.NEW:
            return None
        if self._engine.config.allow_origins and any(name == b"origin" for name, _ in scope["headers"]):
            return None
        try:
            return subscribe.read_visit(scope)
        except (APIError, SSEPoolError):
            return None
