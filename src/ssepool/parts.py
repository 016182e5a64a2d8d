"""Parts: everything that a hub is made of, put together in one place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from ssepool import clock
from ssepool.config import AccessConfig, HubConfig
from ssepool.core.data import JSONEncoder
from ssepool.core.grant import Grant
from ssepool.core.keys import message_key
from ssepool.core.rights import Right, Rights
from ssepool.core.states import PoolState
from ssepool.errors import ConfigError, InvalidGrant
from ssepool.http.access.application import Application
from ssepool.http.access.authorize import Authorize, AuthorizeFunction
from ssepool.http.access.authorize_url import AuthorizeURL
from ssepool.http.access.door import Door, Source
from ssepool.http.access.ring import KeyRing, sources_of
from ssepool.http.access.ticket import Ticketed
from ssepool.http.access.tokens import MAX_CACHED, Tokens
from ssepool.http.budget import Budget
from ssepool.http.hosts import Hosts
from ssepool.http.origin import Pages
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.nodes import Nodes
from ssepool.runtime.cluster.revoking import Revoking
from ssepool.runtime.cluster.seal import Seal
from ssepool.runtime.engine import Engine
from ssepool.runtime.runs import Runs
from ssepool.topic_rules import PATTERN_PREFIX

TOKENS_TAKE = (
    "tokens take --token-keys key.txt --token-issuers me --token-audience hub, or in code "
    'AccessConfig(token_keys=["key.txt"], token_issuers=["me"], token_audience="hub")'
)
"""The settings that tokens take, for whoever forgot one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a hub is made of, for one opening: `renewed` makes those for the next. For servers and tests; it
    may change with any version."""

    engine: Engine
    """What every way in and out shares."""
    runs: Runs
    """The generators of `Hub.stream` that have a topic."""
    cluster: Cluster
    """Who else is there, and a way to ask them."""
    nodes: Nodes
    """What can be done on every node."""
    revoking: Revoking
    """Takes grants back on every node."""
    hosts: Hosts
    """The names under which the hub may be reached."""
    budget: Budget
    """What the request bodies under way may hold of the memory."""
    door: Door | None
    """Who may do what; None if nothing says so."""
    tokens: Tokens | None
    """What reads and issues tokens; None without keys."""
    authorize_url: AuthorizeURL | None
    """What asks another application about that; None without the setting."""
    process: int
    """The process that has made them: another one must not share their names and secrets."""

    @property
    def are_fresh(self) -> bool:
        """Whether a hub may be opened with them."""
        return self.engine.pool.state is PoolState.NEW and self.process == os.getpid()

    def renewed(self, config: HubConfig, authorize: AuthorizeFunction | None = None) -> Self:
        """Parts for another opening, or another process. They keep what does not depend on those: the application's
        hooks, the names of the hub, and the keys of tokens."""
        parts = self.of(config, authorize, self.engine.encoder.json_encoder, hosts=self.hosts, tokens=self.tokens)
        parts.engine.hooks.adopt(self.engine.hooks)
        return parts

    @classmethod
    def of(
        cls,
        config: HubConfig,
        authorize: AuthorizeFunction | None = None,
        json_encoder: JSONEncoder | None = None,
        *,
        hosts: Hosts | None = None,
        tokens: Tokens | None = None,
    ) -> Self:
        """Put the parts together; `hosts` and `tokens` are made of the configuration if none are given. Raises
        `ConfigError` for a broker that is not known, and for settings of access that cannot be obeyed."""
        engine = Engine(config, json_encoder=json_encoder)
        access = config.access
        about_tokens = (access.token_keys, access.token_issuers, access.token_audience)
        if tokens is None and any(about_tokens):
            tokens = tokens_of(config)
        if tokens is not None:
            engine.missing = lambda: tokens.ring.missing
        cluster = Cluster(
            engine.node,
            None if engine.log.complete else engine.log.broker,
            engine.tasks,
            Seal(message_key(config), now=engine.now),
            broker_timeout=config.broker_timeout,
            now=engine.now,
        )
        # One hub drops for all: of those that see each other the one with the smallest name.
        engine.log.sweeper.sweeps = lambda: all(engine.node < other.node for other in cluster.others)
        nodes, hosts = Nodes(engine, cluster), hosts or Hosts(access.allowed_hosts)
        revoked = engine.revocations.covers
        pages = Pages(hosts, config.allow_origins, config.publish_origins)
        asks = _authorize_url(config, engine, pages, revoked)
        function = Authorize(authorize) if authorize is not None else None
        return cls(
            engine,
            Runs(engine),
            cluster,
            nodes,
            Revoking(engine, cluster),
            hosts,
            Budget(max_body=config.max_body),
            _door(config, pages, nodes, (tokens, function, asks), revoked),
            tokens,
            asks,
            os.getpid(),
        )


def tokens_of(config: HubConfig) -> Tokens:
    """What reads and issues tokens with these settings. Raises `ConfigError`, also if one of them is missing."""
    access = config.access
    for name in ("token_keys", "token_issuers", "token_audience"):
        if not getattr(access, name):
            raise ConfigError(f"there is no AccessConfig.{name}: {TOKENS_TAKE}")
    return Tokens(
        KeyRing(sources_of(access)),
        audience=str(access.token_audience),
        max_age=access.max_token_age,
        wall_clock=clock.wall_clock,
        max_cached=max(MAX_CACHED, 2 * config.pool.size),  # all clients that come back, with their old and new tokens
    )


def _door(
    config: HubConfig,
    pages: Pages,
    nodes: Nodes,
    given: Iterable[Source | None],
    revoked: Callable[[Grant], bool],
) -> Door | None:
    """The door of the application for the world; None if there is nothing by which it could let anybody pass."""
    sources = [source for source in given if source is not None]
    if not sources and not config.access.public_topics:
        return None
    if sources:  # a ticket stands for what another one has granted
        sources.insert(0, Ticketed(nodes.use))
    return Door(
        sources,
        public_of(config.access),
        wall_clock=clock.wall_clock,
        revoked=revoked,
        cookie_name=config.access.cookie_name,
        check_page=pages.check_cookies,
    )


def _authorize_url(
    config: HubConfig, engine: Engine, pages: Pages, revoked: Callable[[Grant], bool]
) -> AuthorizeURL | None:
    access = config.access
    if access.authorize_url is None:
        return None
    return AuthorizeURL(
        Application(access.authorize_url),
        timeout=access.authorize_timeout,
        now=engine.now,
        wall_clock=clock.wall_clock,
        public=public_of(access),
        check_page=pages.check_cookies,
        revoked=revoked,
    )


def public_of(config: AccessConfig) -> Rights:
    """What everybody may read with these settings. Raises `ConfigError`."""
    try:
        return Rights(*(_entry(topic) for topic in config.public_topics))
    except InvalidGrant as error:
        raise ConfigError(f"AccessConfig.public_topics = {config.public_topics!r} is not allowed: {error}") from error


def _entry(topic: str) -> Right:
    if topic.startswith(PATTERN_PREFIX):
        return Right(topic.removeprefix(PATTERN_PREFIX), "urlpattern")
    return Right(topic)
