"""Servers of the Django project `django_project`, and its commands, for tests of `ssepool.django`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from live import DEADLINE, TESTS, LiveServer, running, wait_for

ASGI = "django_project.asgi:application"
SERVERS = ("detached", "plain", "hypercorn", "daphne", "runserver")
"""uvicorn with sockets handed over and without, two other servers, and the one to develop with."""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def sqlite(file: Path) -> dict[str, Any]:
    """The settings of a database in a file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": {"timeout": DEADLINE}}


def environment(database: dict[str, Any], **ssepool: Any) -> dict[str, str]:
    """What the project's settings look at. `ssepool` is `SSEPOOL`."""
    return {"DATABASE": json.dumps(database), "SSEPOOL": json.dumps(ssepool)}


def run(module: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A module of the project, run to its end."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", f"django_project.{module}", *arguments],
        env={**os.environ, **env, "PYTHONPATH": path},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def prepared(database: dict[str, Any]) -> dict[str, Any]:
    """The database, with its tables and the users Ann and Ben."""
    done = run("prepare", env=environment(database))
    assert done.returncode == 0, done.stderr
    return database


@contextlib.contextmanager
def serve_site(server: str, database: dict[str, Any], app: str = ASGI, **ssepool: Any) -> Iterator[LiveServer]:
    """The project behind one of `SERVERS`, or `wsgi`: runserver without ASGI."""
    port = str(free_port())
    commands = {
        "detached": ["uvicorn", "--port", port, "--http", "ssepool.uvicorn:Protocol", app],
        "plain": ["uvicorn", "--port", port, "--http", "httptools", app],
        "hypercorn": ["hypercorn", "--workers", "0", "--bind", f"127.0.0.1:{port}", app],
        "daphne": ["daphne", "-b", "127.0.0.1", "-p", port, app],
        "runserver": ["django_project.manage", "runserver", "--noreload", port],
        "wsgi": ["django_project.manage", "runserver", "--noreload", port],
    }
    env = environment(database, **ssepool) | ({"WITH_DAPHNE": "1"} if server == "runserver" else {})
    ready = r"([Rr]unning on http|Listening on TCP address|Quit the server)"
    with running([sys.executable, "-m", *commands[server]], ready, env) as live:
        live.url, live.port = f"http://127.0.0.1:{port}", int(port)
        wait_for(lambda: _listens(int(port)), what="a server that listens")
        yield live


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody has now: Django's own server does not say which one the system chose."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def log_in(server: LiveServer, user: str) -> dict[str, str]:
    """The header that says who it is from then on."""
    form = urlencode({"user": user, "password": {"ann": "red", "ben": "blue"}[user]}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + "/login", form, FORM), timeout=DEADLINE) as answer:
        cookies = [value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie")]
    return {"Cookie": "; ".join(cookies)}
