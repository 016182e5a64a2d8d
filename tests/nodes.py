"""Several nodes over one broker, clients of each, and publishers that try again until they are acknowledged."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from live import LiveServer, Stream, serve_command, wait_for

TIMEOUT = 1.0
"""Seconds that the broker may take."""

PATIENCE = TIMEOUT + 3.0
"""Seconds in which every publish has to be answered: on a busy machine, and only nine of ten are the broker's."""

TOPIC = "news"


@contextmanager
def start(url: str, count: int = 2, *flags: str) -> Iterator[list[LiveServer]]:
    """So many nodes, which know each other."""
    flags = ("--broker", url, "--broker-timeout", str(TIMEOUT), "--pool-size", "50", *flags)
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        nodes = list(pool.map(stack.enter_context, [serve_command(*flags) for _ in range(count)]))
        wait_acquainted(nodes)
        yield nodes


@contextmanager
def subscribed(nodes: list[LiveServer], *topics: str, **options: Any) -> Iterator[list[Stream]]:
    """A client of each node."""
    with ExitStack() as stack:
        yield [stack.enter_context(Stream(node, *(topics or (TOPIC,)), **options)).opened() for node in nodes]


def wait_acquainted(nodes: list[LiveServer]) -> None:
    def know_each_other() -> bool:
        answers = [node.request("GET", "/cluster") for node in nodes]
        return all(status == 200 and len(answer["nodes"]) == len(nodes) for status, answer in answers)

    wait_for(know_each_other, what="nodes that know each other")


def send(node: LiveServer, *events: dict[str, Any], seconds: float = PATIENCE) -> bool:
    """Whether these were published; the node has to say so in time. False too if it is not there."""
    body = json.dumps([{"topic": TOPIC, **event} for event in events]).encode()
    request = urllib.request.Request(node.url + "/events", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            assert answer.status == 201
            return True
    except urllib.error.HTTPError as error:
        with error:
            assert (error.code, json.load(error)["error"]["code"]) == (503, "broker_error")
        return False
    except urllib.error.URLError as error:
        assert isinstance(error.reason, ConnectionError), error
        return False
    except ConnectionError:
        return False


def is_ready(node: LiveServer) -> bool:
    status, _ = node.request("GET", "/health/ready")
    assert status in (200, 503)
    return status == 200


class Publisher:
    """Publishes number after number, each with an id of its own until it has been acknowledged: to one node after the
    other, or to one."""

    def __init__(self, nodes: list[LiveServer], name: str = "n", topic: str = TOPIC) -> None:
        self.acknowledged: list[str] = []
        self.refused = 0
        self.trouble: BaseException | None = None
        self._nodes = nodes
        self._name = name
        self._topic = topic
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        turn = 0
        try:
            while not self._stopped.is_set():
                data = f"{self._name}{len(self.acknowledged)}"
                if send(self._nodes[turn % len(self._nodes)], {"topic": self._topic, "data": data, "id": data}):
                    self.acknowledged.append(data)
                else:
                    self.refused += 1
                    time.sleep(0.02)  # it may be refused at once
                turn += 1
        except BaseException as error:
            self.trouble = error

    def more(self, count: int = 15) -> None:
        """Wait until so many more are published."""
        enough = len(self.acknowledged) + count
        wait_for(lambda: self.trouble or len(self.acknowledged) >= enough, what=f"{count} more published")
        assert self.trouble is None

    def stop(self) -> list[str]:
        """All that was published."""
        self._stopped.set()
        self._thread.join(2 * PATIENCE)
        if self.trouble is not None:
            raise self.trouble
        assert not self._thread.is_alive()
        return self.acknowledged

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()
