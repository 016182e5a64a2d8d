"""Brokers that go on answering while nobody can follow them: nodes that cannot do what they are for say so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client
from redis import Redis

from live import LiveServer, Stream, serve_command, wait_for
from nodes import TOPIC, Publisher, is_ready, send, start, subscribed
from service_fixtures import make_service
from services.nats import NatsCluster
from tools import require


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Redis]]:
    service = make_service("redis", tmp_path_factory.mktemp("redis"))
    service.start()
    with Redis(port=service.port) as client:
        yield service.url("following"), client
    service.kill()


def looks(node: LiveServer) -> list[bool]:
    """Whether it is ready, seen for more than a look of its own at the broker."""
    asked = threading.Event()
    return [is_ready(node) for _ in range(15) if not asked.wait(0.1)]


def test_nodes_that_may_publish_and_not_read_are_not_ready_and_catch_up(redis: tuple[str, Redis]) -> None:
    url, client = redis
    with start(url) as nodes, subscribed(nodes) as streams, Publisher(nodes) as publisher:
        publisher.more()
        client.execute_command("ACL", "SETUSER", "default", "-xread")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for node in nodes:
            wait_for(lambda node=node: not is_ready(node), what="not ready")
        publisher.more()
        for node in nodes:
            assert not any(looks(node))
            _, answer = node.request("GET", "/health/ready")
            assert "xread" in answer["error"]["message"]
            assert "\nssepool_broker_up 0" in node.request("GET", "/metrics")[1]
            assert len([line for line in node.log if "the broker is away" in line]) <= 2  # the cut, and the refusal
        client.execute_command("ACL", "SETUSER", "default", "+xread")
        for node in nodes:
            wait_for(lambda node=node: is_ready(node), what="ready again")
        expected = publisher.stop()
        for stream in streams:
            stream.until(lambda s: s.data[-1:] == expected[-1:])
            assert stream.data == expected
            assert not stream.of_type("ssepool.gap")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    require("nats-server")
    cluster = NatsCluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


async def _leader(port: int, stream: str) -> int:
    async with Client() as client:
        await client.connect(f"nats://127.0.0.1:{port}")
        info = await client.jetstream().stream_info(stream)
        assert info.cluster is not None and info.cluster.leader is not None
        return int(info.cluster.leader[1:])


def test_no_node_is_ready_where_the_servers_of_its_stream_have_no_majority(cluster: NatsCluster) -> None:
    """The node at the leader is answered by it for some ten seconds more."""
    with ExitStack() as stack:

        def node_at(place: int) -> LiveServer:
            url = f"nats://127.0.0.1:{cluster.servers[place].port}?name=few&replicas=3"
            return stack.enter_context(serve_command("--broker", url, "--broker-timeout", "5"))

        wait_for(lambda: can_make(cluster), what="a cluster with a leader")
        nodes = [node_at(0)]
        leader = asyncio.run(_leader(cluster.servers[0].port, "few"))
        nodes.append(node_at(leader or 1))
        at_leader = nodes[leader > 0]
        streams = [stack.enter_context(Stream(node, TOPIC)).opened() for node in nodes]
        assert send(nodes[0], {"data": "before"})
        for stream in streams:
            stream.wait_data("before")
        gone = [server for place, server in enumerate(cluster.servers) if place != leader]
        for server in gone:
            server.kill()
        for node in nodes:
            wait_for(lambda node=node: not is_ready(node), seconds=8.0, what="not ready")
        assert not any(looks(at_leader))
        assert "no majority: 1 of its 3" in at_leader.request("GET", "/health/ready")[1]["error"]["message"]
        for server in gone:
            server.start()
        for node in nodes:
            wait_for(lambda node=node: is_ready(node), seconds=30.0, what="ready again")
        wait_for(lambda: send(at_leader, {"data": "after", "id": "after"}))
        for stream in streams:
            stream.wait_data("before", "after")


def can_make(cluster: NatsCluster) -> bool:
    """Whether the cluster makes streams already."""

    async def make() -> bool:
        async with Client() as client:
            await client.connect(f"nats://127.0.0.1:{cluster.servers[0].port}")
            try:
                await client.jetstream(timeout=1).add_stream(name="try", subjects=["try"], num_replicas=3)
            except Exception:
                return False
            return True

    return asyncio.run(make())
