"""Asking: one request as those who decide about it see it."""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import HTTPConnection

from ssepool.core.fields import fields_of
from ssepool.core.topics import Subscription
from ssepool.http.access.credentials import Presented

Action = Literal["subscribe", "publish", "administer"]
"""What a request asks for: a stream; to publish, to topics that are known once its body is there; or a part of
administration."""


class Asking(HTTPConnection):
    """What somebody asks for: a request without its body. Headers, cookies, query and address are those of Starlette:
    `asking.headers["x-tenant"]`, `asking.cookies["session"]`, `asking.query_params`, `asking.client`.

    A request that came without ASGI has no more of its scope than these.
    """

    def __init__(self, scope: Any, action: Action, wanted: Subscription | None = None) -> None:
        """`scope` is the request's ASGI scope, and `wanted` what it would subscribe to."""
        self.scope = scope  # all that Starlette's does, and each microsecond counts when all come at once
        self.fields = fields_of(scope)
        """The header fields by name, in lower case; of several with one name the last."""
        self.action = action
        """What it asks for."""
        self.wanted = wanted
        """What it would subscribe to; None unless it asks for a stream."""
        self.presented: Presented | None = None
        """The token that it presents, once the door has looked."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it would subscribe to, sorted."""
        return tuple(sorted(self.wanted.topics)) if self.wanted else ()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that it would subscribe to, sorted."""
        return tuple(sorted(pattern.text for pattern in self.wanted.patterns)) if self.wanted else ()

    @property
    def ip(self) -> str | None:
        """The address that the request comes from, behind trusted proxies; None where the server knows none."""
        return self.client.host if self.client else None
