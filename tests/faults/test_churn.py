"""Thousands of random comings and goings, after which every number of the pool is true."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from live import LiveServer, Stream, wait_for
from live_fixtures import Start

STEPS = 6000
SIZE, MAX_WAITING = 20, 10


class Storm:
    """Clients that do what the dice say."""

    def __init__(self, server: LiveServer, seed: object) -> None:
        self.server = server
        self.dice = random.Random(f"{seed}")
        self.clients: list[Stream] = []
        self.opened = self.turned_away = 0

    def step(self) -> None:
        kinds = {
            self.come: 50,
            self.leave: 30,
            self.read: 15,
            self.rest: 2,
            self.come_and_go: 10,
            self.half_a_head: 3,
            self.publish: 2,
            self.kick: 2,
            self.look: 2,
            self.resize: 1,
        }
        self.dice.choices(list(kinds), list(kinds.values()))[0]()

    def step_until_all_has_happened(self) -> bool:
        """A hundred steps more; whether requests and connections have ended in every way by now."""
        for _ in range(100):
            self.step()
        pool = self.server.pool()
        ends = [pool[name] for name in ("queued", "timed_out", "cancelled", "refused")]
        return min(ends + [pool["released"][reason] for reason in ("client_closed", "kicked", "lifetime")]) > 0

    def come(self) -> None:
        if len(self.clients) < 3 * (SIZE + MAX_WAITING):
            topic = self.dice.choice(["a", "b", "c"])
            headers = {"Content-Length": "0"} if self.dice.random() < 0.5 else {}
            last_id = self.dice.choice([None, None, "earliest", "unknown"])
            self.clients.append(Stream(self.server, topic, headers=headers, last_event_id=last_id))

    def leave(self) -> None:
        if self.clients:
            client = self.clients.pop(self.dice.randrange(len(self.clients)))
            self.note(client)
            client.close(reset=self.dice.random() < 0.5)

    def read(self) -> None:
        for client in self.dice.sample(self.clients, min(5, len(self.clients))):
            client.read(0)
            if client.ended:
                self.note(client)
                client.close()
                self.clients.remove(client)

    def rest(self) -> None:
        """Give the server's timers time."""
        if self.clients:
            self.dice.choice(self.clients).read(0.03)

    def come_and_go(self) -> None:
        Stream(self.server, "a").close(reset=self.dice.random() < 0.5)

    def half_a_head(self) -> None:
        client = Stream(self.server, path="/events?topic=a HTTP/1.1\r\nX-Half: ")
        client.close(reset=self.dice.random() < 0.5)

    def publish(self) -> None:
        self.server.publish(self.dice.choice(["a", "b", "c"]), "x" * self.dice.choice([1, 1000, 100_000]))

    def kick(self) -> None:
        connections = self.server.request("GET", "/connections?limit=1")[1]["connections"]
        for connection in connections:
            self.server.request("DELETE", f"/connections/{connection['id']}?seconds=0")

    def look(self) -> None:
        self.server.pool()  # which checks the sum

    def resize(self) -> None:
        self.server.request("PATCH", "/pool", {"size": self.dice.randint(SIZE // 2, 2 * SIZE)})

    def note(self, client: Stream) -> None:
        kinds = {event.type for event in client.events}
        self.opened += "ssepool.open" in kinds
        self.turned_away += "ssepool.close" in kinds and "ssepool.open" not in kinds

    def end(self) -> None:
        while self.clients:
            with contextlib.suppress(OSError):
                self.leave()


@pytest.mark.timeout(180)
@pytest.mark.paths("detached", "plain", "hypercorn")
@pytest.mark.parametrize("announce_queue", [False, True], ids=["silent", "announced"])
def test_the_numbers_are_true_after_a_storm(path: str, start: Start, announce_queue: bool) -> None:
    server = start(
        app=True,
        size=SIZE,
        max_waiting=MAX_WAITING,
        acquire_timeout=0.1,
        reap_interval=0.01,
        heartbeat_interval=0.1,
        max_lifetime=0.3,
        announce_queue=announce_queue,
    )
    storm = Storm(server, (path, announce_queue))
    try:
        for _ in range(STEPS if path == "detached" else STEPS // 2):
            storm.step()
        wait_for(storm.step_until_all_has_happened, seconds=60)
    finally:
        storm.end()
    assert server.request("PATCH", "/pool", {"size": SIZE})[0] == 200
    pool = server.wait_pool(free=SIZE, size=SIZE, open=0, reserved=0, closing=0, waiting=0)

    assert pool["requests"] == pool["granted"] + pool["timed_out"] + pool["cancelled"] + pool["refused"]
    assert pool["granted"] == sum(pool["released"].values())
    assert pool["queued"] >= pool["timed_out"] + pool["cancelled"]
    assert pool["granted"] >= storm.opened > 0
    assert pool["timed_out"] + pool["refused"] >= storm.turned_away
    assert pool["released"]["error"] == 0

    wait_for(lambda: hooks(server)[0] == sum(hooks(server)[1].values()))
    connects, disconnects = hooks(server)
    assert connects >= storm.opened
    # Whose client left before its stream opened has been nobody's connection.
    unopened = pool["granted"] - connects
    assert {**disconnects, "client_closed": disconnects["client_closed"] + unopened} == {
        reason: count for reason, count in pool["released"].items() if count
    }
    count_exactly(server, pool["released"])


def hooks(server: LiveServer) -> tuple[int, dict[str, int]]:
    """How many connections the hooks have seen come, and go by reason."""
    counts: dict[str, Any] = server.request("GET", "/counts")[1]
    return sum(counts["connects"].values()), counts["disconnects"]


def count_exactly(server: LiveServer, before: dict[str, int]) -> None:
    """After all that the same server still counts to the last one."""
    streams = [Stream(server, "a").opened() for _ in range(12)]
    server.wait_pool(open=12, free=SIZE - 12)
    for place, stream in enumerate(streams[:8]):
        stream.close(reset=place % 2 == 0)
    for stream in streams[8:]:
        server.request("DELETE", f"/connections/{stream.connection}?seconds=0")
    released = {"client_closed": before["client_closed"] + 8, "kicked": before["kicked"] + 4}
    server.wait_pool(free=SIZE, open=0, released=released)
    for stream in streams[8:]:
        stream.close()
