"""A hub's lives: one after the other, in other event loops, in other processes, with all that was mounted before."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from ssepool import AccessConfig, AlreadyOpen, ConfigError, Hub, HubConfig, PoolClosed, PoolConfig
from ssepool.core.beginning import Found
from ssepool.core.grant import ANYBODY, Grant
from ssepool.core.topics import Subscription
from ssepool.http.access.asking import Asking

OPEN = AccessConfig(public_topics=("news",))


def hub_of(**settings: Any) -> Hub:
    return Hub(HubConfig(access=OPEN, pool=PoolConfig(size=2), **settings))


def application(hub: Hub) -> Starlette:
    async def publish(request: Request) -> Response:
        return PlainTextResponse(await hub.publish("news", "hello"))

    async def follow(request: Request) -> Response:
        async def words() -> AsyncIterator[str]:
            yield "one"
            yield "two"

        return hub.stream(request, words())

    routes = [Route("/publish", publish), Route("/words", follow), Mount("/sse", hub.app)]
    return Starlette(routes=routes, lifespan=hub.lifespan)


async def test_a_hub_opens_anew_with_nothing_of_its_life_before() -> None:
    hub = hub_of()
    lives = []
    for _ in range(3):
        async with hub:
            id = await hub.publish("news", "hello")
            assert id.endswith("-1"), "a history of its own"
            engine = hub.parts.engine
            lives.append((engine.node, id, engine.connections.token("x"), hub.parts))
            assert hub.stats().node == engine.node
        with pytest.raises(PoolClosed):
            await hub.publish("news", "too late")
    assert len({life[0] for life in lives}) == len({life[1] for life in lives}) == len({life[2] for life in lives}) == 3
    assert lives[0][3] is not lives[1][3]


def test_a_hub_opens_anew_in_another_event_loop() -> None:
    hub = hub_of()

    async def live() -> str:
        async with hub:
            return await hub.publish("news", "hello")

    assert asyncio.run(live()) != asyncio.run(live())


def test_an_application_is_started_twice_in_a_process() -> None:
    hub = hub_of()
    app = application(hub)
    seen: list[str] = []
    hub.on_connect(lambda connection: seen.append(connection.id))
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/publish").status_code == 200
            answer = client.get("/words")
            assert "data: one" in answer.text
            assert "data: two" in answer.text
            assert client.get("/sse/health/ready").status_code == 200
            assert client.post("/sse/events", json={"topic": "news", "data": 1}).status_code == 401
        assert client.get("/sse/health/ready").status_code == 503
    first, second = seen
    assert first.partition("-")[0] != second.partition("-")[0]


def test_what_an_application_added_to_the_hubs_own_stays() -> None:
    hub = hub_of()
    seen: list[str] = []

    class Seen:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])
            await self.app(scope, receive, send)

    app = hub.app
    app.add_middleware(Seen)
    app.add_route("/own", lambda request: PlainTextResponse("mine"))
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/own").text == "mine"
            assert client.get("/health/ready").status_code == 200
        assert seen == ["lifespan", "http", "http"]
        seen.clear()
    assert hub.app is app


def test_each_life_asks_the_door_of_its_own(tmp_path: Path) -> None:
    asked: list[str] = []

    def who(asking: Asking) -> Grant:
        asked.append(asking.action)
        return ANYBODY

    hub = Hub(HubConfig(pool=PoolConfig(size=2)), authorize=who)
    for _ in range(2):
        with TestClient(hub.app) as client:
            assert client.post("/events", json={"topic": "news", "data": 1}).status_code == 201
            ticket = client.post("/tickets", json={"topics": ["news"]})
            assert ticket.status_code in (201, 404)
    assert asked.count("publish") == 2


FORKED = """
import asyncio, os, sys
from ssepool import AccessConfig, Hub, HubConfig

hub = Hub(HubConfig(broker=sys.argv[1], access=AccessConfig(public_topics=("news",))))
app = hub.app

async def live():
    async with hub:
        engine, cluster = hub.parts.engine, hub.parts.cluster
        id = await hub.publish("news", "hello")
        seen = engine.node, cluster.me.node, engine.connections.token("x"), app._engine.node, id.partition("-")[0]
        print(cluster.me.pid == os.getpid(), *seen, flush=True)

for child in range(3):
    if (pid := os.fork()) == 0:
        asyncio.run(live())
        os._exit(0)
    os.waitpid(pid, 0)
asyncio.run(live())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_processes_that_were_forked_share_no_name_and_no_secret(kind: str, tmp_path: Path) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/events.db"
    command = [sys.executable, "-c", FORKED, url]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    lives = [line.split() for line in told.splitlines()]
    assert len(lives) == 4
    for own, node, known, _, served, _ in lives:
        assert (own, known, served) == ("True", node, node)
    assert len({life[1] for life in lives}) == len({life[3] for life in lives}) == 4
    assert len({life[5] for life in lives}) == 4  # each opens the history alone, and begins a timeline


async def test_a_hub_that_is_open_is_not_opened_once_more() -> None:
    hub = hub_of()
    async with hub:
        with pytest.raises(AlreadyOpen, match="open already"):
            await hub.open()
        await hub.publish("news", "all is well")
        await asyncio.to_thread(refused_elsewhere, hub)
        async with hub.lifespan():  # as where a server has opened it
            pass
        await hub.publish("news", "and it is open still")


def refused_elsewhere(hub: Hub) -> None:
    async def enter() -> None:
        async with hub.lifespan():
            pass

    with pytest.raises(AlreadyOpen):
        asyncio.run(enter())


async def test_a_hub_that_could_not_be_opened_opens_later(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    hub = hub_of(broker=f"sqlite:///{folder}/events.db")
    with pytest.raises(ConfigError):
        await hub.open()
    folder.mkdir()
    async with hub:
        await hub.publish("news", "hello")


def test_a_loop_that_ended_without_closing_the_hub_does_not_keep_it() -> None:
    hub = hub_of()
    asyncio.run(hub.open())
    asyncio.run(hub.open())
    asyncio.run(hub.close())


async def test_a_revocation_and_a_ban_of_a_life_are_not_those_of_the_next() -> None:
    hub = hub_of()
    async with hub:
        await hub.revoke(subject="u1")
        assert len(hub.parts.engine.revocations) == 1
    async with hub:
        assert len(hub.parts.engine.revocations) == 0


async def test_what_a_broker_keeps_is_there_in_the_next_life(tmp_path: Path) -> None:
    hub = hub_of(broker=f"sqlite:///{tmp_path}/events.db")
    async with hub:
        await hub.revoke(subject="u1")
        first = await hub.publish("news", "one")
    async with hub:
        assert len(hub.parts.engine.revocations) == 1
        second = await hub.publish("news", "two")
        assert hub.parts.engine.log.find(first, Subscription.of(["news"])) == Found(1, True)
    assert int(first[-1]) + 1 == int(second[-1])
