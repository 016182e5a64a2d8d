"""Server-Sent Events from one managed, bounded pool of connections.

hub = Hub(HubConfig(pool=PoolConfig(size=10_000)), authorize=who)
app = FastAPI(lifespan=hub.lifespan)
app.mount("/sse", hub.app)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssepool.config import AccessConfig, HubConfig, PoolConfig, ServerConfig
    from ssepool.core.decoder import Decoder, Message
    from ssepool.core.event import Event
    from ssepool.core.grant import Grant
    from ssepool.core.pool import Pool
    from ssepool.core.rights import Right, Rights
    from ssepool.core.stats import HubStats, PoolStats
    from ssepool.errors import (
        AccessDenied,
        AlreadyOpen,
        AuthorizeUnavailable,
        BadCredentials,
        BrokerError,
        ConfigError,
        ConnectionReleased,
        DuplicateEvent,
        EventTooLarge,
        Forbidden,
        IdConflict,
        InvalidEvent,
        InvalidGrant,
        InvalidTopic,
        PoolClosed,
        PoolFull,
        PoolTimeout,
        RateExceeded,
        RequestError,
        SSEPoolError,
        TokenExpired,
        Unauthorized,
    )
    from ssepool.http.access.asking import Asking
    from ssepool.hub import Hub
    from ssepool.publisher import AsyncPublisher, Publisher
    from ssepool.runtime.connections import Connection
    from ssepool.runtime.departed import Departed

__version__ = "0.1.0"

__all__ = [
    "AccessConfig",
    "AccessDenied",
    "AlreadyOpen",
    "Asking",
    "AsyncPublisher",
    "AuthorizeUnavailable",
    "BadCredentials",
    "BrokerError",
    "ConfigError",
    "Connection",
    "ConnectionReleased",
    "Decoder",
    "Departed",
    "DuplicateEvent",
    "Event",
    "EventTooLarge",
    "Forbidden",
    "Grant",
    "Hub",
    "HubConfig",
    "HubStats",
    "IdConflict",
    "InvalidEvent",
    "InvalidGrant",
    "InvalidTopic",
    "Message",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "Publisher",
    "RateExceeded",
    "RequestError",
    "Right",
    "Rights",
    "SSEPoolError",
    "ServerConfig",
    "TokenExpired",
    "Unauthorized",
]

_LAZY = {
    "AccessConfig": "ssepool.config",
    "AccessDenied": "ssepool.errors",
    "AlreadyOpen": "ssepool.errors",
    "Asking": "ssepool.http.access.asking",
    "AsyncPublisher": "ssepool.publisher",
    "AuthorizeUnavailable": "ssepool.errors",
    "BadCredentials": "ssepool.errors",
    "BrokerError": "ssepool.errors",
    "ConfigError": "ssepool.errors",
    "Connection": "ssepool.runtime.connections",
    "ConnectionReleased": "ssepool.errors",
    "Decoder": "ssepool.core.decoder",
    "Departed": "ssepool.runtime.departed",
    "DuplicateEvent": "ssepool.errors",
    "Event": "ssepool.core.event",
    "EventTooLarge": "ssepool.errors",
    "Forbidden": "ssepool.errors",
    "Grant": "ssepool.core.grant",
    "Hub": "ssepool.hub",
    "HubConfig": "ssepool.config",
    "HubStats": "ssepool.core.stats",
    "IdConflict": "ssepool.errors",
    "InvalidEvent": "ssepool.errors",
    "InvalidGrant": "ssepool.errors",
    "InvalidTopic": "ssepool.errors",
    "Message": "ssepool.core.decoder",
    "Pool": "ssepool.core.pool",
    "PoolClosed": "ssepool.errors",
    "PoolConfig": "ssepool.config",
    "PoolFull": "ssepool.errors",
    "PoolStats": "ssepool.core.stats",
    "PoolTimeout": "ssepool.errors",
    "Publisher": "ssepool.publisher",
    "RateExceeded": "ssepool.errors",
    "RequestError": "ssepool.errors",
    "Right": "ssepool.core.rights",
    "Rights": "ssepool.core.rights",
    "SSEPoolError": "ssepool.errors",
    "ServerConfig": "ssepool.config",
    "TokenExpired": "ssepool.errors",
    "Unauthorized": "ssepool.errors",
}
"""Where each name is, loaded when it is first used: who only publishes needs no server, and the pytest plugin, which
all runs of pytest load, needs nothing."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
