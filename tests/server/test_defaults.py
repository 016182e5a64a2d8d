"""Defaults: which limits one address has where others reach the hub, and who may change them."""

from __future__ import annotations

from typing import Any

import pytest

from ssepool.config import HubConfig, PoolConfig, ServerConfig
from ssepool.server.defaults import MIN_PER_IP, RATES, with_limits

OPEN = ServerConfig(host="0.0.0.0")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_nothing_is_limited_on_loopback(host: str) -> None:
    config = HubConfig()
    assert with_limits(config, ServerConfig(host=host)) is config


@pytest.mark.parametrize(
    ("pool", "per_ip", "waiting"),
    [
        ({}, 50, 100),
        ({"size": 10_000, "max_waiting": 55}, 500, 5),
        ({"size": 100, "max_waiting": 9}, MIN_PER_IP, 1),
        ({"size": 1, "max_waiting": 0}, MIN_PER_IP, 1),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "events.example.com"])
def test_one_address_gets_a_share_where_others_reach_the_hub(
    host: str, pool: dict[str, Any], per_ip: int, waiting: int
) -> None:
    found = with_limits(HubConfig(pool=PoolConfig(**pool)), ServerConfig(host=host))
    assert (found.pool.max_per_ip, found.pool.max_waiting_per_ip) == (per_ip, waiting)
    assert {name: getattr(found, name) for name in RATES} == RATES
    assert (found.pool.max_per_user, found.pool.max_per_topic) == (None, None)


def test_what_was_set_stays_also_if_it_says_no_limit() -> None:
    given = HubConfig(
        pool=PoolConfig(max_per_ip=3, max_waiting_per_ip=0), publish_rate=7.5, subscribe_rate=0, max_body=1000
    )
    found = with_limits(given, OPEN)
    assert found.pool == given.pool
    assert (found.publish_rate, found.subscribe_rate, found.max_body) == (7.5, 0, 1000)
    assert found.failure_rate == RATES["failure_rate"]
