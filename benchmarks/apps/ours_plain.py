"""Ours as a plain ASGI application, for uvicorn with its own protocol: no socket is taken over."""

from __future__ import annotations

import os

from ssepool import Hub, HubConfig, PoolConfig

SIZE = int(os.environ["BENCH_SIZE"])
hub = Hub(HubConfig(detach=False, pool=PoolConfig(size=SIZE)))
app = hub.dev_app if hasattr(hub, "dev_app") else hub.app  # which was open to everybody in earlier revisions
