"""The brokers that are measured: how each is started, and what it promises with the settings that it has here."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers import on_the_first_core
from services import Service, find, installed
from services.kinds import load


@dataclass(frozen=True)
class Kind:
    """A broker with certain settings."""

    name: str
    durability: str
    """What is safe once an event is published."""
    server: str | None = None
    """Its kind in `services`; without one there is no server to start."""
    library: str = ""
    options: tuple[str, ...] | None = None
    """Of the server's command line, in the place of those that the tests use."""

    def missing(self) -> str | None:
        """What it lacks on this machine; `None` if it can run."""
        if self.library and not find_spec(self.library):
            return f"the Python library {self.library} is not installed"
        if self.server is None:
            return None
        lacking = [tool for tool in load(self.server).tools if not find(tool)]
        return f"{' and '.join(lacking)} not installed" if lacking else None

    def version(self) -> str:
        """What the server calls itself."""
        if self.server is None:
            return f"SQLite {sqlite3.sqlite_version}" if self.name == "sqlite" else ""
        command = [installed(load(self.server).tools[0]), "--version"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]


MEMORY = Kind("memory", "nothing: events are in the process")
KINDS = (
    Kind("sqlite", "on disk (synchronous=FULL)"),
    Kind(
        "redis",
        "appendonly yes, appendfsync everysec: survives the process, a second may be lost with the machine",
        "redis",
        "redis",
        ("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
    ),
    Kind(
        "redis, always",
        "appendonly yes, appendfsync always: on disk",
        "redis",
        "redis",
        ("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    ),
    Kind(
        "nats",
        "JetStream's file storage, one server, sync_interval 2 min (its default): survives the process",
        "nats",
        "nats",
    ),
    Kind("postgres", "on disk (fsync and synchronous_commit on)", "postgres", "psycopg"),
)


@dataclass(frozen=True)
class Backend:
    """A broker that is there."""

    folder: Path
    """For what a scenario needs besides."""
    service: Service | None

    def url(self, name: str) -> str:
        """The broker's URL for a history of this name."""
        return self.service.url(name) if self.service else f"sqlite:///{self.database(name)}"

    def database(self, name: str) -> Path:
        """The file of an SQLite history."""
        return self.folder / f"{name}.db"

    def pids(self) -> tuple[int, ...]:
        """The server's process."""
        return (self.service.process.pid,) if self.service and self.service.process else ()


@contextmanager
def running(kind: Kind) -> Iterator[Backend]:
    """Start a broker in a temporary folder, and stop it again."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if kind.server is None:
            yield Backend(folder, None)
            return
        service = load(kind.server)(folder / "server")
        if kind.options is not None:
            service.options = kind.options  # type: ignore[attr-defined]
        with on_the_first_core():
            service.start()
        try:
            yield Backend(folder, service)
        finally:
            service.stop()
