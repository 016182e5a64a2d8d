"""The process behind `attacks/test_doors.py`: `door_hub.py WAY SURFACE KIND FOLDER`, a hub whose `authorize` function
grants what the header `X-Grant` names. Prints `ready URL`.

`WAY` is one of `WAYS`, `SURFACE` `world` or `admin`, `KIND` that of the function: `def` or `async def`. In `FOLDER` is
the Unix socket `numbers`, which tells the hub's numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import sys
import threading
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.routing import Mount

import live_hub
from ssepool import Asking, Grant, Hub, HubConfig, PoolConfig, ServerConfig
from ssepool.core.grant import ANYBODY, AdminPart
from ssepool.server import workers
from ssepool.server.server import Server

WAYS = ("listener", "plain", "uvicorn", "hypercorn", "mounted", "workers")
PREFIX = "/sse"
"""Where `mounted` has the surface."""
PARTS = frozenset(get_args(AdminPart))

GRANTED: dict[str, frozenset[str]] = {
    "nothing": frozenset(),
    "subscribe": frozenset({"subscribe"}),
    "publish": frozenset({"publish"}),
    "publish publicly": frozenset({"publish", "public"}),
    "another topic": frozenset({"another topic"}),
    "all topics": frozenset({"subscribe", "publish", "*"}),
    **{part: frozenset({part}) for part in PARTS},
    **{f"all but {part}": frozenset({"subscribe", "publish", *PARTS} - {part}) for part in PARTS},
}
"""What the grant of each name grants."""
VOID = ("expired", "revoked")
"""Names of grants of everything that do not count any more."""


def grant_of(name: str) -> Grant | None:
    if name in VOID:
        admin: Any = PARTS
        return Grant(
            subject="u1",
            subscribe=["*"],
            publish=["*"],
            admin=admin,
            expires_at=1 if name == "expired" else None,
            token_id=name,
        )
    if name not in GRANTED:
        return None
    words = GRANTED[name]
    topics = ["*"] if "*" in words else ["other"] if "another topic" in words else ["news"]
    own = words | ({"subscribe", "publish"} if "another topic" in words else set())
    return Grant(
        subject="u1",
        subscribe=topics if "subscribe" in own else [],
        publish=topics if "publish" in own else [],
        publish_parts=["public"] if "public" in words else [],
        admin=words & PARTS,  # type: ignore[arg-type]
    )


def at_once(asking: Asking) -> Grant | None:
    if asking.ip != "127.0.0.1":
        return ANYBODY  # a function may go by the address alone, so each way in has to tell it
    return grant_of(asking.headers.get("x-grant", ""))


async def in_time(asking: Asking) -> Grant | None:
    await asyncio.sleep(0)
    return at_once(asking)


FUNCTIONS = {"def": at_once, "async def": in_time}


def build(kind: str, config: HubConfig) -> Hub:
    hub = Hub(config, authorize=FUNCTIONS[kind])
    assert hub.parts.door is not None
    hub.parts.door._revoked = lambda grant: grant.token_id == "revoked"
    return hub


def surface_of(surface: str, hub: Hub, config: ServerConfig | None = None) -> Any:
    return hub.app if surface == "world" else hub.admin_app


def main(way: str, surface: str, kind: str, folder: str) -> None:
    if way == "workers":
        supervise(surface, kind, f"sqlite:///{folder}/events.db")
        return
    hub = build(kind, HubConfig(pool=PoolConfig(size=8), detach=way != "plain"))
    app = surface_of(surface, hub)
    tell_numbers(hub, f"{folder}/numbers")
    if way in ("listener", "plain"):
        Server(hub, app, ServerConfig(port=0, admin=("none",)), on_started=live_hub.ready).run()
        return
    if way == "mounted":
        app = Starlette(routes=[Mount(PREFIX, app)], lifespan=hub.lifespan)
    if way == "hypercorn":
        asyncio.run(live_hub.hypercorn(hub, app, 0))
    else:
        live_hub.Uvicorn(app, 0).run()


def supervise(surface: str, kind: str, broker: str) -> None:
    hub_config = HubConfig(pool=PoolConfig(size=8), broker=broker)
    server_config = ServerConfig(port=0, workers=2, admin=("none",))
    work = functools.partial(work_as, surface, kind)
    _patch(surface, kind)
    workers.supervise(hub_config, server_config, work=work, on_started=live_hub.ready)


def work_as(surface: str, kind: str, *args: Any) -> None:
    _patch(surface, kind)
    workers.work(*args)


def _patch(surface: str, kind: str) -> None:
    # What no setting of the stand-alone server gives it.
    workers.Hub = functools.partial(build, kind)  # type: ignore[misc, assignment]
    workers.surface = functools.partial(surface_of, surface)


def tell_numbers(hub: Hub, path: str) -> None:
    """Give each connection to `path` the hub's numbers as JSON, without asking the hub's own surface."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def tell() -> None:
        while True:
            client, _ = listener.accept()
            stats = hub.stats()
            numbers = {"published": stats.events_published, "requests": stats.pool.requests, "feeds": stats.feeds}
            with client:
                client.sendall(json.dumps(numbers).encode())

    threading.Thread(target=tell, daemon=True).start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
