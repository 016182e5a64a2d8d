"""PostgreSQL, as a cluster of its own in a directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from services import Service, installed

USER = "ssepool"
PASSWORD = "s3cret-Wort"


class Postgres(Service):
    """One server with a database and an ordinary user who owns it. As root it runs as the user `postgres`, since the
    server refuses root, outside that directory, which perhaps only its owner may enter."""

    tools = ("postgres", "initdb")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.user = "postgres" if os.geteuid() == 0 else None
        self.cluster = Path(tempfile.mkdtemp(prefix="ssepool-postgres-"))
        weakref.finalize(self, shutil.rmtree, self.cluster, ignore_errors=True)

    def command(self) -> Sequence[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 100,
            "log_min_messages": "fatal",
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        return [installed("postgres"), "-D", str(self.cluster), *flags]

    def url(self, name: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{USER}?name={name}"

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def start(self) -> None:
        fresh = not any(self.cluster.iterdir())
        if fresh:
            self._make_cluster()
        super().start()
        if fresh:
            self.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
            self.execute(f"CREATE DATABASE {USER} OWNER {USER}")

    def save(self) -> Path:
        """A copy of all its files, while it is stopped."""
        copy = self.cluster.with_name(f"{self.cluster.name}-saved")
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", self.cluster, copy], check=True)
        weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
        return copy

    def restore(self, copy: Path) -> None:
        """Go back to such a copy, while it is stopped."""
        shutil.rmtree(self.cluster)
        subprocess.run(["cp", "-a", copy, self.cluster], check=True)

    def backup(self) -> Path:
        """A copy of all its files, made while it runs."""
        copy = Path(tempfile.mkdtemp(prefix="ssepool-postgres-"))
        weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
        self._copy_to(copy)
        return copy

    def standby(self, directory: Path) -> Postgres:
        """Another server, which follows this one. It is not started yet."""
        other = Postgres(directory)
        self._copy_to(other.cluster, "--write-recovery-conf")
        return other

    def _copy_to(self, directory: Path, *flags: str) -> None:
        if self.user is not None:
            shutil.chown(directory, self.user)
        subprocess.run(
            [
                *(installed("pg_basebackup"), "-D", directory, "--checkpoint=fast", "--no-sync", *flags),
                *("-d", f"host=127.0.0.1 port={self.port} user=postgres password={PASSWORD}"),
            ],
            user=self.user,
            cwd=directory,
            check=True,
        )

    def lose_data(self) -> None:
        self.execute(f"DROP OWNED BY {USER}", database=USER)

    def execute(self, statement: str, *values: Any, database: str = "postgres") -> list[Any]:
        """As the superuser; returns the rows."""
        connection: psycopg.Connection[Any] = psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            connect_timeout=2,
        )
        with contextlib.closing(connection):
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def processes(self) -> list[int]:
        """The server's, its first one first: each connection has one, in a process group of its own."""
        assert self.process is not None
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [[int(number) for number in line.split()] for line in table.splitlines()]
        return [self.process.pid, *(pid for pid, parent in pairs if parent == self.process.pid)]

    def stop(self) -> None:
        self._end(signal.SIGINT)  # at SIGTERM it waits for its clients to leave

    def _signal(self, number: int) -> None:
        if number == signal.SIGINT:
            super()._signal(number)
            return
        first, *others = self.processes()
        os.kill(first, number)  # and then it starts no others
        for pid in {*others, *self.processes()[1:]}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _make_cluster(self) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.cluster.parent, suffix=".password") as password:
            password.write(PASSWORD)
            password.flush()
            if self.user is not None:
                for path in (self.cluster, Path(password.name)):
                    shutil.chown(path, self.user)
            flags = ["-U", "postgres", "--pwfile", password.name, "--auth=scram-sha-256", "--encoding=UTF8"]
            subprocess.run(
                [installed("initdb"), "-D", self.cluster, *flags, "--locale=C", "--no-sync"],
                user=self.user,
                cwd=self.cluster,
                check=True,
                stdout=subprocess.DEVNULL,
            )
