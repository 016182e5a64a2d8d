"""Many subscribers in one thread, each counting what it gets: for tests where `live.Stream` would be too slow."""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import struct
import time

from live import LiveServer

# On every path a write holds whole frames, so that the framing of chunks never stands inside of one.
NUMBERED = re.compile(rb"id: ([^\n]+)\ndata: (\d+)\n\n")


class Subscriber:
    """Expects the numbers from 0 on, each once and in order, over any number of visits."""

    def __init__(self, swarm: Swarm, name: str) -> None:
        self.swarm = swarm
        self.name = name
        self.last_id = b"earliest"
        self.expected = 0
        self.visits = 0
        self.failure = ""
        self.socket: socket.socket | None = None
        self._buffer = b""

    def come(self) -> None:
        """Connect, and ask for what comes after the last event seen."""
        self._buffer = b""
        self.visits += 1
        self.socket = socket.create_connection(self.swarm.address, timeout=30)
        query = b"topic=" + self.swarm.topic.encode()
        head = b"GET /events?%b HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: %b\r\n\r\n" % (query, self.last_id)
        self.socket.sendall(head)
        self.socket.setblocking(False)
        self.swarm.watch(self)

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, whatever has not been read yet."""
        if self.socket is not None:
            self.swarm.forget(self)
            if reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
            self.socket = None

    def read(self) -> None:
        """Take what has come, and check it."""
        assert self.socket is not None
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.fail("the server ended the stream")
            return
        self._buffer += data
        end = self._buffer.rfind(b"\n\n") + 2
        if end < 2:
            return
        whole, self._buffer = self._buffer[:end], self._buffer[end:]
        if b"ssepool.gap" in whole or b"ssepool.close" in whole:
            self.fail(f"got {whole[-500:]!r}")
        found = NUMBERED.findall(whole)
        if found:
            numbers = [int(number) for _, number in found]
            if numbers != list(range(self.expected, self.expected + len(numbers))):
                self.fail(f"{self.expected} was next, and there came {numbers[:10]}")
            self.expected = numbers[-1] + 1
            self.last_id = found[-1][0]

    def fail(self, what: str) -> None:
        self.failure = self.failure or f"subscriber {self.name}, visit {self.visits}: {what}"
        self.leave()


class Swarm:
    """Subscribers of one topic, and the loop that reads for them."""

    def __init__(self, server: LiveServer, topic: str, size: int, *, seed: int = 0) -> None:
        self.address = ("127.0.0.1", server.port)
        self.topic = topic
        self.dice = random.Random(seed)
        self.subscribers = [Subscriber(self, str(number)) for number in range(size)]
        self._poll = select.epoll()
        self._by_fd: dict[int, Subscriber] = {}

    def watch(self, subscriber: Subscriber) -> None:
        assert subscriber.socket is not None
        self._poll.register(subscriber.socket.fileno(), select.EPOLLIN)
        self._by_fd[subscriber.socket.fileno()] = subscriber

    def forget(self, subscriber: Subscriber) -> None:
        assert subscriber.socket is not None
        del self._by_fd[subscriber.socket.fileno()]
        self._poll.unregister(subscriber.socket.fileno())

    def read(self, seconds: float) -> None:
        """Read for all subscribers, once, waiting for something for so long."""
        for fd, _ in self._poll.poll(seconds):
            if fd in self._by_fd:
                self._by_fd[fd].read()

    def restless(self, share: float) -> None:
        """Send a share of the subscribers away at random, and have them come back at once."""
        for subscriber in self.dice.sample(self.subscribers, max(1, int(share * len(self.subscribers)))):
            subscriber.leave(reset=self.dice.random() < 0.3)
            subscriber.come()

    def run_until(self, last: int, *, seconds: float) -> None:
        """Read until each subscriber has had the event of this number; fail if one does not in time."""
        deadline = time.monotonic() + seconds
        while any(subscriber.expected <= last for subscriber in self.subscribers):
            self.check()
            behind = [subscriber for subscriber in self.subscribers if subscriber.expected <= last]
            assert time.monotonic() < deadline, f"{len(behind)} wait for events, the first for {behind[0].expected}"
            self.read(0.1)
        self.check()

    def check(self) -> None:
        failures = [subscriber.failure for subscriber in self.subscribers if subscriber.failure]
        assert not failures, f"{len(failures)} failures: {failures[:5]}"

    def close(self) -> None:
        for subscriber in self.subscribers:
            with contextlib.suppress(OSError):
                subscriber.leave()
        self._poll.close()
