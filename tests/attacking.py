"""A harness for attacks: what one request costs the others, and the server's memory.

While the attack runs, a second client asks for `GET /health/live` every 5 ms. What counts is the time for which the
server's thread was on a core between such a question and its answer: a busy machine makes the answer late too, but
does not make the server work. Memory is the process's resident set.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from live import DEADLINE, LiveServer

INTERVAL_SECONDS = 0.005
SETTLE_SECONDS = 0.3
"""How long the health is asked for once the attack is over."""
SILENCE_SECONDS = 0.3
"""How long an attack waits for more of its answer."""

Attack = Callable[[LiveServer], object]


@dataclass
class Worst:
    """What the attack cost at the worst."""

    held: float = 0.0
    """Milliseconds that the server worked while somebody waited for its health."""
    waited: float = 0.0
    """Milliseconds that somebody waited."""
    grown: float = 0.0
    """Megabytes of memory more than before."""
    answers: int = field(default=0, repr=False)

    def __str__(self) -> str:
        return f"held {self.held:6.1f} ms on a core, waited {self.waited:6.1f} ms, {self.grown:5.1f} MB more"


def suffer(server: LiveServer, attack: Attack) -> Worst:
    """Run an attack, and say what it cost."""
    worst, over = Worst(), threading.Event()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    _health(connection)
    before = _megabytes(server)
    attacker = threading.Thread(target=_run, args=(server, attack, over))
    attacker.start()
    until = None
    while until is None or time.monotonic() < until:
        if until is None and over.is_set():
            until = time.monotonic() + SETTLE_SECONDS
        began, worked = time.monotonic(), _on_core(server)
        _health(connection)
        worst.waited = max(worst.waited, 1000 * (time.monotonic() - began))
        worst.held = max(worst.held, _on_core(server) - worked)
        worst.grown = max(worst.grown, _megabytes(server) - before)
        worst.answers += 1
        time.sleep(INTERVAL_SECONDS)
    attacker.join()
    connection.close()
    return worst


def _run(server: LiveServer, attack: Attack, over: threading.Event) -> None:
    try:
        attack(server)
    finally:
        over.set()


def _health(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/health/live")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200


def _on_core(server: LiveServer) -> float:
    """Milliseconds for which the server's main thread has been on a core (Linux)."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e6


def _megabytes(server: LiveServer) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def sent(data: bytes) -> Attack:
    """The attack that sends these bytes on a connection of its own, and reads what is answered."""

    def attack(server: LiveServer) -> bytes:
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(SILENCE_SECONDS)
            client.sendall(data)
            while part := client.recv(65536):
                answer += part
        return answer

    return attack
