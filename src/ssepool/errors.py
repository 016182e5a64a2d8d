"""Every error that ssepool raises. The number is the HTTP status of a request that meets it.

SSEPoolError
├── ConfigError                 a setting has a value that is not allowed
├── AlreadyOpen                 a hub that is open was to be opened once more
├── InvalidGrant                a grant, or an entry of it, is not well formed
└── RequestError                what a web framework answers by itself
    ├── InvalidEvent            400 an event cannot be put on the wire as it is
    │   ├── EventTooLarge       413 an event exceeds the configured size
    │   └── DuplicateEvent      409 an event's id is in the history already
    │       └── IdConflict      and there it names another event of the same topics
    ├── InvalidTopic            400 a topic or a pattern is not well formed
    ├── AccessDenied            403 a request may not do what it asks for
    │   ├── BadCredentials      400 its credentials are not presented as they must be
    │   ├── Unauthorized        401 it has none, or none that count
    │   │   └── TokenExpired    the only fault of its token is that it ran out a moment ago
    │   └── Forbidden           403 it has no right to this
    ├── PoolFull                503 no slot, and the request may not wait
    ├── PoolTimeout             503 no slot came free in time
    ├── PoolClosed              503 the pool is not open (not yet, or no longer)
    ├── RateExceeded            429 an address does more than its rate allows
    ├── RevocationsFull         503 as many revocations are in force as there may be
    ├── AuthorizeUnavailable    503 the application that decides who may do what gives no answer
    ├── ConnectionReleased      404 a handle outlived its client
    └── BrokerError             503 the broker could not do what was asked
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException


class SSEPoolError(Exception):
    """The root of all errors of this package."""


class RequestError(SSEPoolError, HTTPException):
    """An error for which a request gets an answer of its own. Raised through a route of FastAPI, Starlette or Litestar
    it is that answer, for it is an `HTTPException` of Starlette, which all three know."""

    status_code: int
    """The HTTP status of the answer."""
    headers: Mapping[str, str] | None = None
    """Header fields that the answer needs."""

    def __init_subclass__(cls, status: int | None = None) -> None:
        super().__init_subclass__()
        if status is not None:
            cls.status_code = status

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)
        self.detail = str(self).encode("utf-8", "backslashreplace").decode()
        """The message, as JSON can carry it."""

    __str__ = Exception.__str__
    __repr__ = Exception.__repr__


class ConfigError(SSEPoolError):
    """A setting is unknown or has a value that is not allowed; the message names both."""


class InvalidEvent(RequestError, status=400):
    """An event cannot be put on the wire: the message says which field and why."""


class EventTooLarge(InvalidEvent, status=413):
    """An event, or a block of a stream being decoded, exceeds the configured size in bytes."""


class DuplicateEvent(InvalidEvent, status=409):
    """An event with this id and these topics is in the history already, and `on_duplicate` is `refuse`."""

    places: Sequence[int] = ()
    """Which events of the batch the history refuses, from 0 on; none if two events of the batch meet each other."""


class IdConflict(DuplicateEvent):
    """An event with this id and these topics, but with other content, is in the history (or the batch) already."""


class InvalidTopic(RequestError, status=400):
    """A topic name or a URL Pattern is not well formed: the message shows it."""


class InvalidGrant(SSEPoolError):
    """A grant, or one entry of it, is not well formed: the message shows it. Nothing of it counts then."""


def _challenge(error: str | None) -> dict[str, str]:
    """The header field that goes with a refusal for want of rights (RFC 6750, section 3): without a word on what is
    wrong if nothing was presented, and otherwise without one on why it does not count."""
    return {"WWW-Authenticate": 'Bearer realm="ssepool"' + (f', error="{error}"' if error else "")}


class AccessDenied(RequestError, status=403):
    """A request may not do what it asks for. What is answered tells no more than the class (RFC 6750, section 3)."""

    headers = _challenge("insufficient_scope")

    grant: object = None
    """The `Grant` that does not suffice, for the audit log; None if there is none."""


class BadCredentials(AccessDenied, status=400):
    """Credentials are not presented as they must be: two of a kind, say."""

    headers = _challenge("invalid_request")


class Unauthorized(AccessDenied, status=401):
    """There are no credentials, or they do not count."""

    def __init__(self, message: str, *, presented: bool = False) -> None:
        """`presented`: whether there are any."""
        super().__init__(message)
        self.presented = presented
        """Whether credentials were there: only then is something wrong with them."""
        self.headers = _challenge("invalid_token" if presented else None)


class TokenExpired(Unauthorized):
    """The only fault of a token is that it ran out within the last minutes: its holder may be about to renew it."""


class Forbidden(AccessDenied):
    """The one who asks is known, and has no right to this."""


class PoolFull(RequestError, status=503):
    """No slot is free and the request may not wait: the queue or one of the limits is full."""


class PoolTimeout(RequestError, status=503):
    """A request waited `acquire_timeout` seconds and no slot came free."""


class PoolClosed(RequestError, status=503):
    """The pool does not take requests: not opened yet, draining, or closed."""


class AlreadyOpen(SSEPoolError):
    """A hub that is open was to be opened once more; it may be opened again once it has closed."""


class RateExceeded(RequestError, status=429):
    """An address does more than its rate allows: the message says which rate, and when to come back."""

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds
        """Seconds after which it may go on."""
        self.headers = {"Retry-After": str(math.ceil(seconds))}


class RevocationsFull(RequestError, status=503):
    """As many revocations are in force as there may be: this one is not kept."""


class AuthorizeUnavailable(RequestError, status=503):
    """The application at `authorize_url` gives no answer, or none that counts: its log line says why."""

    seconds: float = 3.0
    """Seconds after which it may be asked again."""
    headers: Mapping[str, str] | None = {"Retry-After": str(math.ceil(seconds))}


class ConnectionReleased(RequestError, status=404):
    """The client behind this handle has left; its slot may serve somebody else by now."""


class BrokerError(RequestError, status=503):
    """The broker could not store or read events; nothing was published unless the message says so."""


for _error in list(globals().values()):
    # Tracebacks show the name that users import.
    if isinstance(_error, type) and issubclass(_error, SSEPoolError):
        _error.__module__ = "ssepool"
