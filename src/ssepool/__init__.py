"""Server-Sent Events from one managed, bounded pool of connections.

hub = Hub(HubConfig(pool=PoolConfig(size=10_000)), authorize=who)
app = FastAPI(lifespan=hub.lifespan)
app.mount("/sse", hub.app)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
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
    "Asking": "ssepool.http.access.asking",
    "AsyncPublisher": "ssepool.publisher",
    "Connection": "ssepool.runtime.connections",
    "Departed": "ssepool.runtime.departed",
    "Hub": "ssepool.hub",
    "Publisher": "ssepool.publisher",
}
"""Names that bring asyncio or Starlette along, loaded when they are first used: who only publishes needs no server."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
