"""Whom nodes believe: real processes over one file, with a key in their environment, and somebody who writes there."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from live import LiveServer, Stream, running, wait_for
from ssepool.brokers import connect
from ssepool.config import HubConfig

KEY = "hunter2"


def node(url: str, key: str) -> AbstractContextManager[LiveServer]:
    command = [sys.executable, "-m", "ssepool", "serve", "--dev", "--port", "0", "--broker", url, "--pool-size", "5"]
    return running(command, r"serving on (http\S*)", {"SSEPOOL_CLUSTER_KEY": key})


def known_to(server: LiveServer) -> set[str]:
    status, answer = server.request("GET", "/cluster")
    assert status == 200
    return {report["node"] for report in answer["nodes"]}


def dropped_by(server: LiveServer) -> int:
    _, answer = server.request("GET", "/cluster")
    dropped: int = answer["nodes"][0]["broker"]["messages_dropped"]
    return dropped


async def test_only_nodes_with_the_same_key_know_each_other_and_do_what_they_are_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with node(url, KEY) as one, node(url, KEY) as two, node(url, "another") as stranger:
        wait_for(lambda: len(known_to(one)) == len(known_to(two)) == 2, what="nodes that know each other")
        wait_for(lambda: dropped_by(one) and dropped_by(stranger), what="messages that are dropped")
        assert len(known_to(stranger)) == 1
        assert known_to(one) == known_to(two)

        # Any of both knows a wrong token of the other's connection.
        stream = Stream(one, "news").opened()
        token = stream.of_type("ssepool.open")[0]["token"]
        for server, given, status in ((two, token, 202), (two, "wrong", 401), (stranger, token, 401)):
            path, headers = f"/connections/{stream.connection}/messages", {"Authorization": f"Bearer {given}"}
            assert server.request("POST", path, 1, headers)[0] == status

        # Somebody else who can write to the broker.
        broker = connect(HubConfig(broker=url))
        await broker.open()
        before = dropped_by(one)
        order = {"kind": "kick", "sender": "ffffff", "body": {"id": stream.connection, "seconds": 60}}
        await broker.send(json.dumps(order).encode())
        await broker.close()
        wait_for(lambda: dropped_by(one) > before, what="the order dropped")
        assert one.request("GET", f"/connections/{stream.connection}")[0] == 200
        stream.close()
        stranger.said("messages of the side channel were dropped")
        for server in (one, two, stranger):
            assert KEY not in "".join(server.log)


def test_a_node_that_starts_keeps_away_who_was_kicked_before(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with node(url, "") as one:
        stream = Stream(one, "news", data={"name": "mallory"}).opened()
        assert one.request("DELETE", f"/connections/{stream.connection}?seconds=300")[0] == 204
        stream.to_end()
        stream.close()
        with node(url, "") as new:
            wait_for(lambda: is_sent_away(new), what="a ban that is learnt")


def is_sent_away(server: LiveServer) -> bool:
    stream = Stream(server, "news", data={"name": "mallory"})
    try:
        return bool(stream.until(lambda s: s.events).of_type("ssepool.close"))
    finally:
        stream.close()
