"""HubApp: the whole HTTP surface of a hub as one ASGI application."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from ssepool.http import connections, dashboard, demo, errors, health, metrics, openapi, pages, publish, subscribe
from ssepool.http import pool as pool_routes
from ssepool.http.budget import Budget
from ssepool.http.hosts import Hosts, KnownHost
from ssepool.http.origin import CrossOrigin, SameOrigin
from ssepool.http.query import QueryLimit
from ssepool.http.rates import FailureLimit
from ssepool.http.shortcuts import Shortcuts
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.engine import Engine


class HubApp(Starlette):
    """The ASGI application of a hub. Mount it at any prefix, or serve it alone.

    It serves a well-formed subscription in front of its middleware and routes. They have nothing to do for a
    subscription, and their wrappers around a request would stay as long as its stream: that costs memory for each
    connection, and time for each event.
    """

    def __init__(self, engine: Engine, nodes: Nodes, hosts: Hosts, shortcuts: Shortcuts, lifespan: Any) -> None:
        """`engine`, `nodes`, `hosts` and `shortcuts` are the hub's. `lifespan` opens the hub where this application is
        served alone, as in `Starlette(lifespan=...)`."""
        budget = Budget(max_body=engine.config.max_body)
        routes = [
            *subscribe.routes(engine),
            *publish.routes(engine, budget),
            *connections.routes(engine, nodes, budget),
            *pool_routes.routes(nodes, budget),
            *metrics.routes(nodes),
            *health.routes(engine),
            *openapi.routes(),
            *pages.routes(),
            *demo.routes(engine, budget),
            *dashboard.routes(),
        ]
        origins = {
            "allow_origins": engine.config.allow_origins,
            "publish_origins": engine.config.publish_origins,
        }
        middleware = [
            Middleware(KnownHost, hosts=hosts),
            *([Middleware(CrossOrigin, **origins)] if any(origins.values()) else []),
            *([Middleware(FailureLimit, engine=engine)] if engine.config.failure_rate else []),
            Middleware(QueryLimit),
            Middleware(SameOrigin, hosts=hosts, **origins),
        ]
        super().__init__(routes=routes, middleware=middleware, exception_handlers=errors.handlers, lifespan=lifespan)
        self._engine = engine
        self._shortcuts = shortcuts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        plain = scope["type"] == "http" and scope["method"] == "GET"
        visit = self._shortcuts.subscription(scope) if plain else None
        if visit is None:
            await super().__call__(scope, receive, send)
        else:
            await EventStream(self._engine, visit)(scope, receive, send)
