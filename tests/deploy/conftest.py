"""Three real nodes behind each of the proxies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deploy.proxies import PROXIES, make_certificate, run
from live import DEADLINE, LiveServer, serve, wait_for
from ssepool.core.decoder import Decoder, Message

NODES = 3
SETTINGS = {"heartbeat_interval": 0.5, "retry": 0.2, "reap_interval": 0.05}
ON_DRAIN = {"nginx": "reject", "caddy": "retry", "haproxy": "retry"}
"""As docs/deploy says: nginx has no health checks, and goes to the next node at a 503."""


def node(proxy: str, port: int = 0) -> contextlib.AbstractContextManager[LiveServer]:
    """A node that is open to everybody, so that the proxy alone decides what passes."""
    return serve(port=port, on_drain=ON_DRAIN[proxy], **SETTINGS)


class Front:
    """A proxy with its nodes."""

    def __init__(self, name: str, url: str, nodes: list[LiveServer], stack: contextlib.ExitStack) -> None:
        self.name = name
        self.url = url
        self.nodes = nodes
        self._stack = stack

    def publish(self, topic: str, data: str) -> None:
        """Publish on every node: each has its own memory."""
        for node in self.nodes:
            if node.process.poll() is None:
                node.publish(topic, data)

    def restart(self, place: int) -> None:
        """Start a node that was stopped, at its old port."""
        again = node(self.name, port=self.nodes[place].port)
        self.nodes[place] = self._stack.enter_context(again)
        wait_for(lambda: self._reaches(place), what=f"{self.name} uses the node again")

    def _reaches(self, place: int) -> bool:
        """Whether new clients come to this node; each of these leaves at once."""
        before = self.nodes[place].pool()["granted"]
        with self.client() as client:
            for _ in range(NODES):
                with Subscriber(client, "is-it-back") as subscriber:
                    subscriber.next("ssepool.open")
        return bool(self.nodes[place].pool()["granted"] > before)

    def client(self, **options: bool) -> httpx.Client:
        """A client that is new to the proxy: no cookie, no connection."""
        return httpx.Client(base_url=self.url, verify=False, timeout=DEADLINE, **{"http2": True, **options})


class Subscriber:
    """A stream that is read through the proxy, one chunk at a time."""

    def __init__(self, client: httpx.Client, topic: str) -> None:
        self._stack = contextlib.ExitStack()
        self.response = self._stack.enter_context(client.stream("GET", "/events", params={"topic": topic}))
        self.comments: list[str] = []
        self._chunks = self.response.iter_bytes()
        self._decoder = Decoder(on_comment=self.comments.append)
        self._events: list[Message] = []

    def read(self) -> None:
        """Wait for a chunk."""
        self._events += self._decoder.feed(next(self._chunks))

    def next(self, type: str = "message") -> Message:
        """Wait for an event, which must be of this type."""
        while not self._events:
            self.read()
        event = self._events.pop(0)
        assert event.type == type, event
        return event

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=PROXIES)
def front(
    request: pytest.FixtureRequest, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """Each proxy with three nodes, which a test leaves as they were."""
    name = request.param
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(NODES) as starters:
        nodes = list(starters.map(lambda _: stack.enter_context(node(name)), range(NODES)))
        ports = tuple(node.port for node in nodes)
        url = stack.enter_context(run(name, ports, tmp_path_factory.mktemp(name) / "run", certificate))
        yield Front(name, url, nodes, stack)
