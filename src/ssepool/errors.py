"""Every error that ssepool raises.

SSEPoolError
├── ConfigError            a setting has a value that is not allowed
├── InvalidEvent           an event cannot be put on the wire as it is
│   ├── EventTooLarge      an event exceeds the configured size
│   └── DuplicateEvent     an event's id is in the history already
├── InvalidTopic           a topic or a pattern is not well formed
├── PoolFull               no slot, and the request may not wait
├── PoolTimeout            no slot came free in time
├── PoolClosed             the pool is not open (not yet, or no longer)
├── RateExceeded           an address does more than its rate allows
├── ConnectionReleased     a handle outlived its client
└── BrokerError            the broker could not do what was asked
"""

from __future__ import annotations


class SSEPoolError(Exception):
    """The root of all errors of this package."""


class ConfigError(SSEPoolError):
    """A setting is unknown or has a value that is not allowed; the message names both."""


class InvalidEvent(SSEPoolError):
    """An event cannot be put on the wire: the message says which field and why."""


class EventTooLarge(InvalidEvent):
    """An event, or a block of a stream being decoded, exceeds the configured size in bytes."""


class DuplicateEvent(InvalidEvent):
    """An event with this id is in the history already, and `on_duplicate` is `refuse`."""


class InvalidTopic(SSEPoolError):
    """A topic name or a URL Pattern is not well formed: the message shows it."""


class PoolFull(SSEPoolError):
    """No slot is free and the request may not wait: the queue or one of the limits is full."""


class PoolTimeout(SSEPoolError):
    """A request waited `acquire_timeout` seconds and no slot came free."""


class PoolClosed(SSEPoolError):
    """The pool does not take requests: not opened yet, draining, or closed."""


class RateExceeded(SSEPoolError):
    """An address does more than its rate allows: the message says which rate, and when to come back."""

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds
        """Seconds after which it may go on."""


class ConnectionReleased(SSEPoolError):
    """The client behind this handle has left; its slot may serve somebody else by now."""


class BrokerError(SSEPoolError):
    """The broker could not store or read events; nothing was published unless the message says so."""


for _error in list(globals().values()):
    # Tracebacks show the name that users import.
    if isinstance(_error, type) and issubclass(_error, SSEPoolError):
        _error.__module__ = "ssepool"
