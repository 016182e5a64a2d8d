"""Ours as a plain ASGI application, for uvicorn with its own protocol: no socket is taken over."""

from __future__ import annotations

import os

from ssepool import Hub, HubConfig, PoolConfig

SIZE = int(os.environ["BENCH_SIZE"])
app = Hub(HubConfig(detach=False, pool=PoolConfig(size=SIZE))).app
