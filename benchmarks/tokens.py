"""`python -m benchmarks.tokens`: what it costs a hub that each of its clients has a token of its own.

Many clients of one room, first without tokens and then with one each, signed with each algorithm: the server's CPU time
for a subscription, when its clients come for the first time and when they all come back, and how many feeds they make.
With `--against REVISION` an earlier hub, without tokens, takes its turns too, and the ratios are relative to that.
Linux only; the time is that of the server's process, so that what else runs here counts little.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import IO

from benchmarks.against import checkout
from ssepool import AccessConfig, Hub, HubConfig, PoolConfig, ServerConfig

ISSUER, AUDIENCE, ROOM = "bench", "hub", "room"
ALGORITHMS = ("HS256", "ES256", "EdDSA", "RS256")
EARLIER, NO_TOKEN = "earlier", "no token"
DEADLINE_SECONDS = 30.0
"""Within which each client has its head."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__)
    parser.add_argument("--clients", type=int, default=8000, help="how many there are; default: 8000")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--against", metavar="REVISION", help="an earlier revision, whose hub takes its turns, too")
    parser.add_argument("--only", action="append", choices=ALGORITHMS, help="only this algorithm; default: all")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(Path(arguments.serve[0]) if arguments.serve[0] else None, int(arguments.serve[1]))
        return
    kinds = [NO_TOKEN, *(arguments.only or ALGORITHMS)]
    with checkout(arguments.against) if arguments.against else nullcontext() as earlier:
        if earlier is not None:
            kinds.insert(0, EARLIER)
        found: dict[str, list[tuple[float, float, int]]] = {kind: [] for kind in kinds}
        for number in range(arguments.rounds):
            for kind in kinds[:: -1 if number % 2 else 1]:  # in turn, so that what else runs here meets all alike
                found[kind].append(_measure(kind, arguments.clients, earlier))
    print(f"{arguments.clients} clients of one room; CPU microseconds of the server for each subscription")
    print(f"{'':<10} {'at first':>9} {'ratio':>6} {'again':>9} {'ratio':>6} {'feeds':>6}")
    base = [median(figures) for figures in list(zip(*found[kinds[0]], strict=True))[:2]]
    for kind, runs in found.items():
        first, again, feeds = (median(figures) for figures in zip(*runs, strict=True))
        print(f"{kind:<10} {first:9.0f} {first / base[0]:6.2f} {again:9.0f} {again / base[1]:6.2f} {feeds:6.0f}")


def _measure(kind: str, clients: int, earlier: Path | None) -> tuple[float, float, int]:
    """Microseconds at first and again, and the number of feeds, which an earlier hub does not tell: 0."""
    with tempfile.TemporaryDirectory() as folder:
        key = _key(kind, Path(folder)) if kind in ALGORITHMS else None
        heads = list(_heads(key, clients))
        with _server(key, clients, earlier if kind == EARLIER else None) as (process, port):
            first = _come(process.pid, port, heads)
            if kind == EARLIER:
                return first, _come(process.pid, port, heads), 0
            again = _come(process.pid, port, heads, feeds_of=process)
            assert process.stdout is not None
            return first, again, int(process.stdout.readline())


def _come(pid: int, port: int, heads: list[bytes], feeds_of: subprocess.Popen[str] | None = None) -> float:
    """Have all clients connect, and leave; returns the server's CPU time for each, in microseconds."""
    began = _cpu(pid)
    sockets = []
    for head in heads:
        client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        client.sendall(head)
        sockets.append(client)
    for client in sockets:
        answer = client.recv(12)
        assert answer == b"HTTP/1.1 200", answer
    spent = _cpu(pid) - began
    if feeds_of is not None:
        feeds_of.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
    for client in sockets:
        client.close()
    time.sleep(0.5)  # for the server to let them go, which is not measured
    return spent / len(heads) * 1e6


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _key(algorithm: str, folder: Path) -> Path:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    path = folder / "key"
    if algorithm == "HS256":
        path.write_text(os.urandom(32).hex())
        return path
    key = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
    }[algorithm]()
    path.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    return path


def _hub(key: Path | None, clients: int) -> Hub:
    tokens = {"token_keys": (str(key),), "token_issuers": (ISSUER,), "token_audience": AUDIENCE} if key else {}
    public = () if key else (ROOM,)
    access = AccessConfig(public_topics=public, **tokens)  # type: ignore[arg-type]
    return Hub(HubConfig(pool=PoolConfig(size=clients + 10), access=access))


def _heads(key: Path | None, clients: int) -> Iterator[bytes]:
    hub = _hub(key, clients) if key else None
    for number in range(clients):
        field = f"Authorization: Bearer {hub.tokens.issue(subject=f'u{number}', subscribe=[ROOM])}\r\n" if hub else ""
        yield f"GET /events?topic={ROOM} HTTP/1.1\r\nHost: 127.0.0.1\r\n{field}\r\n".encode()


@contextmanager
def _server(key: Path | None, clients: int, earlier: Path | None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "benchmarks.tokens", "--serve", str(key or ""), str(clients)]
    environment = dict(os.environ)
    if earlier is not None:
        command = [sys.executable, "-m", "ssepool", "serve", "--port", "0", "--pool-size", str(clients + 10)]
        command += ["--backlog", "16384"]
        # Open to everybody, by the variable that revisions ignore which were so anyhow.
        environment |= {"PYTHONPATH": str(earlier), "PYTHONUNBUFFERED": "1", "SSEPOOL_DEV": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process, _port(process.stdout)
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def _port(lines: IO[str]) -> int:
    """The port that a server has printed."""
    for line in lines:
        if (found := re.fullmatch(r"(?:.*http://127\.0\.0\.1:)?([0-9]+)\b.*", line.strip())) is not None:
            return int(found[1])
    raise RuntimeError("the server has not come up")


def _serve(key: Path | None, clients: int) -> None:
    from ssepool.server.server import Server

    hub = _hub(key, clients)
    signal.signal(signal.SIGUSR1, lambda *_: print(len(hub.parts.engine.feeds), flush=True))
    config = ServerConfig(port=0, backlog=16_384, log_level="warning")
    Server(hub, hub.app, config, on_started=lambda url: print(url.rpartition(":")[2], flush=True)).run()


if __name__ == "__main__":
    main()
