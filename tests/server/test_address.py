"""The server's address: what may be served, where it listens, and with which options."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from ssepool.config import ServerConfig
from ssepool.errors import ConfigError
from ssepool.runtime.handover import MAX_UNSENT_BYTES
from ssepool.server.address import check_address, close, listen, url_of

LOOPBACK = ["127.0.0.1", "127.7.7.7", "::1", "localhost"]

REACHABLE = ["0.0.0.0", "::", "192.168.1.7", "fe80::1", "example.com", "localhost.example.com", "127.0.0.1.example.com"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_served(host: str) -> None:
    check_address(ServerConfig(host=host), dev=True)


@pytest.mark.parametrize("host", REACHABLE)
def test_what_is_open_to_everybody_is_served_on_loopback_alone(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host '{host}' is not a loopback address"):
        check_address(ServerConfig(host=host), dev=True)
    check_address(ServerConfig(host=host), dev=False)


def test_it_listens_without_blocking_and_with_the_options_that_its_clients_inherit() -> None:
    with listen(ServerConfig(port=0), 7.5) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == MAX_UNSENT_BYTES
        with pytest.raises(BlockingIOError):
            listener.accept()
        with socket.create_connection(listener.getsockname()):
            pass


def test_the_backlog_is_that_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(socket.socket, "listen", lambda self, backlog: given.append(backlog))
    listen(ServerConfig(port=0, backlog=77), 1.0).close()
    assert given == [77]


def test_a_port_that_is_in_use_is_an_error_of_one_line() -> None:
    with listen(ServerConfig(port=0), 1.0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            listen(ServerConfig(port=port), 1.0)


def refused(host: str) -> str:
    with pytest.raises(ConfigError) as caught:
        listen(ServerConfig(host=host, port=0), 1.0)
    return str(caught.value)


def test_a_name_that_nobody_knows_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert refused("nowhere") == (
        "ServerConfig.host = 'nowhere' is not an address to listen on: "
        f"[Errno {socket.EAI_NONAME}] Name or service not known"
    )


@pytest.mark.parametrize("host", ["x" * 70, "a..b", "\ud800"])
def test_what_cannot_be_a_name_is_an_error_that_names_it(host: str) -> None:
    assert f"ServerConfig.host = {host!r} is not an address to listen on: " in refused(host)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1 port 0: "):  # RFC 5737: for documentation
        listen(ServerConfig(host="192.0.2.1", port=0), 1.0)


class Listening:
    """A socket that listens at some address."""

    def __init__(self, *address: Any) -> None:
        self._address = address

    def getsockname(self) -> tuple[Any, ...]:
        return self._address


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80"),
        (("0.0.0.0", 8000), "http://0.0.0.0:8000"),
        (("::1", 8000, 0, 0), "http://[::1]:8000"),
    ],
)
def test_the_url_of_an_address(address: tuple[Any, ...], url: str) -> None:
    assert url_of(Listening(*address)) == url  # type: ignore[arg-type]


# Unix sockets.


def test_a_unix_socket_is_for_its_user_and_group_whatever_the_umask(tmp_path: Path) -> None:
    config = ServerConfig(uds=str(tmp_path / "hub.sock"), host="0.0.0.0")
    check_address(config, dev=True)  # nobody from elsewhere reaches it
    mask = os.umask(0)
    try:
        listener = listen(config, 1.0)
    finally:
        os.umask(mask)
    assert url_of(listener) == f"unix:{config.uds}"
    assert stat.S_IMODE((tmp_path / "hub.sock").stat().st_mode) == 0o660
    assert listener.getblocking() is False
    close(listener, f"unix:{config.uds}")
    assert list(tmp_path.iterdir()) == []
    close(listener, f"unix:{config.uds}")  # somebody was faster


def test_a_socket_that_was_left_over_is_replaced(tmp_path: Path) -> None:
    config = ServerConfig(uds=str(tmp_path / "hub.sock"))
    listen(config, 1.0).close()  # as a server does that is killed
    close(listen(config, 1.0), f"unix:{config.uds}")


def test_a_socket_that_somebody_listens_on_is_not_replaced(tmp_path: Path) -> None:
    config = ServerConfig(uds=str(tmp_path / "hub.sock"))
    listener = listen(config, 1.0)
    with pytest.raises(ConfigError, match=r"cannot listen on the Unix socket .*hub\.sock: Address already in use"):
        listen(config, 1.0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(config.uds)
    close(listener, f"unix:{config.uds}")


@pytest.mark.parametrize("place", ["there/is/nothing", "file", "x" * 200])
def test_where_no_socket_can_be_made_it_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match=rf"cannot listen on the Unix socket .*{place}: "):
        listen(ServerConfig(uds=str(tmp_path / place)), 1.0)
    assert (tmp_path / "file").read_text() == "precious"
