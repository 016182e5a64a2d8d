"""What strangers can have the hub hold: memory grows by what the settings say, whatever the events are made of."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator

import pytest

from attacking import suffer
from live import DEADLINE, LiveServer, serve
from ssepool.config import MiB

HISTORY = 8 * MiB
BESIDE_MEGABYTES = 14.0
"""What a server takes beside its history while it reads batches of half a megabyte, and what the allocator keeps."""


def batches(count: int, events: int, event: Callable[[int], object]) -> Iterator[bytes]:
    for batch in range(count):
        yield json.dumps([event(batch * events + number) for number in range(events)]).encode()


def published(bodies: Iterator[bytes]) -> Callable[[LiveServer], None]:
    """The attack that publishes these batches, and has the history looked through for its topics by a client that
    resumes."""

    def attack(server: LiveServer) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
        for body in bodies:
            connection.request("POST", "/events", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 201
            reader = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
            reader.request("GET", "/events?topic=nobody's", headers={"Last-Event-ID": "earliest"})
            assert reader.getresponse().readline() != b""
            reader.close()
        connection.close()

    return attack


EVENTS: dict[str, tuple[int, int, Callable[[int], object]]] = {
    "of 100 topics": (20, 500, lambda n: {"data": "", "topics": [f"orders/{n:05}/{t:03}" for t in range(100)]}),
    "of 10 long topics": (30, 50, lambda n: {"data": "", "topics": [f"{n}/{t}/" + "x" * 1000 for t in range(10)]}),
    "empty": (20, 5000, lambda n: {"data": "", "topic": "a"}),
    "of topics in Chinese": (20, 500, lambda n: {"data": "", "topics": [f"{n}/{t}/" + "事" * 10 for t in range(50)]}),
}


@pytest.mark.parametrize(("count", "events", "event"), EVENTS.values(), ids=EVENTS)
def test_the_history_takes_no_more_than_it_may(count: int, events: int, event: Callable[[int], object]) -> None:
    with serve("detached", size=100, history_events=10**6, history_bytes=HISTORY) as server:
        worst = suffer(server, published(batches(count, events, event)))
        print(worst)
        assert worst.grown <= 1.3 * HISTORY / 1e6 + BESIDE_MEGABYTES
