"""The sockets of administration, and what is met at each."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from ssepool.config import AccessConfig, HubConfig, ServerConfig
from ssepool.core.grant import Grant
from ssepool.errors import ConfigError
from ssepool.http.app import Surface
from ssepool.hub import Hub
from ssepool.server.address import close, url_of
from ssepool.server.administration import (
    check_administration,
    hosts_of,
    listen_for_operators,
    operators_app,
)

HUB = HubConfig()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def listen(public: str | int = 0, **settings: Any) -> list[socket.socket]:
    """The sockets of administration of a hub that listens at a port, or at the path of a Unix socket."""
    listener = socket.socket(socket.AF_UNIX if isinstance(public, str) else socket.AF_INET)
    with listener:
        listener.bind(public if isinstance(public, str) else ("127.0.0.1", public))
        return listen_for_operators(ServerConfig(**settings), listener, HUB)


def close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        close(each, url_of(each))


def test_by_default_it_is_a_unix_socket_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        [listener] = listen(admin=("auto",))
    finally:
        os.umask(mask)
    [path] = tmp_path.iterdir()
    assert url_of(listener) == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listener.getblocking() is False
    close_all([listener])
    assert list(tmp_path.iterdir()) == []


def test_beside_a_unix_socket_it_is_named_after_the_port_that_is_set(tmp_path: Path) -> None:
    sockets = listen(str(tmp_path / "hub.sock"), port=4321)
    assert [url_of(each) for each in sockets] == [f"unix:{tmp_path}/ssepool-4321.sock"]
    close_all(sockets)


def test_there_may_be_several_or_none(tmp_path: Path) -> None:
    sockets = listen(admin=("auto", "127.0.0.1:0", f"unix:{tmp_path}/other.sock"))
    kinds = [url_of(each).partition(":")[0] for each in sockets]
    assert kinds == ["unix", "http", "unix"]
    close_all(sockets)
    assert listen(admin=("none",)) == []
    assert hosts_of(ServerConfig(admin=("auto", "admin.example:0", "[::1]:9"))) == ["admin.example", "::1"]


def test_a_system_without_unix_sockets_has_none_unless_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert listen(admin=("auto",)) == []
    with pytest.raises(ConfigError, match=r"unix:hub\.sock cannot be listened on: this system has no Unix sockets"):
        listen(admin=("unix:hub.sock",))


def test_what_was_left_over_is_replaced_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    where = {"admin": (f"unix:{tmp_path}/hub.sock",)}
    for each in listen(**where):
        each.close()  # as a server does that is killed
    sockets = listen(**where)
    with pytest.raises(ConfigError, match=r"cannot listen on the Unix socket .*hub\.sock: Address already in use"):
        listen(**where)
    close_all(sockets)


def test_where_one_cannot_be_made_the_others_do_not_stay(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen on the Unix socket"):
        listen(admin=("auto", f"unix:{tmp_path}/there/is/nothing"))
    assert list(tmp_path.iterdir()) == []


def nobody(asking: Any) -> Grant | None:
    return None


def test_at_a_port_it_takes_a_way_to_have_rights() -> None:
    config = ServerConfig(admin=("auto", "127.0.0.1:0"))
    for hub in (Hub(), Hub(HubConfig(access=AccessConfig(public_topics=("news",))))):
        with pytest.raises(ConfigError, match=r"at 127\.0\.0\.1:0 administration takes rights"):
            check_administration(hub, config)
        check_administration(hub, ServerConfig())
    check_administration(Hub(authorize=nobody), config)


async def test_a_unix_socket_is_open_to_whoever_opens_it_and_a_port_to_those_with_rights() -> None:
    hub = Hub(authorize=nobody)
    sockets = listen(admin=("auto", "127.0.0.1:0"))
    apps = [operators_app(hub, each) for each in sockets]
    close_all(sockets)
    assert [app.surface for app in apps] == [Surface.ADMIN] * 2
    assert apps[1] is hub.admin_app
    statuses = []
    async with hub:
        for app in apps:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
                statuses.append([(await http.get(path)).status_code for path in ("/pool", "/audit", "/metrics")])
    assert statuses == [[200] * 3, [401] * 3]
