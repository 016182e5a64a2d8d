"""Nodes: `ssepool serve` in processes of their own."""

from __future__ import annotations

import itertools
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.peers import on_the_first_core
from services import Server

_numbers = itertools.count(1)


class Node(Server):
    """One of them."""

    def __init__(self, directory: Path, broker: str) -> None:
        super().__init__(directory)
        self._broker = broker
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        place = ("--broker", self._broker, "--port", str(self.port), "--backlog", "4096")
        return [
            sys.executable,
            "-m",
            "ssepool",
            "serve",
            "--dev",
            *place,
            "--pool-size",
            "2000",
            "--log-level",
            "warning",
        ]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid


@contextmanager
def nodes(folder: Path, *brokers: str) -> Iterator[list[Node]]:
    """Start a node for each of these URLs of brokers, on the first core, and stop them again."""
    with ExitStack() as stack:
        started = []
        for broker in brokers:
            node = Node(folder / f"node-{next(_numbers)}", broker)
            with on_the_first_core():
                node.start()
            stack.callback(node.stop)
            started.append(node)
        yield started
