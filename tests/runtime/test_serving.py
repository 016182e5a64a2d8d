"""Serving: which server is found, and when it counts as ending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from ssepool.runtime import serving
from ssepool.runtime.serving import LOOK_SECONDS, MAX_SEARCHES, at_its_end, is_ending, servers
from virtual import in_virtual_time, now


class Listening:
    """A socket's server."""

    def __init__(self, serves: bool = True) -> None:
        self.serves = serves

    def is_serving(self) -> bool:
        return self.serves


class Server(uvicorn.Server):
    """A server that serves nothing until it is told to exit."""

    def __init__(self) -> None:
        super().__init__(uvicorn.Config(app="none"))
        self.servers: list[Any] = [Listening()]
        self.started = True
        self.inside = asyncio.Event()

    async def serve(self, sockets: Any = None) -> None:
        await self._serve()

    async def _serve(self, sockets: Any = None) -> None:
        self.inside.set()
        await asyncio.sleep(3600)


async def wrapped(server: Server) -> None:
    await server.serve()


@in_virtual_time
async def test_servers_are_found_in_the_tasks_of_this_loop_however_they_were_begun() -> None:
    assert servers() == []
    first, second = Server(), Server()
    tasks = [asyncio.create_task(first.serve()), asyncio.create_task(wrapped(second))]
    await first.inside.wait()
    await second.inside.wait()
    assert {id(server) for server in servers()} == {id(first), id(second)}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert servers() == []


@in_virtual_time
async def test_in_a_lifespan_only_the_server_counts_that_has_begun_it() -> None:
    class Lifespan:
        async def main(self) -> list[Any]:
            return servers()

    first, second = Server(), Server()
    tasks = [asyncio.create_task(server.serve()) for server in (first, second)]
    lifespan: Any = Lifespan()
    second.lifespan = lifespan
    await second.inside.wait()
    assert await asyncio.create_task(lifespan.main()) == [second]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@in_virtual_time
async def test_a_server_ends_when_it_is_told_to_or_listens_no_more() -> None:
    server = Server()
    assert not is_ending(server)
    server.servers[0].serves = False
    assert is_ending(server)
    server.started = False  # not yet
    assert not is_ending(server)
    server.should_exit = True
    assert is_ending(server)
    server = Server()
    server.servers = []  # another accepts for it
    assert not is_ending(server)


@in_virtual_time
async def test_its_end_is_told_once_also_if_it_began_after_the_hub() -> None:
    told: list[float] = []
    began = now()()
    with at_its_end(lambda: told.append(now()() - began)):
        await asyncio.sleep(1)
        server = Server()
        task = asyncio.create_task(server.serve())
        await asyncio.sleep(10)
        assert told == []
        server.should_exit = True
        await asyncio.sleep(10)
    assert len(told) == 1
    assert 11 <= told[0] <= 11 + 2 * LOOK_SECONDS
    task.cancel()
    await asyncio.wait([task])


@in_virtual_time
async def test_without_a_server_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr(serving, "servers", lambda: looks.append(now()()) or [])
    with at_its_end(lambda: pytest.fail("nothing ends")):
        await asyncio.sleep(60)
    assert len(looks) == 1 + MAX_SEARCHES
    with at_its_end(lambda: pytest.fail("nothing ends")):
        pass
    await asyncio.sleep(60)
    assert len(looks) == 2 + MAX_SEARCHES
