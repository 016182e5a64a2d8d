"""Workers: what they share out, what they refuse, and the life of one, without a process or a server."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssepool.config import HubConfig, PoolConfig, ServerConfig
from ssepool.errors import ConfigError
from ssepool.hub import Hub
from ssepool.runtime.cluster.cluster import MEET_SECONDS
from ssepool.server import workers
from ssepool.server.balance import ROW_FIELDS, Balance
from ssepool.server.supervisor import Worker
from ssepool.server.workers import check, pool_of, supervise, work
from virtual import now, run_virtually

SHARED = "sqlite:///events.db"


def worker(index: int, count: int, **fields: Any) -> Worker:
    given: dict[str, Any] = {"group": "port", "listener": None, "ready": None, **fields}
    return Worker(index, count, balance=Balance([0.0] * (count * ROW_FIELDS), index), **given)


def hub_config(size: int = 10, broker: str = SHARED) -> HubConfig:
    return HubConfig(pool=PoolConfig(size=size), broker=broker)


# What is checked and shared out.


@pytest.mark.parametrize(
    ("size", "broker", "count", "message"),
    [
        (10, "memory://", 2, "workers = 2 is not allowed with the broker memory://"),
        (10, "memory:", 2, "workers = 2 is not allowed with the broker memory://"),
        (3, SHARED, 4, "PoolConfig.size = 3 is not allowed with 4 workers"),
    ],
)
def test_what_will_not_do_with_several_workers_is_refused_before_anything_listens(
    size: int, broker: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hub_config(size, broker), ServerConfig(workers=count)
    with pytest.raises(ConfigError, match=message):
        check(*config)
    monkeypatch.delattr(workers, "listen")
    with pytest.raises(ConfigError, match=message):
        supervise(*config, work=print, on_started=print)


@pytest.mark.parametrize(("size", "broker"), [(4, SHARED), (10, "redis://localhost"), (5, "nats://localhost")])
def test_what_will_do_is_not(size: int, broker: str) -> None:
    check(hub_config(size, broker), ServerConfig(workers=4))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 256])
@pytest.mark.parametrize(("size", "max_waiting"), [(256, 0), (1000, 1000), (1001, 3), (1_000_000, 255)])
def test_the_shares_of_all_workers_are_the_whole(size: int, max_waiting: int, count: int) -> None:
    whole = PoolConfig(size=size, max_waiting=max_waiting, idle_timeout=77.0)
    pools = [pool_of(worker(index, count), whole) for index in range(count)]
    for name, total in (("size", size), ("max_waiting", max_waiting)):
        shares = [getattr(pool, name) for pool in pools]
        assert sum(shares) == total
        assert max(shares) - min(shares) <= 1
    assert {pool.idle_timeout for pool in pools} == {77.0}


# The supervisor's side.


class Supervised:
    """Stands for the supervisor, and keeps what it was given."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.work, self.args, self.listener = args
        self.options = options
        self.error: Exception | None = None

    def run(self) -> int:
        assert self.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        self.options["on_started"]()
        if self.error is not None:
            raise self.error
        return 3


@pytest.mark.parametrize("error", [None, RuntimeError("on purpose")])
def test_the_socket_is_there_for_as_long_as_the_workers_are(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Supervised] = []

    def make(*args: Any, **options: Any) -> Supervised:
        made.append(Supervised(*args, **options))
        made[0].error = error
        return made[0]

    monkeypatch.setattr(workers, "Supervisor", make)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    urls: list[str] = []
    listening: list[bool] = []

    def started(*found: str) -> None:
        urls.extend(found)
        listening.append(Path(found[1].removeprefix("unix:")).is_socket())

    config = hub_config(), ServerConfig(port=0, workers=3, shutdown_timeout=7.0, dev=True)
    if error is None:
        assert supervise(*config, work=print, on_started=started) == 3
    else:
        with pytest.raises(RuntimeError, match="on purpose"):
            supervise(*config, work=print, on_started=started)
    (subject,) = made
    assert (subject.work, subject.args) == (print, config)
    assert (subject.options["count"], subject.options["shutdown_timeout"]) == (3, 7.0)
    public, admin = urls
    assert public.startswith("http://127.0.0.1:")
    assert admin == f"unix:{tmp_path}/ssepool-{public.rpartition(':')[2]}.sock"
    assert listening == [True]
    assert [each.fileno() for each in (subject.listener, *subject.options["admin"])] == [-1, -1]
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_others_can_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a loopback address"):
        supervise(hub_config(), ServerConfig(host="0.0.0.0", workers=2, dev=True), work=print, on_started=print)


