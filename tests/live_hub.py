"""The process behind `live.serve`: `live_hub.py PATH PORT SETTINGS-AS-JSON`. Prints `ready URL` when it serves.

With the setting `app` the hub is part of the application of `live_app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import live_app
from ssepool import Hub, HubConfig, PoolConfig, ServerConfig
from ssepool.config import settings
from ssepool.server.server import Server


def main(path: str, port: int, values: dict[str, Any]) -> None:
    with_app = values.pop("app", False)
    sections: dict[str, dict[str, Any]] = {"pool": {}, "hub": {}, "server": {}}
    known = {item.name: item.section for item in settings()}
    for name, value in values.items():
        sections[known[name]][name] = value
    if path != "detached":
        sections["hub"]["detach"] = False
    hub = Hub(HubConfig(pool=PoolConfig(**sections["pool"]), **sections["hub"]))
    app: Any = live_app.build(hub) if with_app else hub.app
    if path == "hypercorn":
        asyncio.run(hypercorn(hub, app, port))
    else:
        Server(hub, app, ServerConfig(port=port, **sections["server"]), on_started=ready).run()


async def hypercorn(hub: Hub, app: Any, port: int) -> None:
    import socket

    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = 3
    config.keep_alive_timeout = 1
    asyncio.get_running_loop().call_later(0.3, ready, f"http://127.0.0.1:{listener.getsockname()[1]}")
    await serve(app, config)


def ready(url: str) -> None:
    print("ready", url, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended
        main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
