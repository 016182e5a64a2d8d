"""What is shown of a broker's URL."""

from __future__ import annotations

import pytest

from ssepool.urls import password_of, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("sqlite:////var/lib/a@b:c.db", "sqlite:////var/lib/a@b:c.db"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user@host:6379/0", "redis://user@host:6379/0"),
        ("redis://user:hunter2@host:6379/0?name=shop", "redis://user:***@host:6379/0?name=shop"),
        ("redis://:hunter2@host", "redis://:***@host"),
        # Without the slashes, or one of them.
        ("redis:user:hunter2@host", "redis:user:***@host"),
        ("redis:/user:hunter2@host", "redis:/user:***@host"),
        ("redis:hunter2@host", "redis:***@host"),
        ("user:hunter2@host", "user:***@host"),
        # Written without the escapes that a URL wants.
        ("redis://:hun/ter2@host", "redis://:***@host"),
        ("postgresql://user:hun@ter#2?@host/db", "postgresql://user:***@host/db"),
        (
            "postgresql://host/db?user=u&password=hunter2&name=shop",
            "postgresql://host/db?user=u&password=***&name=shop",
        ),
        ("nats://a:hunter2@one:4222,b:hunter2@two:4222", "nats://a:***@two:4222"),
        ("nats://hunter2@host:4222", "nats://***@host:4222"),  # a token
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert "hunter2" not in without_password(url)


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("memory://", ""),
        ("sqlite:////var/lib/a@b:c.db", ""),
        ("redis://user@host:6379/0", ""),
        ("redis://user:hunter2@host:6379/0?name=shop", "hunter2"),
        ("redis://:hunter%32@host", "hunter2"),
        ("nats://ann:hunter2@one,two", "hunter2"),
        ("tls://hunter2@host", "hunter2"),
        ("redis://[x", ""),
    ],
)
def test_the_password_of_a_url_is_found(url: str, password: str) -> None:
    assert password_of(url) == password
