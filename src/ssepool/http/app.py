"""HubApp: the HTTP surface of a hub as an ASGI application: what the world may reach, what operators may, or both."""

from __future__ import annotations

from enum import Enum
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from ssepool.errors import AccessDenied
from ssepool.http import (
    audit,
    connections,
    dashboard,
    demo,
    errors,
    health,
    metrics,
    openapi,
    pages,
    publish,
    revocations,
    subscribe,
    tickets,
    topics,
)
from ssepool.http import pool as pool_routes
from ssepool.http.access.audit import Audit
from ssepool.http.access.door import Door
from ssepool.http.budget import Budget
from ssepool.http.hosts import Hosts, KnownHost
from ssepool.http.origin import CrossOrigin, Pages, SameOrigin
from ssepool.http.query import Ignored, QueryLimit
from ssepool.http.rates import FailureLimit
from ssepool.http.shortcuts import Shortcuts
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.cluster.revoking import Revoking
from ssepool.runtime.engine import Engine


class Surface(Enum):
    """Whom an application is for."""

    WORLD = "world"
    """Everybody: the stream, publishing and messages, the browser client, probes."""
    ADMIN = "admin"
    """Operators: connections, the pool, all nodes, numbers and the dashboard, whose page needs the stream."""
    DEVELOPMENT = "development"
    """Both, and the demo."""


class HubApp(Starlette):
    """An ASGI application of a hub. Mount it at any prefix, or serve it alone.

    It serves a well-formed subscription in front of its middleware and routes. They have nothing to do for a
    subscription, and their wrappers around a request would stay as long as its stream: that costs memory for each
    connection, and time for each event.
    """

    def __init__(
        self,
        surface: Surface,
        engine: Engine,
        nodes: Nodes,
        revoking: Revoking,
        hosts: Hosts,
        budget: Budget,
        door: Door,
        lifespan: Any,
    ) -> None:
        """`engine`, `nodes`, `revoking`, `hosts` and `budget` are the hub's, `door` is the way into this application.
        `lifespan` opens the hub where it is served alone, as in `Starlette(lifespan=...)`."""
        super().__init__(
            exception_handlers={**errors.handlers, AccessDenied: self._on_refusal},
            lifespan=lifespan,
        )
        # It would send whoever asks for `/pool/` to a URL made of `Host`, which a stranger writes, with the scheme that
        # a proxy speaks to us.
        self.router.redirect_slashes = False
        self.surface = surface
        """Whom it is for."""
        self.hosts = hosts
        """The names under which it may be reached."""
        self._own: list[Any] = []
        """The routes and middleware that are not the application's."""
        self.serve(engine, nodes, revoking, budget, door)

    def serve(self, engine: Engine, nodes: Nodes, revoking: Revoking, budget: Budget, door: Door) -> None:
        """Serve with these parts from now on: the hub has opened anew. It stays mounted where it is."""
        self.audit = Audit(nodes.trail, engine.now, engine.connections.wall_clock)
        """Writes down who administers, and who is refused."""
        self.shortcuts = Shortcuts(engine, self.hosts, door)
        """Plain requests that need no middleware and no route."""
        self._engine = engine
        routes = _routes(self.surface, engine, nodes, revoking, budget, door)
        middleware = _middleware(engine, self.hosts)
        before = {id(each) for each in self._own}
        self._own = [*routes, *middleware]
        self.router.routes[:] = [*routes, *[route for route in self.router.routes if id(route) not in before]]
        # What an application adds stands in front.
        self.user_middleware[:] = [each for each in self.user_middleware if id(each) not in before] + middleware
        self.middleware_stack = None  # made of these with the next request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        plain = scope["type"] == "http" and scope["method"] == "GET"
        visit = self.shortcuts.subscription(scope) if plain else None
        if visit is None:
            await super().__call__(scope, receive, send)
        else:
            await EventStream(self._engine, visit)(scope, receive, send)

    async def _on_refusal(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, AccessDenied)
        self.audit.refused(request, error)
        return errors.reply_to(error)


def _routes(
    surface: Surface, engine: Engine, nodes: Nodes, revoking: Revoking, budget: Budget, door: Door
) -> list[BaseRoute]:
    found = [
        *subscribe.routes(engine, budget, door),
        *health.routes(engine, explained=surface is not Surface.WORLD),
        *openapi.routes(),
        *pages.routes(),
    ]
    if surface is not Surface.ADMIN:
        found += [*publish.routes(engine, budget, door), *connections.message_routes(engine, nodes, budget)]
        found += tickets.routes(engine, nodes, budget, door)
    if surface is not Surface.WORLD:
        found += [
            *connections.routes(nodes, door),
            *topics.routes(nodes, door),
            *revocations.routes(engine, revoking, budget, door),
            *pool_routes.routes(nodes, budget, door),
            *metrics.routes(nodes, door),
            *audit.routes(nodes, door),
            *dashboard.routes(),
        ]
    if surface is Surface.DEVELOPMENT:
        found += demo.routes(engine, budget, door)
    return found


def _middleware(engine: Engine, hosts: Hosts) -> list[Middleware]:
    config = engine.config
    origins = {"allow_origins": config.allow_origins, "publish_origins": config.publish_origins}
    return [
        Middleware(KnownHost, hosts=hosts),
        *([Middleware(CrossOrigin, **origins)] if any(origins.values()) else []),
        *([Middleware(FailureLimit, engine=engine)] if config.failure_rate else []),
        Middleware(QueryLimit, ignored=Ignored(config.ignore_parameters)),
        Middleware(SameOrigin, pages=Pages(hosts, **origins)),
    ]
