"""Parts: everything that a hub is made of, put together in one place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from ssepool.config import PATTERN_PREFIX, AccessConfig, HubConfig
from ssepool.core.keys import message_key
from ssepool.core.rights import Right, Rights
from ssepool.errors import ConfigError, InvalidGrant
from ssepool.http.access.authorize import Authorize, AuthorizeFunction
from ssepool.http.access.door import Door, Source
from ssepool.http.access.ring import KeyRing, sources_of
from ssepool.http.access.tokens import MAX_CACHED, Tokens
from ssepool.http.budget import Budget
from ssepool.http.hosts import Hosts
from ssepool.http.origin import Pages
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
    tokens: Tokens | None
    """What reads and issues tokens; None without keys."""

    @classmethod
    def of(cls, config: HubConfig, authorize: AuthorizeFunction | None = None) -> Self:
        """Put the parts together. Raises `ConfigError` for a broker that is not known, and for settings of access that
        cannot be obeyed."""
        engine = Engine(config)
        hosts = Hosts(config.access.allowed_hosts)
        tokens = _tokens(config)
        if tokens is not None:
            engine.awaits.append(lambda: tokens.ring.missing)
        cluster = Cluster(
            engine.node,
            None if engine.log.complete else engine.log.broker,
            engine.tasks,
            Seal(message_key(config), now=engine.now),
            broker_timeout=config.broker_timeout,
            now=engine.now,
        )
        return cls(
            engine,
            Runs(engine),
            cluster,
            Nodes(engine, cluster),
            hosts,
            Budget(max_body=config.max_body),
            _door(config, hosts, tokens, authorize),
            tokens,
        )


def _tokens(config: HubConfig) -> Tokens | None:
    access = config.access
    if not access.token_keys:
        return None
    return Tokens(
        KeyRing(sources_of(access)),
        audience=access.token_audience or "",
        max_age=access.max_token_age,
        wall_clock=time.time,
        max_cached=max(MAX_CACHED, 2 * config.pool.size),  # all clients that come back, with their old and new tokens
    )


def _door(config: HubConfig, hosts: Hosts, tokens: Tokens | None, authorize: AuthorizeFunction | None) -> Door | None:
    """The door of the application for the world; None if there is nothing by which it could let anybody pass."""
    sources: list[Source] = [tokens] if tokens is not None else []
    if authorize is not None:
        sources.append(Authorize(authorize))
    if not sources and not config.access.public_topics:
        return None
    pages = Pages(hosts, config.allow_origins, config.publish_origins)
    return Door(
        sources,
        _public(config.access),
        wall_clock=time.time,
        cookie_name=config.access.cookie_name,
        check_page=pages.check_cookies,
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
