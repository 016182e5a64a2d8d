"""Crowds of slow clients, which want to keep everybody else out, while others subscribe and publish."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from live import DEADLINE, LiveServer, Stream, serve, serve_command, wait_for
from swarm import Swarm

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="127.0.0.2 is an address on Linux")

CROWD = 1000
"""Clients of each kind, where there are descriptors for so many."""
ONE = ("127.0.0.2",)
SEVERAL = tuple(f"127.0.1.{number}" for number in range(1, 51))
PAUSE_SECONDS = 2.0
"""Between two bytes of a slow client."""
HEAVY = "x" * 64 * 1024

HEAD = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BEGINNINGS = {
    "slow heads": b"GET /events?topic=numbers HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "slow bodies": HEAD + b"Content-Length: 100000\r\n\r\n",
    "slow readers": b"GET /events?topic=numbers&topic=heavy HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
"""What each kind sends at first. The first two go on a byte at a time; the last never reads."""


class Crowd:
    """Slow clients of one kind, of whom each that is sent away comes back."""

    def __init__(self, server: LiveServer, kind: str, size: int, sources: Sequence[str]) -> None:
        self._port, self._kind, self._sources = server.port, kind, sources
        self._over = threading.Event()
        self.returns = 0
        self.clients = [self._come(number) for number in range(size)]
        self._thread = threading.Thread(target=self._pester, daemon=True)
        self._thread.start()

    def _come(self, number: int) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.bind((self._sources[number % len(self._sources)], 0))
        client.settimeout(DEADLINE)
        # Sent away in the very moment, or nobody accepts: both are for the next round.
        with contextlib.suppress(OSError):
            client.connect(("127.0.0.1", self._port))
            client.sendall(BEGINNINGS[self._kind])
        client.setblocking(False)
        return client

    def _pester(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            for number, client in enumerate(self.clients):
                if self._over.is_set():
                    return
                try:
                    if self._kind != "slow readers":
                        client.send(b"x")
                        if not client.recv(100):
                            raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    client.close()
                    self.returns += 1
                    self.clients[number] = self._come(number)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for client in self.clients:
            client.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@pytest.fixture
def crowd() -> Iterator[int]:
    """How many there can be of each kind: the test needs descriptors too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    size = CROWD if hard == resource.RLIM_INFINITY else min(CROWD, (hard - 1000) // 8)
    if size < CROWD:
        print(f"only {size} clients of each kind instead of {CROWD}: the limit on open files is {hard} (ulimit -n)")
    yield size
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def publish(server: LiveServer, swarm: Swarm, numbers: range, rate: float) -> None:
    """Publish the numbers at this rate, reading for all subscribers meanwhile, and see that each has them in order."""
    began = time.monotonic()
    for number in numbers:
        server.publish("numbers", str(number))
        if number % 25 == 0:
            server.publish("heavy", HEAVY)
        while (left := began + (number - numbers.start + 1) / rate - time.monotonic()) > 0:
            swarm.read(left)
        swarm.check()
    swarm.run_until(numbers.stop - 1, seconds=60)


def test_honest_subscribers_lose_nothing_in_a_crowd(crowd: int) -> None:
    with serve_command("--pool-size", str(3 * crowd), "--history-events", "2000") as server:
        swarm = Swarm(server, "numbers", crowd)
        try:
            for subscriber in swarm.subscribers:
                subscriber.come()
            for sources, numbers in ((ONE, range(250)), (SEVERAL, range(250, 500))):
                with contextlib.ExitStack() as stack:
                    crowds = [stack.enter_context(Crowd(server, kind, crowd, sources)) for kind in BEGINNINGS]
                    publish(server, swarm, numbers, rate=50)
                    for number in range(10):
                        with Stream(server, "numbers", data=number) as stream:
                            stream.opened()
                            assert server.request("GET", "/health/live")[0] == 200
                    assert crowds[2].returns == 0
                    assert server.process.poll() is None
            swarm.check()
        finally:
            swarm.close()


FILES, SLOTS, WAITING, SLOW = 300, 100, 20, 290


@pytest.mark.parametrize("kind", ["slow heads", "slow bodies"])
@pytest.mark.parametrize("path", ["detached", "plain", "uvicorn"])
@pytest.mark.parametrize("sources", [ONE, SEVERAL], ids=["one address", "several addresses"])
def test_slow_clients_keep_nobody_out_of_an_empty_pool(path: str, kind: str, sources: Sequence[str]) -> None:
    with (
        serve(path, limit_files=FILES, size=SLOTS, max_waiting=WAITING) as server,
        Crowd(server, kind, SLOW, sources) as crowd,
        contextlib.ExitStack() as stack,
    ):
        streams = [stack.enter_context(Stream(server, "a", data=number)) for number in range(SLOTS)]
        for stream in streams:
            stream.opened()
        server.publish("a", "hello")
        for stream in streams:
            stream.wait_data("hello")
        server.wait_pool(open=SLOTS)
        crowd.close()
        # Nothing is left of the crowd: what each has taken was given back.
        wait_for(lambda: server.descriptors() < FILES - SLOTS)
        assert [line for line in server.log if "Traceback" in line or "cannot accept" in line] == []


@pytest.mark.parametrize("kind", ["slow heads", "slow bodies"])
@pytest.mark.parametrize("path", ["detached", "plain", "uvicorn"])
def test_a_crowd_that_comes_while_the_hub_is_busy_costs_no_descriptor_of_a_stream(path: str, kind: str) -> None:
    with (
        serve(path, limit_files=FILES, size=SLOTS, max_waiting=WAITING) as server,
        contextlib.ExitStack() as stack,
    ):
        for number in range(SLOTS - 1):
            stack.enter_context(Stream(server, "a", data=number)).opened()
        server.process.send_signal(signal.SIGSTOP)
        for _ in range(SLOW):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), source_address=(*ONE, 0)))
            client.sendall(BEGINNINGS[kind])
        server.process.send_signal(signal.SIGCONT)
        stack.enter_context(Stream(server, "a")).opened()
        assert [line for line in server.log if "Traceback" in line or "cannot accept" in line] == []
