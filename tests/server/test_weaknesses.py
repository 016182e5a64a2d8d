"""What `ssepool check` finds, setting by setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssepool.config import AccessConfig, HubConfig, PoolConfig, ServerConfig
from ssepool.server.weaknesses import weaknesses


def found(*, pool: Any = None, access: Any = None, server: Any = None, **hub: Any) -> list[str]:
    """The settings that are weak."""
    sections = {"pool": PoolConfig(**(pool or {})), "access": AccessConfig(**(access or {}))}
    configs = HubConfig(**sections, **hub), ServerConfig(**(server or {}))
    return [weakness.setting for weakness in weaknesses(*configs)]


def test_the_defaults_are_not_weak() -> None:
    assert found() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_is_not_weak(host: str) -> None:
    assert found(server={"host": host}) == []


LIMITS = ("max_per_ip", "max_waiting_per_ip", "subscribe_rate", "publish_rate", "message_rate", "failure_rate")
LIMITED = {"pool": dict.fromkeys(LIMITS[:2], 10), **dict.fromkeys(LIMITS[2:], 10)}

WEAK: dict[str, tuple[dict[str, Any], list[str]]] = {
    "open to others": ({"server": {"host": "0.0.0.0"}}, ["trusted_proxies"]),
    "open, without a share": (
        {"server": {"host": "::"}, "pool": {"max_per_ip": 0}, "publish_rate": 0},
        ["max_per_ip, publish_rate", "trusted_proxies"],
    ),
    "open, behind a proxy": ({"server": {"host": "10.0.0.1", "trusted_proxies": ("10.0.0.2", "127.0.0.1")}}, []),
    "behind a proxy": ({"access": {"allowed_hosts": ("events.example.com",)}}, [", ".join(LIMITS)]),
    "behind a proxy, with limits": ({"access": {"allowed_hosts": ("events.example.com",)}, **LIMITED}, []),
    "every host": ({"access": {"allowed_hosts": ("*",)}, **LIMITED}, ["allowed_hosts"]),
    "every origin": ({"allow_origins": ("*",), "publish_origins": ("*",)}, ["allow_origins", "publish_origins"]),
    "cookies in the clear": ({"access": {"authorize_url": "http://10.0.0.1/auth"}}, ["authorize_url"]),
    "cookies that stay here": ({"access": {"authorize_url": "http://localhost:5000/auth"}}, []),
    "cookies over TLS": ({"access": {"authorize_url": "https://app.example/auth"}}, []),
    "every proxy": ({"server": {"trusted_proxies": ("*",)}}, ["trusted_proxies"]),
    "regular expressions": ({"allow_regexp": True}, ["allow_regexp"]),
    "a long wait": ({"pool": {"acquire_timeout": 601}}, ["acquire_timeout"]),
    "a broker without a password": ({"broker": "redis://10.0.0.1/0"}, ["cluster_key"]),
    "a broker with a user alone": ({"broker": "postgresql://ann@host/db"}, ["cluster_key"]),
    "a broker with a password": ({"broker": "redis://:secret@10.0.0.1/0"}, []),
    "a broker with a token": ({"broker": "nats://token@10.0.0.1"}, []),
    "a broker with a key": ({"broker": "redis://10.0.0.1/0", "cluster_key": "k" * 32}, []),
    "a file": ({"broker": "sqlite:///events.db"}, []),
}


@pytest.mark.parametrize(("settings", "expected"), WEAK.values(), ids=WEAK)
def test_what_is_weak_is_found(settings: dict[str, Any], expected: list[str]) -> None:
    assert found(**settings) == expected


@pytest.mark.parametrize(("mode", "weak"), [(0o600, False), (0o640, True), (0o604, True), (0o400, False)])
def test_a_file_with_a_secret_is_for_its_user_alone(tmp_path: Path, mode: int, weak: bool) -> None:
    file = tmp_path / "ssepool.toml"
    file.touch()
    file.chmod(mode)
    with_secret = HubConfig(cluster_key="k" * 32)
    assert [item.setting for item in weaknesses(with_secret, ServerConfig(), file)] == [str(file)] * weak
    assert list(weaknesses(HubConfig(), ServerConfig(), file)) == []


def test_a_limit_that_is_missing_comes_with_a_proposal() -> None:
    [weakness] = weaknesses(
        HubConfig(access=AccessConfig(allowed_hosts=("a.example",)), pool=PoolConfig(size=10_000), failure_rate=3),
        ServerConfig(),
    )
    assert weakness.why == "one address may take all that there is of these; try 500, 100, 10, 100, 10"


def test_no_secret_is_shown() -> None:
    config = HubConfig(broker="redis://10.0.0.1/0?password=hunter2", cluster_key="")
    assert "hunter2" not in str(list(weaknesses(config, ServerConfig(host="0.0.0.0"))))
