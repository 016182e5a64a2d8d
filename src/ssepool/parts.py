"""Parts: everything that a hub is made of, put together in one place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from ssepool.config import PATTERN_PREFIX, AccessConfig, HubConfig
from ssepool.core.keys import message_key
from ssepool.core.rights import Right, Rights
from ssepool.errors import ConfigError, InvalidGrant
from ssepool.http.access.application import Application
from ssepool.http.access.authorize import Authorize, AuthorizeFunction
from ssepool.http.access.authorize_url import AuthorizeURL
from ssepool.http.access.door import Door, Source
from ssepool.http.access.ticket import Ticketed
from ssepool.http.budget import Budget
from ssepool.http.hosts import Hosts
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
    budget: Budget
    """What the request bodies under way may hold of the memory."""
    door: Door | None
    """Who may do what; None if nothing says so."""
    authorize_url: AuthorizeURL | None
    """What asks another application about that; None without the setting."""

    @classmethod
    def of(cls, config: HubConfig, authorize: AuthorizeFunction | None = None) -> Self:
        """Put the parts together. Raises `ConfigError` for a broker that is not known, and for settings of access that
        cannot be obeyed."""
        engine = Engine(config)
        cluster = Cluster(
            engine.node,
            None if engine.log.complete else engine.log.broker,
            engine.tasks,
            Seal(message_key(config), now=engine.now),
            broker_timeout=config.broker_timeout,
            now=engine.now,
        )
        nodes, hosts = Nodes(engine, cluster), Hosts(config.access.allowed_hosts)
        asks = _authorize_url(config, engine, hosts)
        return cls(
            engine,
            Runs(engine),
            cluster,
            nodes,
            hosts,
            Budget(max_body=config.max_body),
            _door(config.access, authorize, asks, nodes),
            asks,
        )


def _door(
    config: AccessConfig, authorize: AuthorizeFunction | None, asks: AuthorizeURL | None, nodes: Nodes
) -> Door | None:
    """The door of the application for the world; None if there is nothing by which it could let anybody pass."""
    sources: list[Source] = [Ticketed(nodes.use)]
    if authorize is not None:
        sources.append(Authorize(authorize))
    if asks is not None:
        sources.append(asks)
    if len(sources) == 1 and not config.public_topics:
        return None
    return Door(sources, _public(config), wall_clock=time.time)


def _authorize_url(config: HubConfig, engine: Engine, hosts: Hosts) -> AuthorizeURL | None:
    access = config.access
    if access.authorize_url is None:
        return None
    return AuthorizeURL(
        Application(access.authorize_url),
        timeout=access.authorize_timeout,
        now=engine.now,
        wall_clock=time.time,
        public=_public(access),
        trusted=config.allow_origins,
        is_own_name=hosts.lists,
    )


def _public(config: AccessConfig) -> Rights:
    try:
        return Rights(*(_entry(topic) for topic in config.public_topics))
    except InvalidGrant as error:
        raise ConfigError(f"AccessConfig.public_topics = {config.public_topics!r} is not allowed: {error}") from error


def _entry(topic: str) -> Right:
    if topic.startswith(PATTERN_PREFIX):
        return Right(topic.removeprefix(PATTERN_PREFIX), "urlpattern")
    return Right(topic)
