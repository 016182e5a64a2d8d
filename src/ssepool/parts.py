"""Parts: everything that a hub is made of, put together in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ssepool.config import HubConfig
from ssepool.core.keys import message_key
from ssepool.http.hosts import Hosts
from ssepool.http.shortcuts import Shortcuts
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.cluster.seal import Seal
from ssepool.runtime.engine import Engine
from ssepool.runtime.runs import Runs


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a hub is made of. For servers and tests; it may change with any version."""

    engine: Engine
    """What every way in and out shares."""
    runs: Runs
    """The generators of `Hub.stream` that have a topic."""
    cluster: Cluster
    """Who else is there, and a way to ask them."""
    nodes: Nodes
    """What can be done on every node."""
    hosts: Hosts
    """The names under which the hub may be reached."""
    shortcuts: Shortcuts
    """Plain requests that need no application."""

    @classmethod
    def of(cls, config: HubConfig) -> Self:
        """Put the parts together. Raises `ConfigError` for a broker that is not known."""
        engine = Engine(config)
        cluster = Cluster(
            engine.node,
            None if engine.log.complete else engine.log.broker,
            engine.tasks,
            Seal(message_key(config), now=engine.now),
            broker_timeout=config.broker_timeout,
            now=engine.now,
        )
        hosts = Hosts(config.allowed_hosts)
        return cls(engine, Runs(engine), cluster, Nodes(engine, cluster), hosts, Shortcuts(engine, hosts))
