"""Crowds: whatever many clients do at once, the hub holds its event loop for 20 ms at the most.

The hub keeps to 20 ms on an idle machine. Here it may take `MAX_MILLISECONDS`, for machines that are slow or busy.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from holds import Held, limit_files, serve
from live import wait_for
from ssepool.runtime.handover import AVAILABLE

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="sockets are detached on Linux only")

MAX_MILLISECONDS = 50.0
MANY = 5000
ROOM = {"size": MANY + 500, "max_waiting": MANY + 500, "heartbeat_interval": 3600, "history_events": 20_000}


def subscription(query: str = "topic=a", last_id: str = "") -> bytes:
    resuming = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
    return f"GET /events?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{resuming}\r\n".encode()


class Crowd:
    """Many clients, which read what they get and throw it away."""

    def __init__(self, server: Held) -> None:
        limit_files(20_000)
        self.server = server
        self.sockets: list[socket.socket] = []
        self._epoll = select.epoll()
        self._by_fd: dict[int, socket.socket] = {}
        self._reader: threading.Thread | None = None
        self._over = threading.Event()

    def come(self, requests: list[bytes], *, at_once: bool = True) -> Crowd:
        """Connect and ask; `at_once` the server finds all requests when it looks for the first."""
        fresh = []
        for _ in requests:
            client = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
            fresh.append(client)
            if not at_once:
                client.sendall(requests[len(fresh) - 1])
        if at_once:
            wait_for(lambda: self.server.descriptors() >= len(fresh), seconds=60)
            self._while_it_stands_still(lambda: [one.sendall(asks) for one, asks in zip(fresh, requests, strict=True)])
        self.sockets += fresh
        return self

    def leave(self) -> None:
        """All of them, at once."""
        self._stop_reading()
        self._while_it_stands_still(lambda: [client.close() for client in self.sockets])
        self.sockets.clear()

    def read(self) -> None:
        """Read from now on."""
        for client in self.sockets:
            client.setblocking(False)
            self._by_fd[client.fileno()] = client
            self._epoll.register(client.fileno(), select.EPOLLIN)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._by_fd and not self._over.is_set():
            for fd, _ in self._epoll.poll(0.1):
                try:
                    if self._by_fd[fd].recv(1 << 18):
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                self._epoll.unregister(fd)
                del self._by_fd[fd]

    def _while_it_stands_still(self, do: Callable[[], object]) -> None:
        self.server.process.send_signal(signal.SIGSTOP)
        try:
            do()
        finally:
            self.server.process.send_signal(signal.SIGCONT)

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._over.set()
            self._reader.join()

    def close(self) -> None:
        self._stop_reading()
        self._epoll.close()
        for client in self.sockets:
            client.close()


def opened(server: Held, number: int) -> None:
    wait_for(lambda: server.pool()["open"] >= number, seconds=60)


def check(server: Held, since: float) -> None:
    """Nothing held the loop for too long. What the garbage collector does is not the hub's: it stops a process in
    proportion to all that this has."""
    holds = [hold for hold in server.holds(since) if not hold.where.startswith("a collection")]
    print(*holds[:5], sep="\n")
    assert not holds or holds[0].milliseconds <= MAX_MILLISECONDS


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Held]:
    with serve(request.param, **ROOM, max_size=200_000, max_patterns=100_000) as server:
        for _ in range(10):
            events = [{"topic": f"t/{number % 10}", "data": "x" * 50} for number in range(1000)]
            assert server.request("POST", "/events", events)[0] == 201
        yield server


@pytest.fixture
def crowd(server: Held) -> Iterator[Crowd]:
    crowd = Crowd(server)
    yield crowd
    crowd.close()
    server.wait_pool(open=0, waiting=0)


def resuming(count: int) -> list[bytes]:
    query = "&".join(f"topic=nobody/{number}" for number in range(100))
    return [subscription(query, "earliest")] * count


def matching_nothing(count: int) -> list[bytes]:
    return [
        subscription("&".join(f"pattern=*/:x/{number}-{client}" for number in range(10)), "earliest")
        for client in range(count)
    ]


CROWDS: dict[str, Callable[[], list[bytes]]] = {
    "connect": lambda: [subscription()] * MANY,
    "have ten patterns each": lambda: [
        subscription("&".join(f"pattern=a{client % 50}/{number}/*" for number in range(10))) for client in range(1000)
    ],
    "resume with topics that nobody has": lambda: resuming(1000),
    "resume with patterns that match nothing": lambda: matching_nothing(100),
    "resume with the same patterns": lambda: [matching_nothing(1)[0]] * 1000,
}


@pytest.mark.parametrize("requests", CROWDS.values(), ids=CROWDS)
def test_a_crowd_that_comes_at_once(crowd: Crowd, requests: Callable[[], list[bytes]]) -> None:
    asked, since = requests(), time.monotonic()
    crowd.come(asked)
    opened(crowd.server, len(asked))
    crowd.server.publish("t/1", "the replays are over when this is given out")
    check(crowd.server, since)


def test_a_crowd_that_is_looked_at_and_leaves_at_once(crowd: Crowd) -> None:
    server = crowd.server
    crowd.come([subscription()] * MANY).read()
    opened(server, MANY)
    since = time.monotonic()
    for path in ("/connections?limit=1000", "/connections?topic=nobody", "/metrics", "/pool", "/cluster"):
        assert server.request("GET", path)[0] == 200
    crowd.leave()
    server.wait_pool(open=0)
    check(server, since)


def test_many_slots_are_made_and_given_up(server: Held) -> None:
    since = time.monotonic()
    assert server.request("PATCH", "/pool", {"size": 100_000})[1]["pool"]["size"] == 100_000
    assert server.request("PATCH", "/pool", {"size": ROOM["size"]})[1]["pool"]["size"] == ROOM["size"]
    check(server, since)


@pytest.mark.parametrize("topics", [1, 10_000])
def test_a_batch_of_ten_thousand_events(server: Held, topics: int) -> None:
    since = time.monotonic()
    events = [{"topic": f"b/{number % topics}", "data": ""} for number in range(10_000)]
    assert server.request("POST", "/events", events)[0] == 201
    check(server, since)


def test_new_topics_that_a_thousand_patterns_begin_like(crowd: Crowd) -> None:
    queries = ["&".join(f"pattern=c/*{number}-{client}*" for number in range(10)) for client in range(100)]
    crowd.come([subscription(quote(query, safe="&=/*")) for query in queries])
    opened(crowd.server, 100)
    since = time.monotonic()
    assert crowd.server.request("POST", "/events", [{"topic": f"c/{n}", "data": ""} for n in range(500)])[0] == 201
    check(crowd.server, since)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_crowd_that_waits_and_is_let_in_sent_away_and_said_goodbye_to(loop: str) -> None:
    with (
        serve(loop, **{**ROOM, "size": 1}, max_size=MANY + 500, acquire_timeout=60, announce_queue=True) as server,
        contextlib.closing(Crowd(server)) as crowd,
    ):
        since = time.monotonic()
        crowd.come([subscription()] * MANY, at_once=False).read()
        wait_for(lambda: server.pool()["waiting"] >= MANY - 1, seconds=60)
        server.request("PATCH", "/pool", {"size": MANY})
        opened(server, MANY)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        check(server, since)


@pytest.mark.parametrize("way", ["time out", "a drain"])
def test_a_crowd_that_waits_in_vain(way: str) -> None:
    seconds = 8.0 if way == "time out" else 60.0
    with serve(**{**ROOM, "size": 1}, acquire_timeout=seconds) as server, contextlib.closing(Crowd(server)) as crowd:
        since = time.monotonic()
        crowd.come([subscription()] * MANY, at_once=False).read()
        wait_for(lambda: server.pool()["queued"] >= MANY - 1, seconds=60)
        if way == "a drain":
            server.request("POST", "/pool/drain", {"seconds": 0})
        wait_for(lambda: server.pool()["waiting"] == 0, seconds=30)
        check(server, since)


def test_a_crowd_that_is_drained_at_once() -> None:
    with serve(**ROOM) as server, contextlib.closing(Crowd(server)) as crowd:
        crowd.come([subscription()] * MANY)
        opened(server, MANY)
        crowd.read()
        since = time.monotonic()
        server.request("POST", "/pool/drain", {"seconds": 0})
        server.wait_pool(open=0)
        check(server, since)


def test_a_crowd_that_lags_too_far_at_once() -> None:
    with serve(**ROOM, lag_policy="disconnect", lag_events=5) as server, contextlib.closing(Crowd(server)) as crowd:
        crowd.come([subscription()] * 2000)
        opened(server, 2000)
        since = time.monotonic()
        event = json.dumps({"topic": "a", "data": "x" * 500_000}).encode()
        for _ in range(60):
            assert server.request("POST", "/events", event, {"Content-Type": "application/json"})[0] == 201
            if server.pool()["released"]["lagged"] or server.pool()["closing"]:
                break
        wait_for(lambda: server.pool()["open"] == 0)
        check(server, since)


def test_the_heartbeats_of_a_crowd() -> None:
    with serve(**{**ROOM, "heartbeat_interval": 0.5}) as server, contextlib.closing(Crowd(server)) as crowd:
        crowd.come([subscription()] * MANY)
        opened(server, MANY)
        crowd.read()
        since = time.monotonic()
        wait_for(lambda: time.monotonic() - since > 2)
        check(server, since)
