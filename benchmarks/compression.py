"""`python -m benchmarks.compression`: would it pay to compress an event once, for all who are sent it?

Writes a table of what that saves and costs, beside one compressor for each connection, which is what a proxy has. The
figures are in docs/performance/compression.md. Linux only; some 30 seconds.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ssepool.bench.process import Processes

WORDS = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what
all were we when your can said there use an each which she do how their if will up other about out many then them these
so some her would make like him into time has look two more write go see number no way could people my than first water
been call who oil its now find long down day did get come made may part order shipped delivery customer payment invoice
balance warehouse update status pending confirmed message chat room user online
"""
EVENTS = 200
CONNECTIONS = 200
JOINED = 20
SECONDS = 0.5
"""Of writing, for each row and way."""
COMPRESSORS = 500

Way = Callable[[bytes, int], bytes]
"""What is written of a join to a connection, by its number; called once for each connection, in order."""


class Data:
    """Events as applications publish them; the same ones in every run."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._words = WORDS.split()

    def text(self, size: int) -> str:
        """Words."""
        return " ".join(self._random.choices(self._words, k=size))[:size]

    def json(self, size: int) -> str:
        """An order, with so many items that it has about this many bytes."""
        order = {
            "order_id": str(uuid.UUID(int=self._random.getrandbits(128))),
            "status": self._random.choice(("pending", "confirmed", "shipped", "delivered")),
            "updated_at": f"2026-11-22T{self._random.randrange(24):02}:{self._random.randrange(60):02}:07.412Z",
            "customer": {"id": self._random.randrange(10**6), "name": self.text(14)},
            "total": round(self._random.random() * 900, 2),
            "currency": "EUR",
            "items": [self._item() for _ in range(max(0, size - 280) // 95)],
        }
        short = size - len(json.dumps(order, separators=(",", ":"))) - len(',"note":""')
        return json.dumps(order | {"note": self.text(max(0, short))}, separators=(",", ":"))

    def _item(self) -> dict[str, object]:
        sku, price = f"SKU-{self._random.randrange(10**6):06}", round(self._random.random() * 200, 2)
        return {"sku": sku, "name": self.text(24), "quantity": self._random.randrange(1, 20), "price": price}


def shared(join: bytes, before: bytes = b"") -> bytes:
    """Blocks of deflate that may follow anything in any stream, or with `before`, whatever ends in that."""
    # 64 KiB of state instead of 256, which the allocator would fetch from the kernel each time.
    compressor = zlib.compressobj(6, zlib.DEFLATED, -13, 6, zlib.Z_DEFAULT_STRATEGY, before)
    return compressor.compress(join) + compressor.flush(zlib.Z_FULL_FLUSH)


def own() -> zlib._Compress:
    """A connection's compressor: nginx's settings."""
    return zlib.compressobj(1, zlib.DEFLATED, -15, 8)


def flushed(compressor: zlib._Compress, join: bytes) -> bytes:
    """What a connection's compressor makes of a join."""
    return compressor.compress(join) + compressor.flush(zlib.Z_SYNC_FLUSH)


def main() -> None:
    """Write the tables."""
    data = Data()
    kinds: dict[str, Callable[[], str]] = {
        "100 bytes of text": lambda: data.text(100),
        "300 bytes of JSON": lambda: data.json(300),
        "1 KiB of JSON": lambda: data.json(1024),
        "8 KiB of JSON": lambda: data.json(8192),
    }
    print("| events | bytes | saved | with 1 KiB before | with 4 KiB before | own compressor | compressing once, us |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = {}
    for kind, make in kinds.items():
        frames = [f"id: 0198c2a4-{i:06x}\nevent: update\ndata: {make()}\n\n".encode() for i in range(EVENTS)]
        for many in (1, JOINED):
            joins = [b"".join(frames[at : at + many]) for at in range(0, EVENTS, many)]
            rows[f"{kind}, {many} joined" if many > 1 else kind] = joins
    for name, joins in rows.items():
        print(f"| {name} | {' | '.join(sizes(joins))} |", flush=True)
    print(f"\n| CPU per delivery, us, to {CONNECTIONS} connections | plain | compressed once | own compressor |")
    print("| --- | ---: | ---: | ---: |")
    with readers() as fds:
        for name, joins in rows.items():
            print(f"| {name} | {' | '.join(costs(joins, fds))} |", flush=True)
    print(f"\nMemory of a connection's own compressor: {memory() / 1024:.0f} KiB")


def sizes(joins: list[bytes]) -> Iterator[str]:
    """Bytes of a join, what is saved of them, and the time that it takes to compress one."""
    plain = sum(map(len, joins))

    def saved(compressed: Iterator[bytes]) -> str:
        return f"{1 - sum(map(len, compressed)) / plain:.0%}"

    yield f"{plain / len(joins):,.0f}"
    yield saved(map(shared, joins))
    stream = b"".join(joins)
    for history in (1024, 4096):
        ends = [sum(map(len, joins[:at])) for at in range(len(joins))]
        yield saved(shared(join, stream[max(0, end - history) : end]) for join, end in zip(joins, ends, strict=True))
    compressor = own()
    yield saved(flushed(compressor, join) for join in joins)
    fastest = min(timed(lambda: [shared(join) for join in joins]) for _ in range(5))
    yield f"{fastest / len(joins) * 1e6:.0f}"


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU."""
    start = time.process_time()
    work()
    return time.process_time() - start


def costs(joins: list[bytes], fds: list[int]) -> Iterator[str]:
    """Microseconds of CPU for each delivery of a join."""
    compressors = [own() for _ in fds]
    made = b""

    def once(join: bytes, number: int) -> bytes:
        nonlocal made
        if number == 0:
            made = shared(join)
        return made

    ways: list[Way] = [lambda join, _: join, once, lambda join, number: flushed(compressors[number], join)]
    for way in ways:
        deliveries, used, until, at = 0, 0.0, time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            join, at = joins[at % len(joins)], at + 1
            start = time.process_time()
            for number, fd in enumerate(fds):
                rest = way(join, number)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            used += time.process_time() - start
            deliveries += len(fds)
        yield f"{used / deliveries * 1e6:.1f}"


@contextmanager
def readers() -> Iterator[list[int]]:
    """Connections over loopback whose other ends a process on another core reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        far = [socket.create_connection(listener.getsockname()) for _ in range(CONNECTIONS)]
        near = [listener.accept()[0] for _ in range(CONNECTIONS)]
    cores = sorted(os.sched_getaffinity(0))
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, cores[-1:])
        for connection in near:
            connection.close()
        drain(far)
        os._exit(0)
    os.sched_setaffinity(0, cores[:1])
    for connection in far:
        connection.close()
    for connection in near:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield [connection.fileno() for connection in near]
    finally:
        for connection in near:  # which ends the other process
            connection.close()
        os.waitpid(child, 0)


def drain(connections: list[socket.socket]) -> None:
    """Read until all connections have ended."""
    poller = select.epoll()
    for connection in connections:
        poller.register(connection.fileno(), select.EPOLLIN)
    left = len(connections)
    while left:
        for fd, _ in poller.poll():
            if not os.read(fd, 262144):
                poller.unregister(fd)
                left -= 1


def memory() -> float:
    """Bytes of a compressor that has compressed something."""
    process = Processes((os.getpid(),))
    before = process.memory() or 0
    compressors = [own() for _ in range(COMPRESSORS)]
    for compressor in compressors:
        flushed(compressor, Data().json(1024).encode())
    return ((process.memory() or 0) - before) / COMPRESSORS


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("This measures on Linux only.")
    main()
