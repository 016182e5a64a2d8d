"""server/systemd.py: socket activation and `Type=notify`, as systemd does it, without systemd."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import DEADLINE, Stream, wait_for
from ssepool.config import ServerConfig
from ssepool.errors import ConfigError
from ssepool.server import systemd
from ssepool.server.address import listen, release

ACTIVATED = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" -m ssepool serve --dev "$@"'


class Service:
    """What systemd keeps of a service: the socket that it listens on, and the one on which it is told."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self.listener = listener
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}" if listener.family == socket.AF_INET else ""
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.settimeout(DEADLINE)
        self._told.bind(str(folder / "notify"))
        self._env = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        fd = self.listener.fileno()

        def pass_as_three() -> None:
            os.dup2(fd, systemd.FIRST_FD)
            os.set_inheritable(systemd.FIRST_FD, True)

        return subprocess.Popen(
            ["bash", "-c", ACTIVATED, sys.executable, "--admin", "none", *flags],
            preexec_fn=pass_as_three,
            close_fds=False,
            env=self._env,
            stdout=subprocess.DEVNULL,
        )

    def told(self) -> str:
        return self._told.recv(4096).decode()

    def close(self) -> None:
        self._told.close()
        self.listener.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with contextlib.closing(Service(tmp_path, socket.create_server(("127.0.0.1", 0), backlog=256))) as service:
        yield service


def ended(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(DEADLINE)
    finally:
        process.kill()


@pytest.mark.parametrize("flags", [(), ("--no-detach",), ("--workers", "2", "--broker", "sqlite:///{}/events.db")])
def test_a_restart_refuses_no_connection(service: Service, tmp_path: Path, flags: tuple[str, ...]) -> None:
    given = [flag.format(tmp_path) for flag in flags]
    failed: list[Exception] = []
    asked = 0
    over = threading.Event()

    def keep_coming() -> None:
        nonlocal asked
        while not over.is_set():
            try:
                with contextlib.closing(Stream(service.url, "a")) as stream:
                    wait_for(lambda s=stream: s.status or s.read() or s.ended, what="an answer")  # type: ignore[misc]
                asked += 1
            except Exception as error:
                failed.append(error)
                return

    process = service.start(*given)
    try:
        assert service.told().splitlines()[0] == "READY=1"
        visitor = threading.Thread(target=keep_coming)
        visitor.start()
        try:
            wait_for(lambda: asked > 5 or failed, what="visitors")
            assert ended(process) in (0, -signal.SIGTERM)
            assert service.told() == "STOPPING=1"
            before = asked
            process = service.start(*given)
            assert service.told().splitlines()[0] == "READY=1"
            wait_for(lambda: asked > before + 5 or failed, what="visitors after the restart")
        finally:
            over.set()
            visitor.join(DEADLINE)
        assert not failed
    finally:
        ended(process)


def test_a_unix_socket_of_another_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with contextlib.closing(Service(tmp_path, listener)) as service:
        process = service.start()
        assert service.told() == f"READY=1\nSTATUS=serving on unix:{path}"
        assert ended(process) in (0, -signal.SIGTERM)
        assert path.is_socket()


def test_an_inherited_descriptor_is_listened_on_and_left_open_for_others(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(path)
        mine.listen()
        config = ServerConfig(fd=os.dup(mine.fileno()))
        taken = listen(config, 1.0)
        assert not taken.getblocking() and not taken.get_inheritable()
        release(config, taken)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        assert select.select([mine], [], [], DEADLINE)[0]


def test_what_is_no_listening_socket_is_an_error_that_names_it() -> None:
    with socket.socket() as idle, open(os.devnull) as file:
        with pytest.raises(ConfigError, match=f"descriptor {idle.fileno()} is a socket that does not listen"):
            listen(ServerConfig(fd=idle.fileno()), 1.0)
        with pytest.raises(ConfigError, match=f"descriptor {file.fileno()} is no socket to listen on: "):
            listen(ServerConfig(fd=file.fileno()), 1.0)
        assert idle.fileno() >= 0 and os.fstat(idle.fileno())
    with pytest.raises(ConfigError, match=r"fd = 3 and uds = 'x' are two places to listen; it takes one"):
        ServerConfig(fd=3, uds="x")


def test_what_is_open_to_everybody_is_served_on_loopback_alone() -> None:
    with socket.create_server(("0.0.0.0", 0)) as wide:
        with pytest.raises(ConfigError, match=r"host '0\.0\.0\.0' is not a loopback address"):
            listen(ServerConfig(fd=wide.fileno(), dev=True), 1.0)
        listen(ServerConfig(fd=os.dup(wide.fileno())), 1.0).close()


def test_sockets_for_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert systemd.inherited() is None
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert systemd.inherited() is None
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert systemd.inherited() == systemd.FIRST_FD
    monkeypatch.setenv("LISTEN_FDS", "2")
    with pytest.raises(ConfigError, match="systemd passes 2 sockets; it takes one"):
        systemd.inherited()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_it_is_told_on_an_abstract_socket_and_nowhere_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    systemd.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"\0ssepool-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@ssepool-test-{os.getpid()}")
        systemd.notify("READY=1")
        told.settimeout(DEADLINE)
        assert told.recv(100) == b"READY=1"
    systemd.notify("READY=1")  # nobody is there any more
