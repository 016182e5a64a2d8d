"""Real servers that tests and benchmarks start on free ports of loopback, each in a directory of its own, and stop by
their process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 30.0
"""How long a server may take until it answers."""

# Debian has programs of PostgreSQL where no PATH leads; the newest version first.
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parts[4]))
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *map(str, _POSTGRES)])


def find(program: str) -> str | None:
    """The path of a program; `None` if it is not installed."""
    return shutil.which(program, path=PATH)


def installed(program: str) -> str:
    """The path of a program that is installed."""
    path = find(program)
    if path is None:
        raise FileNotFoundError(f"{program} is not installed")
    return path


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Server(ABC):
    """A server in a process of its own. It may be killed, suspended and restarted; data stays where it was."""

    tools: tuple[str, ...] = ()
    """The programs that it needs."""
    user: str | None = None
    """Who runs it, if not our own user."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server takes requests."""

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self.user
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError((self.directory / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.kill()
        self.start()

    def suspend(self) -> None:
        """Let it hang: the kernel still takes connections for it."""
        assert self.process is not None
        self._signal(signal.SIGSTOP)
        # Its threads stop one after the other, a little after the signal was sent, and may answer until then.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def _end(self, number: int) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.resume()
            self._signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


class Service(Server):
    """A server that keeps events for a broker."""

    @abstractmethod
    def url(self, name: str) -> str:
        """The broker's URL for a history of this name."""

    @abstractmethod
    def lose_data(self) -> None:
        """Throw away all that is kept, while the server runs."""
