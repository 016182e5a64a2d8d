"""Every error that ssepool raises.

SSEPoolError
├── ConfigError            a setting has a value that is not allowed
├── InvalidEvent           an event cannot be put on the wire as it is
│   ├── EventTooLarge      an event exceeds the configured size
│   └── DuplicateEvent     an event's id is in the history already
│       └── IdConflict     and there it names another event of the same topics
├── InvalidTopic           a topic or a pattern is not well formed
├── InvalidGrant           a grant, or an entry of it, is not well formed
├── AccessDenied           a request may not do what it asks for
│   ├── BadCredentials     its credentials are not presented as they must be (400)
│   ├── Unauthorized       it has none, or none that count (401)
│   │   └── TokenExpired   the only fault of its token is that it ran out a moment ago
│   └── Forbidden          it has no right to this (403)
├── PoolFull               no slot, and the request may not wait
├── PoolTimeout            no slot came free in time
├── PoolClosed             the pool is not open (not yet, or no longer)
├── AlreadyOpen            a hub that is open was to be opened once more
├── RateExceeded           an address does more than its rate allows
├── RevocationsFull        as many revocations are in force as there may be
├── AuthorizeUnavailable   the application that decides who may do what gives no answer
├── ConnectionReleased     a handle outlived its client
└── BrokerError            the broker could not do what was asked
"""

from __future__ import annotations

from collections.abc import Sequence


class SSEPoolError(Exception):
    """The root of all errors of this package."""


class ConfigError(SSEPoolError):
    """A setting is unknown or has a value that is not allowed; the message names both."""


class InvalidEvent(SSEPoolError):
    """An event cannot be put on the wire: the message says which field and why."""


class EventTooLarge(InvalidEvent):
    """An event, or a block of a stream being decoded, exceeds the configured size in bytes."""


class DuplicateEvent(InvalidEvent):
    """An event with this id and these topics is in the history already, and `on_duplicate` is `refuse`."""

    places: Sequence[int] = ()
    """Which events of the batch the history refuses, from 0 on; none if two events of the batch meet each other."""


class IdConflict(DuplicateEvent):
    """An event with this id and these topics, but with other content, is in the history (or the batch) already."""


class InvalidTopic(SSEPoolError):
    """A topic name or a URL Pattern is not well formed: the message shows it."""


class InvalidGrant(SSEPoolError):
    """A grant, or one entry of it, is not well formed: the message shows it. Nothing of it counts then."""


class AccessDenied(SSEPoolError):
    """A request may not do what it asks for. What is answered tells no more than the class (RFC 6750, section 3)."""

    grant: object = None
    """The `Grant` that does not suffice, for the audit log; None if there is none."""


class BadCredentials(AccessDenied):
    """Credentials are not presented as they must be: two of a kind, say."""


class Unauthorized(AccessDenied):
    """There are no credentials, or they do not count."""

    def __init__(self, message: str, *, presented: bool = False) -> None:
        """`presented`: whether there are any."""
        super().__init__(message)
        self.presented = presented
        """Whether credentials were there: only then is something wrong with them."""


class TokenExpired(Unauthorized):
    """The only fault of a token is that it ran out within the last minutes: its holder may be about to renew it."""


class Forbidden(AccessDenied):
    """The one who asks is known, and has no right to this."""


class PoolFull(SSEPoolError):
    """No slot is free and the request may not wait: the queue or one of the limits is full."""


class PoolTimeout(SSEPoolError):
    """A request waited `acquire_timeout` seconds and no slot came free."""


class PoolClosed(SSEPoolError):
    """The pool does not take requests: not opened yet, draining, or closed."""


class AlreadyOpen(SSEPoolError):
    """A hub that is open was to be opened once more; it may be opened again once it has closed."""


class RateExceeded(SSEPoolError):
    """An address does more than its rate allows: the message says which rate, and when to come back."""

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds
        """Seconds after which it may go on."""


class RevocationsFull(SSEPoolError):
    """As many revocations are in force as there may be: this one is not kept."""


class AuthorizeUnavailable(SSEPoolError):
    """The application at `authorize_url` gives no answer, or none that counts: its log line says why."""

    seconds: float = 3.0
    """Seconds after which it may be asked again."""


class ConnectionReleased(SSEPoolError):
    """The client behind this handle has left; its slot may serve somebody else by now."""


class BrokerError(SSEPoolError):
    """The broker could not store or read events; nothing was published unless the message says so."""


for _error in list(globals().values()):
    # Tracebacks show the name that users import.
    if isinstance(_error, type) and issubclass(_error, SSEPoolError):
        _error.__module__ = "ssepool"