# The worker's side.


class Ready:
    """The pipe by which a worker says that it is ready, and when it did."""

    def __init__(self) -> None:
        self.said: list[tuple[object, float]] = []
        self.closed = False

    def send(self, what: object) -> None:
        self.said.append((what, now()()))

    def close(self) -> None:
        self.closed = True


class Parent:
    """The supervisor's process, whose end a test can bring about."""

    def __init__(self) -> None:
        self._alive, self._end = socket.socketpair()
        self.sentinel = self._alive.fileno()

    def die(self) -> None:
        self._end.close()

    def close(self) -> None:
        self._alive.close()
        self._end.close()


class Serving:
    """Stands for the server: runs what a test wants once it would serve."""

    def __init__(self, then: Callable[[Hub], Any]) -> None:
        self._then = then
        self.options: dict[str, Any] = {}

    def __call__(self, hub: Hub, app: Any, config: ServerConfig, **options: Any) -> Serving:
        assert app is hub.dev_app
        self.hub, self.config, self.options = hub, config, options
        return self

    def run(self) -> None:
        async def serve() -> None:
            self.options["on_started"]("http://127.0.0.1:1")
            await self._then(self.hub)

        run_virtually(serve())


class Life:
    """The life of a worker, number 1 of 3."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, then: Callable[[Hub], Any]) -> None:
        self.ready = Ready()
        self.parent = Parent()
        self.killed: list[tuple[int, int]] = []
        self.serving = Serving(then)
        self.worker = worker(1, 3, ready=self.ready)
        monkeypatch.setattr(workers, "Server", self.serving)
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: self.parent)
        monkeypatch.setattr(os, "kill", self._kill)

    def _kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))
        asyncio.get_running_loop().remove_reader(self.parent.sentinel)

    def live(self) -> None:
        try:
            work(self.worker, hub_config(10, "memory://"), ServerConfig(head_timeout=7.0, dev=True))
        finally:
            self.parent.close()


def test_a_worker_serves_its_share_under_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def then(hub: Hub) -> None:
        asyncio.get_running_loop().remove_reader(life.parent.sentinel)
        assert hub.config.pool.size == 3
        me = hub.parts.cluster.me
        assert (me.worker, me.group, me.pid) == (1, "port", os.getpid())
        await hub.parts.engine.tasks.close(100.0)

    life = Life(monkeypatch, then)
    life.live()
    options = life.serving.options
    assert (options["listener"], options["balance"]) == (life.worker.listener, life.worker.balance)
    assert (options["admin"], options["administered"]) == (life.worker.admin, True)
    assert life.serving.config.head_timeout == 7.0


def test_a_worker_is_ready_when_it_has_met_the_others_or_has_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def then(hub: Hub) -> None:
        began = now()()
        await asyncio.sleep(MEET_SECONDS - 0.1)
        assert (life.ready.said, life.ready.closed) == ([], False)
        await asyncio.sleep(0.2)
        assert life.ready.said == [(True, pytest.approx(began + MEET_SECONDS))]
        assert life.ready.closed
        asyncio.get_running_loop().remove_reader(life.parent.sentinel)

    life = Life(monkeypatch, then)
    life.live()
    assert life.killed == []


def test_a_worker_ends_with_its_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def then(hub: Hub) -> None:
        await asyncio.sleep(100.0)
        assert life.killed == []
        life.parent.die()
        await asyncio.sleep(0.1)

    life = Life(monkeypatch, then)
    life.live()
    assert life.killed == [(os.getpid(), signal.SIGTERM)]
