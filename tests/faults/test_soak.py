"""Many subscribers who come and go at random while events go on: nothing is lost, doubled or out of order."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest

import swarm
from live import DEADLINE, LiveServer
from live_fixtures import Start

RATE = 50
"""Events a second."""
CROWDS = {"detached": (1000, 15), "plain": (300, 5), "hypercorn": (100, 5)}
"""Subscribers and seconds; the other paths cost more of the machine."""
UNREST = 0.05
"""Seconds after which a hundredth of the subscribers leaves and comes back."""


class Publisher(threading.Thread):
    """Publishes the numbers from 0 on, so many a second, on one connection."""

    def __init__(self, server: LiveServer, topic: str, total: int) -> None:
        super().__init__()
        self._server, self._topic, self._total = server, topic, total
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            client = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=DEADLINE)
            begun = time.monotonic()
            for number in range(self._total):
                # The pace, not a wait for anything: late ones follow at once.
                time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
                body = json.dumps({"topic": self._topic, "data": number})
                client.request("POST", "/events", body, {"Content-Type": "application/json"})
                with client.getresponse() as answer:
                    assert answer.status == 201, answer.read()
                    answer.read()
            client.close()
        except BaseException as error:
            self.failure = error


@pytest.mark.timeout(180)
@pytest.mark.paths("detached", "plain", "hypercorn")
def test_a_thousand_subscribers_lose_nothing(path: str, start: Start) -> None:
    size, seconds = CROWDS[path]
    total = RATE * seconds
    # Fewer slots than clients for a moment: who comes back may have to wait for those who are being noticed leaving.
    server = start(size=size, max_waiting=size, acquire_timeout=600)
    crowd = swarm.Swarm(server, "soak", size, seed=size)
    publisher = Publisher(server, "soak", total)
    try:
        for subscriber in crowd.subscribers:
            subscriber.come()
        publisher.start()
        calm_until = time.monotonic() + UNREST
        while publisher.is_alive():
            crowd.read(UNREST)
            if time.monotonic() >= calm_until:
                crowd.restless(0.01)
                calm_until = time.monotonic() + UNREST
            crowd.check()
        assert publisher.failure is None, publisher.failure
        crowd.run_until(total - 1, seconds=60)
        server.wait_pool(open=size, waiting=0)
        numbers = server.request("GET", "/pool")[1]
        assert numbers["events"]["published"] == total
        # More than they have seen: who leaves does not read to the end what it was sent.
        assert numbers["events"]["delivered"] >= total * size
        assert numbers["events"]["skipped"] == 0
        assert numbers["pool"]["granted"] <= sum(subscriber.visits for subscriber in crowd.subscribers)
    finally:
        crowd.close()
