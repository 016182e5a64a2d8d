"""Visit: what a client asks for when it connects, whichever way its request came in."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from hashlib import sha256
from reprlib import Repr
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl

import msgspec

from ssepool.core.fields import fields_of
from ssepool.core.frames import COMPLETED_ID, DIALECT, FAILED_ID, Dialect
from ssepool.core.grant import Grant
from ssepool.core.states import Reason
from ssepool.core.term import ENDLESS, Term
from ssepool.core.topics import Subscription
from ssepool.errors import SSEPoolError

MAX_LAST_ID_CHARACTERS = 1024
"""Characters of a `Last-Event-ID` that are looked at; longer ones cannot be ours."""

IN_QUERY = ("last_event_id", "lastEventId")
"""The query parameters that name the id from which a client resumes."""

_bounded = Repr()
_bounded.maxlevel = 10
_bounded.maxdict = _bounded.maxlist = _bounded.maxtuple = _bounded.maxset = _bounded.maxfrozenset = 50
_bounded.maxstring = _bounded.maxother = 1000

Scope = Mapping[str, Any]
"""An ASGI scope."""


class Request(Protocol):
    """A request of whatever framework: Starlette's, FastAPI's, Litestar's."""

    @property
    def scope(self) -> Any:
        """The ASGI scope."""


class Viewer(Protocol):
    """A client of a source, as the source sees it."""

    def finish(self, reason: Reason) -> None:
        """Close the stream for this reason once everything that is pending has been written."""


class Client(Protocol):
    """A client whose stream is open: a connection."""

    async def send(self, data: Any) -> None:
        """Send an event to this client alone. Raises `ConnectionReleased`."""


class Refused(Exception):
    """A generator failed before its first event, so its request has no stream: it fails with `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
        """What the generator raised."""


class Source(Protocol):
    """A run, as a visit and its admission see it: a generator whose events the client wants."""

    start: int | None
    """The broker's position before the first event; None before it has begun."""
    outcome: Reason | None
    """Why the source has ended; None while it goes on."""

    async def begin(self, generator: AsyncIterable[Any] | None, gone: Any, seconds: float) -> None:
        """Begin with this generator, if none has begun, and wait for the first event, at the longest so many seconds
        or until the future `gone` is done. Raises `Refused` if there will be none because the generator failed."""

    def attend(self, viewer: Viewer, client: Client, generator: AsyncIterable[Any] | None) -> None:
        """A client's stream is open. `generator` is the one that came with its request."""

    def unattend(self, viewer: Viewer) -> None:
        """The client has left."""

    async def settled(self, generator: AsyncIterable[Any] | None) -> None:
        """Return when this generator, if it is the one that runs, has ended and its request's client has left."""

    async def left(self, generator: AsyncIterable[Any] | None) -> None:
        """A request has been dealt with. `generator` is the one that came with it."""

    def is_over_for(self, last_event_id: str | None) -> bool:
        """Whether a client that comes back with this id has everything that there will ever be."""


class Visit(msgspec.Struct, kw_only=True):
    """One request for a stream."""

    grant: Grant
    """Who asks, and what they may do: there is no visit without."""
    subscription: Subscription | None = None
    """What the client wants; None for a generator's stream that has no topic."""
    ip: str | None = None
    """The address that the client comes from."""
    data: Any = None
    """The client's own data, or what the grant vouches for."""
    term: Term = ENDLESS
    """How long the grant lets the stream go on."""
    stranger: bool = False
    """Whether the client itself chose what it wants, so that its patterns and its rate are bounded."""
    last_event_id: str | None = None
    """The id behind which the client resumes."""
    dialect: Dialect = DIALECT
    """How the hub speaks to this client."""
    source: Source | None = None
    """The run whose events this client wants."""
    refusal: SSEPoolError | None = None
    """Why the client is turned away before the pool is asked; None if it is not."""
    generator: AsyncIterable[Any] | None = None
    """The generator that came with this request; not needed if the same topic has one already."""
    background: Callable[[], None] | None = None
    """What is to be started once the stream has ended, if its request is over by then."""

    @classmethod
    def of(
        cls,
        scope: Scope,
        subscription: Subscription | None,
        grant: Grant,
        *,
        data: Any = None,
        last_event_id: str | None = None,
        term: Term = ENDLESS,
        dialect: Dialect = DIALECT,
    ) -> Self:
        """The visit of a request, from its ASGI scope. The data of the grant wins over `data`. `last_event_id` is for a
        client that names none: the one that a client names is newer, as it comes with each reconnection. An empty one
        is none."""
        client = scope.get("client")
        return cls(
            grant=grant,
            subscription=subscription,
            ip=client[0] if client else None,
            data=data if grant.data is None else grant.data,
            last_event_id=requested_id(scope) or last_event_id or None,
            term=term,
            dialect=dialect,
        )

    @property
    def user(self) -> str | None:
        """Who the client is, as the grant says."""
        return self.grant.subject

    @property
    def limited(self) -> tuple[str, ...]:
        """Topics and patterns, as the limits count them."""
        return self.subscription.keys if self.subscription else ()

    @property
    def bounded(self) -> tuple[str, ...]:
        """The forms of the patterns that count for `max_patterns`."""
        if not self.stranger or self.subscription is None or not self.subscription.patterns:
            return ()
        return tuple(pattern.form for pattern in self.subscription.patterns)

    @property
    def fingerprint(self) -> str:
        """What every node recognises this client by when it comes back: its user, or else address, subscription and
        data."""
        wanted = self.subscription or Subscription()
        text = repr(
            ("user", self.user)
            if self.user is not None
            else (
                "client",
                self.ip,
                sorted(wanted.topics),
                sorted(pattern.text for pattern in wanted.patterns),
                wanted.private,
                _text_of(self.data),
            )
        )
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def has_everything(self) -> bool:
        """Whether the client has seen the end of what it asks for, and only its automatic reconnection is back."""
        if self.last_event_id in (COMPLETED_ID, FAILED_ID):
            return True
        source = self.source
        if source is None or (self.dialect.ending is not None and source.outcome is Reason.COMPLETED):
            return False  # behind the source's own last event comes the dialect's, which has that id
        return source.is_over_for(self.last_event_id)


def _text_of(data: Any) -> str:
    """Data as text: equal for equal JSON, and of bounded size for what else an application keeps on a connection."""
    try:
        return msgspec.json.encode(data, order="deterministic").decode()
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return _bounded.repr(data)
    except ValueError:  # an int of more than 4300 digits, somewhere in it
        return f"<{type(data).__name__}>"


def requested_id(scope: Scope) -> str | None:
    """The id that a request resumes from: the header `Last-Event-ID` (WHATWG HTML, 9.2.4), which a browser keeps up to
    date while the URL stays as it was; without one, or with an empty one, that of the query. None if there is none.
    Names of headers are in lower case."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if b"last-event-id" in fields_of(scope):
        for name, value in headers:
            if name == b"last-event-id" and value:
                return value.decode("utf-8", "replace")[:MAX_LAST_ID_CHARACTERS]
    return last_id(scope.get("query_string", b""))


def last_id(query: bytes) -> str | None:
    """The last id of a query string that is not empty, under either name: a polyfill appends the newest to the page's
    own (two polyfills and fresh pages can send no header). None if there is none."""
    if b"ast_event_id=" not in query and b"astEventId=" not in query:
        return None
    found = [value for name, value in parse_qsl(query.decode("utf-8", "replace")) if name in IN_QUERY]
    return found[-1][:MAX_LAST_ID_CHARACTERS] if found else None
