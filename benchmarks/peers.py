"""The systems that are compared: how each is started with one worker on loopback, and stopped by its process id."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
APPS = HERE / "apps"
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NCHAN_MODULES = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so")
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log", "--backlog", "4096")
START_SECONDS = 20.0
STOP_SECONDS = 15.0
CALM_SECONDS = 1.0
"""From the first answer until a peer has done what it does at its start, whose memory is not the connections'."""

Command = Callable[[int, int, Path], Sequence[str]]
"""The command line of a peer for a port, a number of subscribers and a folder of its own."""


@dataclass(frozen=True)
class Peer:
    """A system under test."""

    name: str
    command: Command | None
    """`None`: somebody else has started it."""
    missing: Callable[[], str | None]
    """What it lacks on this machine; `None` if it can run."""
    load: dict[str, Any] = field(default_factory=dict)
    """What its measurements have instead of the load tool's defaults."""
    subscribe: str = "http://127.0.0.1:{port}/events?topic=bench-{{i}}"
    publish: str = "http://127.0.0.1:{port}/events"
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Running:
    """A peer that answers."""

    subscribe: str
    publish: str
    pids: tuple[int, ...]


@contextlib.contextmanager
def started(peer: Peer, subscribers: int) -> Iterator[Running]:
    """Start a peer in a temporary folder, and stop it again."""
    if peer.command is None:
        yield Running(peer.subscribe, peer.publish, peer.pids)
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # workers may run as somebody else
        with (folder / "output").open("wb") as output, _on_the_first_core():
            process = subprocess.Popen(
                peer.command(port, subscribers, folder),
                cwd=APPS,
                stdout=output,
                stderr=output,
                env={**os.environ, "PATH": PATH, "BENCH_SIZE": str(subscribers + 100)},
            )
        try:
            _wait_for(process, port, folder)
            time.sleep(CALM_SECONDS)
            yield Running(peer.subscribe.format(port=port), peer.publish.format(port=port), (process.pid,))
        finally:
            _stop(process)


@contextlib.contextmanager
def _on_the_first_core() -> Iterator[None]:
    """Processes begun within have the first core to themselves; whoever begins them has the others thereafter.

    Otherwise the scheduler puts both sides on one core now and then, and what is measured is its choice.
    """
    if sys.platform != "linux" or len(cores := _cores()) < 2:
        yield
        return
    os.sched_setaffinity(0, cores[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores[1:])


@functools.cache
def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _wait_for(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    text = (folder / "output").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not listen on port {port}: {text}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def most_files() -> int:
    """Open files that a process may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


def _ours(port: int, subscribers: int, folder: Path) -> Sequence[str]:
    size, serve = str(subscribers + 100), [sys.executable, "-m", "ssepool", "serve"]
    return [*serve, "--pool-size", size, "--port", str(port), "--backlog", "4096", "--log-level", "warning"]


def _uvicorn(app: str) -> Command:
    return lambda port, _, folder: [sys.executable, "-m", "uvicorn", app, *UVICORN, "--port", str(port)]


def _bare(port: int, subscribers: int, folder: Path) -> Sequence[str]:
    return [sys.executable, "bare_send.py", str(port)]


def _nchan(port: int, subscribers: int, folder: Path) -> Sequence[str]:
    conf = folder / "nginx.conf"
    files = min(most_files(), 100_000)
    module = next(filter(os.path.exists, NCHAN_MODULES))
    template = (APPS / "nchan.conf").read_text()
    filled = template.format(folder=folder, port=port, module=module, files=files, connections=files - 100)
    conf.write_text(filled)
    return [str(shutil.which("nginx", path=PATH)), "-p", str(folder), "-c", str(conf)]


def _better_sse(port: int, subscribers: int, folder: Path) -> Sequence[str]:
    return [str(shutil.which("node", path=PATH)), "better_sse.mjs", str(port)]


def _without_nchan() -> str | None:
    if shutil.which("nginx", path=PATH) and any(map(os.path.exists, NCHAN_MODULES)):
        return None
    return "nginx with libnginx-mod-nchan is not installed"


def _without_better_sse() -> str | None:
    if not shutil.which("node", path=PATH):
        return "node is not installed"
    return None if (HERE / "node_modules" / "better-sse").is_dir() else "better-sse is not in benchmarks/node_modules"


PEERS = (
    Peer("ours", _ours, lambda: None),
    Peer("ours, plain ASGI", _uvicorn("ours_plain:app"), lambda: None),
    Peer(
        "nchan",
        _nchan,
        _without_nchan,
        load={"body": "{data}", "headers": ("Content-Type: text/plain",)},
        subscribe="http://127.0.0.1:{port}/subscribe?topic=bench-{{i}}",
        publish="http://127.0.0.1:{port}/publish?topic=bench-{{i}}",
    ),
    Peer("bare send()", _bare, lambda: None),
    Peer("better-sse", _better_sse, _without_better_sse),
    Peer(
        "sse-starlette",
        _uvicorn("sse_starlette_app:app"),
        lambda: None if find_spec("sse_starlette") else "sse-starlette is not installed",
    ),
)


def by_url(name: str, subscribe: str, publish: str, body: str | None, pids: tuple[int, ...]) -> Peer:
    """A hub that is running already."""
    load = {"body": body} if body else {}
    return Peer(name, None, lambda: None, load=load, subscribe=subscribe, publish=publish, pids=pids)
