"""The systems that are compared: how each is started with one worker on loopback, and stopped by its process id."""

from __future__ import annotations

import contextlib
import functools
import os
import re
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

from ssepool.bench.process import Processes

HERE = Path(__file__).parent
APPS = HERE / "apps"
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NCHAN_MODULES = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so")
PUSHPIN_PROGRAMS = ("pushpin", "pushpin-proxy", "pushpin-handler", "condure", "zurl")
PUSHPIN_INTERNAL = "/usr/lib/pushpin/internal.conf"
PUSHPIN_BODY = (
    '{"items":[{"channel":"bench-{i}","formats":{"http-stream":{"content":"id: {n}\\ndata: {data}\\n\\n"}}}]}'
)
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log", "--backlog", "4096")
START_SECONDS = 20.0
STOP_SECONDS = 15.0
CALM_SECONDS = 1.0
"""From the first answer until a peer has done what it does at its start, whose memory is not the connections'."""


@dataclass(frozen=True)
class Site:
    """What a peer is started for, and where: ports of loopback, and a folder of its own."""

    subscribers: int
    folder: Path
    port: int
    control: int
    """The port to publish on, where that is another."""
    backend: int
    """The port of the application behind it, if it has one."""


Command = Callable[[Site], Sequence[str]]
"""The command line of a peer."""


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
    backend: Command | None = None
    """An application that it asks about each subscriber; what that costs is not counted."""


@dataclass(frozen=True)
class Running:
    """A peer that answers."""

    subscribe: str
    publish: str
    pids: tuple[int, ...]
    said: list[str] = field(default_factory=list)
    """What it has printed, once it has ended."""

    @property
    def longest_stall(self) -> dict[str, float] | None:
        """Milliseconds for which its event loop was held at the longest, and for how many of them it had a core."""
        found = re.search(r": *([\d.]+) ms, of which *([\d.]+) ms on a core", "".join(self.said))
        return {"passed": float(found[1]), "on_core": float(found[2])} if found else None


@contextlib.contextmanager
def started(peer: Peer, subscribers: int) -> Iterator[Running]:
    """Start a peer in a temporary folder, and stop it again."""
    if peer.command is None:
        yield Running(peer.subscribe, peer.publish, peer.pids)
        return
    port, control, backend = _free_ports(3)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        site = Site(subscribers, Path(name), port, control, backend)
        site.folder.chmod(0o755)  # workers may run as somebody else
        if peer.backend is not None:
            _start(peer.backend(site), backend, site, stack)
        said: list[str] = []
        stack.callback(lambda: said.append(_output(port, site).read_text(errors="replace")))
        process = _start(peer.command(site), port, site, stack)
        time.sleep(CALM_SECONDS)
        places = (text.format(port=port, control=control) for text in (peer.subscribe, peer.publish))
        yield Running(*places, (process.pid,), said)


def _start(command: Sequence[str], port: int, site: Site, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    """Start a process that listens on a port, to be stopped with the stack."""
    output = _output(port, site)
    with output.open("wb") as file, on_the_first_core():
        process = subprocess.Popen(
            command,
            cwd=APPS,
            stdout=file,
            stderr=file,
            env={**os.environ, "PATH": PATH, "BENCH_SIZE": str(site.subscribers + 100)},
        )
    stack.callback(_stop, process)
    _wait_for(process, port, output)
    return process


def _output(port: int, site: Site) -> Path:
    """What the process on a port prints."""
    return site.folder / f"output-{port}"


@contextlib.contextmanager
def on_the_first_core() -> Iterator[None]:
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


def _wait_for(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    text = output.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not listen on port {port}: {text}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Have a process end, which is to end its children; where it does not in time, end all of them."""
    family = Processes((process.pid,)).pids() - {process.pid}
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def max_files() -> int:
    """Open files that a process may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


def _ours(site: Site) -> Sequence[str]:
    # By its variable, which revisions before it ignore: they were open to everybody.
    serve = ["env", "SSEPOOL_DEV=1", sys.executable, "-m", "ssepool", "serve"]
    size = str(site.subscribers + 100)
    return [*serve, "--pool-size", size, "--port", str(site.port), "--backlog", "4096", "--log-level", "warning"]


def _uvicorn(app: str) -> Command:
    return lambda site: [sys.executable, "-m", "uvicorn", app, *UVICORN, "--port", str(site.port)]


def _watched(site: Site) -> Sequence[str]:
    return [sys.executable, "watched.py", str(site.port)]


def _bare(site: Site) -> Sequence[str]:
    return [sys.executable, "bare_send.py", str(site.port)]


def _nchan(site: Site) -> Sequence[str]:
    files = min(max_files(), 100_000)
    module = next(filter(os.path.exists, NCHAN_MODULES))
    conf = _filled("nchan.conf", site, module=module, files=files, connections=files - 100)
    return [str(shutil.which("nginx", path=PATH)), "-p", str(site.folder), "-c", str(conf)]


def _better_sse(site: Site) -> Sequence[str]:
    return [str(shutil.which("node", path=PATH)), "better_sse.mjs", str(site.port)]


def _pushpin(site: Site) -> Sequence[str]:
    (site.folder / "routes").write_text(f"* 127.0.0.1:{site.backend}\n")
    conf = _filled("pushpin.conf", site, internal=PUSHPIN_INTERNAL)
    return [str(shutil.which("pushpin", path=PATH)), "--config", str(conf), "--loglevel", "1", "--merge-output"]


def _pushpin_backend(site: Site) -> Sequence[str]:
    return [sys.executable, "pushpin_backend.py", str(site.backend)]


def _filled(name: str, site: Site, **values: object) -> Path:
    """A configuration with its blanks filled in."""
    conf = site.folder / name
    template = (APPS / name).read_text()
    conf.write_text(template.format(folder=site.folder, port=site.port, control=site.control, **values))
    return conf


def _without_nchan() -> str | None:
    if shutil.which("nginx", path=PATH) and any(map(os.path.exists, NCHAN_MODULES)):
        return None
    return "nginx with libnginx-mod-nchan is not installed"


def _without_better_sse() -> str | None:
    if not shutil.which("node", path=PATH):
        return "node is not installed"
    return None if (HERE / "node_modules" / "better-sse").is_dir() else "better-sse is not in benchmarks/node_modules"


def _without_pushpin() -> str | None:
    if missing := [name for name in PUSHPIN_PROGRAMS if not shutil.which(name, path=PATH)]:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    return None if os.path.exists(PUSHPIN_INTERNAL) else f"there is no {PUSHPIN_INTERNAL}"


PEERS = (
    Peer("ours", _ours, lambda: None),
    Peer("ours, watched", _watched, lambda: None),
    Peer("ours, plain ASGI", _uvicorn("ours_plain:app"), lambda: None),
    Peer(
        "nchan",
        _nchan,
        _without_nchan,
        load={"body": "{data}", "headers": ("Content-Type: text/plain",)},
        subscribe="http://127.0.0.1:{port}/subscribe?topic=bench-{{i}}",
        publish="http://127.0.0.1:{port}/publish?topic=bench-{{i}}",
    ),
    Peer(
        "Pushpin",
        _pushpin,
        _without_pushpin,
        # Of subscribers that come faster than it can ask its backend about them, it answers most with 502.
        load={"body": PUSHPIN_BODY, "connect_rate": 400.0},
        publish="http://127.0.0.1:{control}/publish/",
        backend=_pushpin_backend,
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
