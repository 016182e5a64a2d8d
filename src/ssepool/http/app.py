"""Hub: the hub that applications mount, the runtime's hub with its whole HTTP surface."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from ssepool.core.states import PoolState
from ssepool.errors import SSEPoolError
from ssepool.http import connections, dashboard, demo, errors, health, metrics, openapi, pages, publish, subscribe
from ssepool.http import pool as pool_routes
from ssepool.http.origin import SameOrigin
from ssepool.http.query import MOST_QUERY, QueryLimit
from ssepool.runtime import hub
from ssepool.runtime.admission import Reply
from ssepool.runtime.asgi import EventStream
from ssepool.runtime.visit import Visit


class Hub(hub.Hub):
    __doc__ = hub.Hub.__doc__

    @cached_property
    def app(self) -> Starlette:
        """The whole HTTP surface as an ASGI application, to be mounted at any prefix or served alone."""
        subjects = (subscribe, publish, connections, pool_routes, metrics, health, openapi, pages, demo, dashboard)
        origins = self.config.allow_origins
        middleware = [Middleware(QueryLimit), Middleware(SameOrigin, allow_origins=origins)]
        if origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["*"],
                allow_credentials="*" not in origins,
            )
            middleware.insert(0, cors)
        return Surface(
            self,
            routes=[route for subject in subjects for route in subject.routes(self)],
            middleware=middleware,
            exception_handlers=errors.handlers,
            lifespan=self.lifespan,
        )

    def answer(self, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Reply | None:
        """The answer to a plain publish, if it can be given at once; None: nothing has been done, ask `app`."""
        return publish.publish_at_once(self, headers, body) if url == publish.TARGET else None

    def recognise(self, scope: Mapping[str, Any]) -> Visit | None:
        """A subscription without errors, from a page of our own: all else needs what stands around the routes."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path != subscribe.PATH or len(scope["query_string"]) > MOST_QUERY or self.pool.state is PoolState.NEW:
            return None
        if self.config.allow_origins and any(name == b"origin" for name, _ in scope["headers"]):
            return None
        try:
            return subscribe.read_visit(dict(scope))
        except (errors.APIError, SSEPoolError):
            return None


class Surface(Starlette):
    """The application of a hub. A subscription that is recognised is served in front of its middleware and routes.

    They have nothing to do for one, and what they wrap around a request stays there as long as its stream: memory for
    each connection, and time for each event.
    """

    def __init__(self, hub: Hub, **options: Any) -> None:
        super().__init__(**options)
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = self._hub.recognise(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if visit is None:
            await super().__call__(scope, receive, send)
        else:
            await EventStream(self._hub, visit)(scope, receive, send)
