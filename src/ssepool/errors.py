"""Every error that ssepool raises.

SSEPoolError
├── ConfigError            a setting has a value that is not allowed
├── InvalidEvent           an event cannot be put on the wire as it is
│   ├── EventTooLarge      an event exceeds the configured size
│   └── DuplicateEvent     an event's id is in the history already
│       └── IdConflict     and there it names another event of the same topics
├── InvalidTopic           a topic or a pattern is not well formed
├── PoolFull               no slot, and the request may not wait
├── PoolTimeout            no slot came free in time
├── PoolClosed             the pool is not open (not yet, or no longer)
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


class PoolFull(SSEPoolError):
    """No slot is free and the request may not wait: the queue or one of the limits is full."""


class PoolTimeout(SSEPoolError):
    """A request waited `acquire_timeout` seconds and no slot came free."""


class PoolClosed(SSEPoolError):
    """The pool does not take requests: not opened yet, draining, or closed."""


class ConnectionReleased(SSEPoolError):
    """The client behind this handle has left; its slot may serve somebody else by now."""


class BrokerError(SSEPoolError):
    """The broker could not store or read events; nothing was published unless the message says so."""


for _error in list(globals().values()):
    # Tracebacks show the name that users import.
    if isinstance(_error, type) and issubclass(_error, SSEPoolError):
        _error.__module__ = "ssepool"
