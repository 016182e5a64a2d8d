"""How servers end while streams are open: by a signal, without one, on each way in; and what is published meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from live import DEADLINE, Stream, running, serve_app, serve_command, wait_for
from ssepool import Hub, HubConfig, PoolConfig
from ssepool.runtime.siblings import LOOK_SECONDS

SECONDS = 5.0
"""What a server has to end in: on an idle machine it takes one."""
MANY = 100
Client = Callable[..., Stream]


@pytest.fixture
def client() -> Iterator[Client]:
    """`client(server, *topics)` is a `Stream` that is closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Stream(*args, **kwargs))


def reason(stream: Stream) -> str:
    [told] = stream.to_end().of_type("ssepool.close")
    return str(told["reason"])


def kept(url: str) -> list[str]:
    """What a broker has, for a hub that comes later."""

    async def read() -> list[str]:
        async with Hub(HubConfig(broker=url)) as hub:
            entries = await hub.parts.engine.log.broker.read(0, max_entries=100)
            return [line for entry in entries for line in entry.frame.decode().split("\n") if line.startswith("data:")]

    return asyncio.run(read())


# By a signal.


@pytest.mark.parametrize(("path", "number"), [("detached", signal.SIGINT), ("plain", signal.SIGTERM)])
def test_what_is_published_until_the_lifespan_ends_is_kept(
    client: Client, path: str, number: int, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with serve_app("leaving_app:app", path, broker=url) as server:
        streams = [client(server, "news").opened() for _ in range(3)]
        slow = client(server, path="/slow")
        server.said("slow has begun")
        assert server.stop(number, seconds=SECONDS) in (0, -number)
        assert [reason(stream) for stream in streams] == ["shutdown"] * 3
        assert slow.to_end().status == 200
        log = "".join(server.log)
    assert "Traceback" not in log and "cancelled" not in log, log
    assert sorted(kept(url)) == ["data: answered", *["data: left: shutdown"] * 3, "data: lifespan"]


@pytest.mark.parametrize("flags", [["--workers", "2", "--no-detach"], []], ids=["plain workers", "detached"])
def test_the_stand_alone_server_ends_in_time(client: Client, flags: list[str], tmp_path: Path) -> None:
    with serve_command("--broker", f"sqlite:///{tmp_path}/events.db", *flags) as server:
        streams = [client(server, "news").opened() for _ in range(4)]
        assert server.stop(seconds=SECONDS) in (0, -signal.SIGTERM)
        assert [reason(stream) for stream in streams] == ["shutdown"] * 4


@pytest.mark.parametrize(
    ("protocol", "number"), [("ssepool.uvicorn:Protocol", signal.SIGINT), ("httptools", signal.SIGTERM)]
)
def test_a_reloading_server_ends_in_time_with_many_streams(
    client: Client, protocol: str, number: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "uvicorn", "--port", "0", "--http", protocol]
    command += ["--reload", "--reload-dir", str(tmp_path), "leaving_app:app"]
    url = f"sqlite:///{tmp_path}/events.db"
    with running(command, r"running on (http\S*)", {"SSEPOOL_BROKER": url}) as server:
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        server.said("startup complete")
        streams = [client(server, "news").opened() for _ in range(MANY)]
        assert server.stop(number, seconds=SECONDS) in (0, -number)
        assert [reason(stream) for stream in streams] == ["shutdown"] * MANY


# Several processes.

GUNICORN = ["gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "uvicorn_worker.UvicornWorker", "--preload"]
SEVERAL = {
    "gunicorn": ([*GUNICORN, "--workers", "2"], r"Listening at: (http\S*)"),
    "uvicorn": (["uvicorn", "--port", "0", "--workers", "2"], r"running on (http\S*)"),
    "granian": (["granian", "--interface", "asgi", "--port", "0", "--workers", "2"], r"Listening at: (http\S*)"),
    "hypercorn": (["hypercorn", "--bind", "127.0.0.1:0", "--workers", "2"], r"[Rr]unning on (http\S*)"),
}


def asked(url: str) -> str:
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return str(answer.read().decode())


def identity(url: str) -> list[str]:
    return asked(f"{url}/identity").split()


def uptime(url: str) -> float:
    return float(asked(f"{url}/uptime"))


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_several_processes_share_no_secret_and_are_told_that_they_share_no_events(client: Client, kind: str) -> None:
    command, announces = SEVERAL[kind]
    with running([sys.executable, "-m", *command, "leaving_app:app"], announces) as server:
        found: dict[str, list[str]] = {}

        def both() -> bool:
            with contextlib.suppress(OSError):
                process, *names = identity(server.url)
                assert found.setdefault(process, names) == names
            return len(found) == 2

        wait_for(both)
        (node, token), (other_node, other_token) = found.values()
        assert node != other_node and token != other_token
        server.said("several processes serve")
        streams = [client(server, "news").opened() for _ in range(10)]
        server.stop(seconds=SECONDS)
        assert [reason(stream) for stream in streams] == ["shutdown"] * 10


def test_one_process_behind_a_server_of_many_is_told_nothing() -> None:
    command = [sys.executable, "-m", *GUNICORN, "--workers", "1", "leaving_app:app"]
    with running(command, r"Listening at: (http\S*)") as server:
        first = wait_for(lambda: identity(server.url))
        server.process.send_signal(signal.SIGHUP)  # a new worker begins while the old one ends

        def another_has_looked_twice() -> bool:
            with contextlib.suppress(OSError):
                return identity(server.url)[0] != first[0] and uptime(server.url) > LOOK_SECONDS[1]
            return False

        wait_for(another_has_looked_twice)
    assert not any("several processes" in line for line in server.log)


# Without one.


@contextlib.contextmanager
def in_thread(hub: Hub, app: Any, **settings: Any) -> Iterator[tuple[uvicorn.Server, str, threading.Thread]]:
    """uvicorn, in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield server, f"http://127.0.0.1:{port}", thread
    finally:
        server.should_exit = server.force_exit = True
        thread.join(DEADLINE)


PROTOCOLS = pytest.mark.parametrize("protocol", ["ssepool.uvicorn:Protocol", "httptools"])


@PROTOCOLS
def test_a_server_that_is_told_to_exit_ends_like_by_a_signal(client: Client, protocol: str) -> None:
    hub = Hub(HubConfig(pool=PoolConfig(size=5)))
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        with in_thread(hub, hub.dev_app, http=protocol) as (server, url, thread):
            streams = [client(url, "news").opened() for _ in range(3)]
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()
            assert [reason(stream) for stream in streams] == ["shutdown"] * 3
    assert signal.getsignal(signal.SIGTERM) is before


@PROTOCOLS
def test_a_server_that_has_answered_its_last_request_ends_like_by_a_signal(client: Client, protocol: str) -> None:
    hub = Hub(HubConfig(pool=PoolConfig(size=5)))
    with in_thread(hub, hub.dev_app, http=protocol, limit_max_requests=3) as (_, url, thread):
        stream = client(url, "news").opened()
        for _ in range(3):
            client(url, path="/health/live").until(lambda answer: answer.status)
        thread.join(SECONDS)
        assert not thread.is_alive()
        assert reason(stream) == "shutdown"


@PROTOCOLS
def test_a_hub_around_the_server_hears_of_its_end_too(client: Client, protocol: str) -> None:
    hub = Hub(HubConfig(pool=PoolConfig(size=5)))
    server = uvicorn.Server(uvicorn.Config(hub.dev_app, port=0, log_level="warning", http=protocol, lifespan="off"))

    async def main() -> None:
        async with hub:
            await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    wait_for(lambda: server.started)
    stream = client(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", "news").opened()
    server.should_exit = True
    thread.join(SECONDS)
    ended = not thread.is_alive()
    server.force_exit = True
    assert ended
    assert reason(stream) == "shutdown"
