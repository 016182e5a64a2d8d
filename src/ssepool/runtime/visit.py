"""Visit: what a client asks for when it connects, whichever way its request came in."""

from __future__ import annotations

from collections.abc import AsyncIterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

import msgspec
from starlette.types import Scope

from ssepool.core.topics import Subscription
from ssepool.runtime.frames import COMPLETED_ID

if TYPE_CHECKING:
    from ssepool.runtime.production import Production

MAX_LAST_EVENT_ID = 1024
"""Characters of a `Last-Event-ID` that are looked at; longer ones cannot be ours."""


class Request(Protocol):
    """A request of whatever framework: Starlette's, FastAPI's, Litestar's."""

    @property
    def scope(self) -> Any:
        """The ASGI scope."""


class Visit(msgspec.Struct, kw_only=True):
    """One request for a stream."""

    subscription: Subscription | None = None
    """None for a generator's stream that has no topic."""
    ip: str | None = None
    user: str | None = None
    data: Any = None
    """The client's own data."""
    last_event_id: str | None = None
    production: Production | None = None
    """The generator whose events this client wants."""
    spare: AsyncIterable[Any] | None = None
    """A generator that came with this request and is not needed: the same topic has one already."""

    @property
    def limited(self) -> tuple[str, ...]:
        """Topics and patterns, as the limits count them."""
        return self.subscription.keys if self.subscription else ()

    @property
    def likeness(self) -> str:
        """What a client that was kicked is recognised by when it comes back, to whichever node."""
        private = self.subscription is not None and self.subscription.private
        likeness = repr((self.ip, self.user, self.limited, private, repr(self.data)))
        return sha256(likeness.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def has_everything(self) -> bool:
        """Whether the client has seen the end of what it asks for, and only its automatic reconnection is back."""
        if self.last_event_id == COMPLETED_ID:
            return True
        return self.production is not None and self.production.is_over_for(self.last_event_id)


def last_event_id(scope: Scope) -> str | None:
    """The id that a request resumes from: the header `Last-Event-ID`, else the query's `last_event_id` or
    `lastEventId` (two polyfills and fresh pages can send no header); None if there is none or it is empty."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    for name, value in headers:
        if name == b"last-event-id":
            return value.decode("utf-8", "replace")[:MAX_LAST_EVENT_ID] or None
    query = scope.get("query_string", b"")
    if b"ast_event_id=" in query or b"astEventId=" in query:
        values = parse_qs(query.decode("utf-8", "replace"))
        for parameter in ("last_event_id", "lastEventId"):
            if parameter in values:
                return values[parameter][-1][:MAX_LAST_EVENT_ID] or None
    return None


def ip_of(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
