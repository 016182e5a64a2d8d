"""The process behind `live.serve`: `live_hub.py PATH PORT SETTINGS-AS-JSON`. Prints `ready URL` when it serves.

With the setting `app` the hub is part of the application of `live_app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from typing import Any

import uvicorn

import live_app
from parts import public_app
from ssepool import AccessConfig, Hub, HubConfig, PoolConfig, ServerConfig
from ssepool.config import settings
from ssepool.server.server import Server


def main(path: str, port: int, values: dict[str, Any]) -> None:
    with_app = values.pop("app", False)
    sections: dict[str, dict[str, Any]] = {"pool": {}, "access": {}, "hub": {}, "server": {}}
    known = {item.name: item.section for item in settings()}
    for name, value in values.items():
        sections[known[name]][name] = value
    if path not in ("detached", "uvicorn"):
        sections["hub"]["detach"] = False
    pool, access = PoolConfig(**sections["pool"]), AccessConfig(**sections["access"])
    hub = Hub(HubConfig(pool=pool, access=access, **sections["hub"]))
    app: Any = live_app.build(hub) if with_app else public_app(hub)
    if path == "hypercorn":
        asyncio.run(hypercorn(hub, app, port))
    elif path.startswith("uvicorn"):
        Uvicorn(app, port, **sections["server"]).run()
    else:
        Server(hub, app, ServerConfig(port=port, **sections["server"]), on_started=ready).run()


class Uvicorn(uvicorn.Server):
    """What `uvicorn --http ssepool.uvicorn:Protocol app:app` runs, but for `ready`."""

    def __init__(self, app: Any, port: int, host: str = "127.0.0.1") -> None:
        super().__init__(uvicorn.Config(app, host=host, port=port, http="ssepool.uvicorn:Protocol"))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        [listener, *_] = self.servers[0].sockets
        ready(f"http://127.0.0.1:{listener.getsockname()[1]}")


async def hypercorn(hub: Hub, app: Any, port: int) -> None:
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
