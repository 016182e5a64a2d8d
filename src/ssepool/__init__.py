"""Server-Sent Events from one managed, bounded pool of connections.

hub = Hub(HubConfig(pool=PoolConfig(size=10_000)))
app = FastAPI(lifespan=hub.lifespan)
app.mount("/sse", hub.app)
"""

from __future__ import annotations

from ssepool.config import HubConfig, PoolConfig, ServerConfig
from ssepool.core.decoder import Decoder, Message
from ssepool.core.event import Event
from ssepool.core.pool import Pool
from ssepool.core.stats import PoolStats
from ssepool.errors import (
    BrokerError,
    ConfigError,
    ConnectionReleased,
    EventTooLarge,
    InvalidEvent,
    InvalidTopic,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    SSEPoolError,
)
from ssepool.http.app import Hub
from ssepool.runtime.connection import Connection
from ssepool.runtime.stats import HubStats

__version__ = "0.1.0"

__all__ = [
    "BrokerError",
    "ConfigError",
    "Connection",
    "ConnectionReleased",
    "Decoder",
    "Event",
    "EventTooLarge",
    "Hub",
    "HubConfig",
    "HubStats",
    "InvalidEvent",
    "InvalidTopic",
    "Message",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "SSEPoolError",
    "ServerConfig",
]
