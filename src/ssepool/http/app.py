"""Hub: the hub that applications mount, the runtime's hub with its whole HTTP surface."""

from __future__ import annotations

from functools import cached_property

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ssepool.http import connections, dashboard, demo, errors, health, metrics, openapi, pages, publish, subscribe
from ssepool.http import pool as pool_routes
from ssepool.http.origin import SameOrigin
from ssepool.http.query import QueryLimit
from ssepool.runtime import hub


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
        return Starlette(
            routes=[route for subject in subjects for route in subject.routes(self)],
            middleware=middleware,
            exception_handlers=errors.handlers,
            lifespan=self.lifespan,
        )
