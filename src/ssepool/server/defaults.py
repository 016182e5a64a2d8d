"""Defaults: the limits of one address where others than this machine reach the hub."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssepool.config import HubConfig, ServerConfig
from ssepool.server.address import is_loopback

MIN_PER_IP = 20
"""Connections that one address may have at least: many clients may share it."""

RATES = {"subscribe_rate": 10.0, "publish_rate": 100.0, "message_rate": 10.0, "failure_rate": 10.0}
"""What one address may do a second. It may do ten seconds' worth at once (`BURST_SECONDS` in `core/rates.py`): publish
1,000 events, a tenth of the history that is kept by default."""


def with_limits(hub: HubConfig, server: ServerConfig) -> HubConfig:
    """The settings of a hub with all limits of one address that nobody has set, unless it listens on loopback alone.

    `max_per_ip` is 5 % of the pool, and `max_waiting_per_ip` a tenth of its queue: of the size that it starts with,
    for settings do not change when the pool is resized.
    """
    return hub if is_loopback(server.host) else limited(hub)


def limited(hub: HubConfig) -> HubConfig:
    """The settings with all limits of one address that nobody has set."""
    pool = hub.pool
    shares = {"max_per_ip": max(MIN_PER_IP, pool.size // 20), "max_waiting_per_ip": max(1, pool.max_waiting // 10)}
    return dataclasses.replace(hub, pool=dataclasses.replace(pool, **_unset(pool, shares)), **_unset(hub, RATES))


def limits_of(hub: HubConfig) -> dict[str, float | None]:
    """All limits of one address, by the names of the settings; None and 0 are none."""
    shares = {name: getattr(hub.pool, name) for name in ("max_per_ip", "max_waiting_per_ip")}
    return {**shares, **{name: getattr(hub, name) for name in RATES}}


def _unset(config: Any, limits: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in limits.items() if getattr(config, name) is None}
