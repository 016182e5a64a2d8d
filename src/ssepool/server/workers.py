"""Workers: several processes that serve one port, each with its share of the pool, over a broker that they share."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from ssepool.config import HubConfig, PoolConfig, ServerConfig
from ssepool.errors import ConfigError
from ssepool.hub import Hub
from ssepool.runtime.cluster.nodes import share
from ssepool.server.address import check_address, close, listen, release, url_of
from ssepool.server.administration import check_administration, listen_for_operators
from ssepool.server.defaults import with_limits
from ssepool.server.server import Server, surface
from ssepool.server.supervisor import Supervisor, Worker

Work = Callable[[Worker, HubConfig, ServerConfig], None]
"""What a worker's process runs: a function of a module, that ends by calling `work`."""


def supervise(
    hub_config: HubConfig, server_config: ServerConfig, *, work: Work, on_started: Callable[..., None]
) -> int:
    """Run the workers until SIGTERM or SIGINT, and return the exit code.

    `on_started` is called with the URL, and those of administration behind it, once all take connections. Raises
    `ConfigError` for settings that will not do.
    """
    check(hub_config, server_config)
    check_address(server_config, dev=server_config.dev)
    hub = Hub(hub_config)  # so that what each worker would find wrong is said once
    surface(hub, server_config)
    check_administration(hub, server_config)
    with contextlib.ExitStack() as stack:
        listener = listen(server_config, hub_config.pool.ack_timeout)
        stack.callback(release, server_config, listener)
        admin = listen_for_operators(server_config, listener, hub_config)
        for each in admin:
            stack.callback(close, each, url_of(each))
        urls = [url_of(each) for each in (listener, *admin)]
        return Supervisor(
            work,
            (hub_config, server_config),
            listener,
            count=server_config.workers,
            shutdown_timeout=server_config.shutdown_timeout,
            on_started=lambda: on_started(*urls),
            admin=tuple(admin),
        ).run()


def check(hub_config: HubConfig, server_config: ServerConfig) -> None:
    """Raise `ConfigError` for settings that will not do with several workers."""
    workers, size = server_config.workers, hub_config.pool.size
    if hub_config.broker.partition(":")[0] == "memory":
        raise ConfigError(
            f"workers = {workers} is not allowed with the broker memory://, which each process has for itself; use one "
            "that they share, such as --broker sqlite:///events.db"
        )
    if size < workers:
        raise ConfigError(f"PoolConfig.size = {size} is not allowed with {workers} workers: each takes a slot")


def work(worker: Worker, hub_config: HubConfig, server_config: ServerConfig) -> None:
    """The life of a worker's process."""
    share = dataclasses.replace(hub_config, pool=pool_of(worker, hub_config.pool))
    hub = Hub(with_limits(share, server_config))
    engine, cluster = hub.parts.engine, hub.parts.cluster
    cluster.work_as(worker.index, worker.group)

    async def tell_ready() -> None:
        # A client that knows where the hub is may ask any worker for a connection of any other.
        await cluster.meet(worker.count)
        worker.ready.send(True)
        worker.ready.close()

    def started(*urls: str) -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        # Without its supervisor nobody would replace it, or end it.
        asyncio.get_running_loop().add_reader(parent.sentinel, os.kill, os.getpid(), signal.SIGTERM)
        engine.tasks.start(tell_ready())

    app = surface(hub, server_config)
    shared: dict[str, Any] = {"listener": worker.listener, "admin": worker.admin, "balance": worker.balance}
    Server(hub, app, server_config, on_started=started, administered=True, **shared).run()


def pool_of(worker: Worker, pool: PoolConfig) -> PoolConfig:
    """A worker's share of the pool."""
    return dataclasses.replace(
        pool,
        size=share(pool.size, worker.index, worker.count),
        max_waiting=share(pool.max_waiting, worker.index, worker.count),
    )
