"""Our stand-alone server with a watchdog inside: how long its event loop was held while it served, said when it ends.

`python benchmarks/apps/watched.py 8000`, load on port 8000, then Ctrl-C or SIGTERM. Each line is one of the longest
stalls: when it ended, the time that passed, and how much of it the process was on a core. The rest of it the core was
somebody else's.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import signal
import sys
from time import perf_counter, thread_time

from ssepool import Hub, HubConfig, PoolConfig, ServerConfig
from ssepool.core.states import PoolState
from ssepool.server.server import Server

INTERVAL_SECONDS = 0.001
"""Seconds between two looks: what is shorter is not seen."""
SHOWN_STALLS = 10
"""How many of the longest stalls are printed."""

stalls: list[tuple[float, float, float]] = []
began = perf_counter()


def watch(due: float, cpu: float) -> None:
    if hub.parts.engine.pool.state is not PoolState.OPEN:
        return  # it sends all clients away and ends, and holds the loop for that as long as it takes
    now, used = perf_counter(), thread_time()
    heapq.heappush(stalls, (now - due, used - cpu, now - began))
    if len(stalls) > SHOWN_STALLS:
        heapq.heappop(stalls)
    asyncio.get_running_loop().call_later(INTERVAL_SECONDS, watch, now + INTERVAL_SECONDS, used)


hub = Hub(HubConfig(pool=PoolConfig(size=int(os.environ.get("BENCH_SIZE", 10_000)))))
server = Server(
    hub,
    hub.dev_app if hasattr(hub, "dev_app") else hub.app,  # as in ours_plain
    ServerConfig(port=int(sys.argv[1]), backlog=4096, log_level="warning"),
    on_started=lambda _: watch(perf_counter(), thread_time()),
)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it once more when it has ended
try:
    server.run()
finally:
    # The first line is what the benchmarks read.
    for passed, used, at in sorted(stalls, reverse=True):
        print(f"at {at:5.1f} s: {1000 * passed:6.1f} ms, of which {1000 * used:6.1f} ms on a core", flush=True)
