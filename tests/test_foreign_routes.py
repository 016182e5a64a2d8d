"""Routes of an application of one's own that publish: what they answer when that fails, and from which thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import litestar
import pydantic
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from parts import until
from ssepool import (
    BadCredentials,
    BrokerError,
    Event,
    EventTooLarge,
    Grant,
    Hub,
    HubConfig,
    InvalidEvent,
    PoolClosed,
    PoolConfig,
    PoolFull,
    RateExceeded,
    Unauthorized,
)

QUIET = HubConfig(pool=PoolConfig(size=2), detach=False)


async def _invalid_topic(hub: Hub, request: Any) -> Any:
    await hub.publish("a/../b", "x")


async def _invalid_event(hub: Hub, request: Any) -> Any:
    await hub.publish("a", object())


async def _invalid_event_of_a_batch(hub: Hub, request: Any) -> Any:
    await hub.publish_many([Event("x", ("a",), id="a b")])


async def _too_large(hub: Hub, request: Any) -> Any:
    await hub.publish("a", "x" * 2**21)


async def _closed(hub: Hub, request: Any) -> Any:
    await Hub(QUIET).publish("a", "x")


async def _closed_response(hub: Hub, request: Any) -> Any:
    return Hub(QUIET).response(request, topics=["a"], headers={"X-Own": "1"})


async def _bad_topic_response(hub: Hub, request: Any) -> Any:
    return hub.response(request, topics=[""], headers={"X-Own": "1"})


async def _forbidden(hub: Hub, request: Any) -> Any:
    return hub.response(request, topics=["a"], grant=Grant(subject="ann"), headers={"X-Own": "1"})


def _raises(error: Exception) -> Any:
    async def route(hub: Hub, request: Any) -> Any:
        raise error

    return route


ROUTES: list[tuple[Any, int]] = [
    (_invalid_topic, 400),
    (_invalid_event, 400),
    (_invalid_event_of_a_batch, 400),
    (_too_large, 413),
    (_closed, 503),
    (_closed_response, 503),
    (_bad_topic_response, 400),
    (_forbidden, 403),
    (_raises(BrokerError("it is away")), 503),
    (_raises(PoolFull("full")), 503),
    (_raises(PoolClosed()), 503),
    (_raises(EventTooLarge("large")), 413),
    (_raises(RateExceeded("fast", 1.5)), 429),
    (_raises(BadCredentials("two")), 400),
    (_raises(Unauthorized("who", presented=True)), 401),
    (_raises(InvalidEvent("a\udc80")), 400),
]


def fastapi_app(hub: Hub, route: Any) -> Any:
    app = FastAPI()

    @app.get("/")
    async def get(request: FastAPIRequest) -> Any:
        return await route(hub, request)

    return app


def starlette_app(hub: Hub, route: Any) -> Any:
    async def get(request: Request) -> Any:
        return await route(hub, request)

    return Starlette(routes=[Route("/", get)])


def litestar_app(hub: Hub, route: Any) -> Any:
    @litestar.get("/")
    async def get(request: litestar.Request[Any, Any, Any]) -> Any:
        return await route(hub, request)

    return litestar.Litestar([get], openapi_config=None)


@contextlib.asynccontextmanager
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@pytest.mark.parametrize("build", [fastapi_app, starlette_app, litestar_app])
async def test_a_route_that_meets_an_error_of_the_hub_has_its_status(build: Callable[..., Any]) -> None:
    async with Hub(QUIET) as hub:
        for route, status in ROUTES:
            if build is litestar_app and route is _closed_response:
                continue  # there it is an ASGI application that Litestar runs behind its own answer
            async with http(build(hub, route)) as client:
                answer = await client.get("/")
            assert answer.status_code == status, (route, answer.text)
            assert not answer.headers["content-type"].startswith("text/event-stream"), route
            if status == 401:
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]
            if status == 429:
                assert answer.headers["retry-after"] == "2"
            if route in (_closed_response, _bad_topic_response, _forbidden):
                assert answer.headers["x-own"] == "1"


async def test_a_handler_of_the_application_comes_first_and_a_defect_stays_one() -> None:
    async with Hub(QUIET) as hub:
        app = starlette_app(hub, _raises(BrokerError("x")))
        app.add_exception_handler(BrokerError, lambda request, error: JSONResponse({"mine": str(error)}, 418))
        async with http(app) as client:
            answer = await client.get("/")
            assert (answer.status_code, answer.json()) == (418, {"mine": "x"})


# From threads.


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(alias="itemName")


def threaded_app(hub: Hub) -> FastAPI:
    app = FastAPI()

    @app.post("/sync")
    def sync() -> str:
        return hub.publish_sync("a", Item(itemName="sync"), type="t")

    @app.post("/future")
    def future() -> str:
        return hub.publish_threadsafe("a", Item(itemName="future")).result(10)

    @app.post("/background")
    def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(hub.publish_sync, "a", Item(itemName="background"))

    @app.post("/nowait")
    def nowait() -> str:
        return hub.publish_nowait("a", "late")

    @app.post("/loop")
    async def loop() -> str:
        return hub.publish_sync("a", "for ever")

    @app.post("/bad")
    def bad() -> str:
        return hub.publish_sync("a/../b", "x")

    return app


async def test_plain_functions_of_fastapi_publish() -> None:
    async with Hub(QUIET) as hub, http(threaded_app(hub)) as client:
        for path in ("/sync", "/future"):
            answer = await client.post(path)
            assert (answer.status_code, "-" in answer.json()) == (200, True)
        await client.post("/background")
        await until(lambda: hub.stats().events_published == 3)
        frames = [entry.frame.split(b"data: ")[1] for entry in hub.parts.engine.log.window.read(0, max_entries=10)]
        assert frames == [b'{"itemName":"%b"}\n\n' % name for name in (b"sync", b"future", b"background")]
        assert (await client.post("/bad")).status_code == 400


async def test_what_would_be_late_or_wait_for_itself_is_a_defect_that_says_so() -> None:
    async with Hub(QUIET) as hub:
        transport = httpx.ASGITransport(threaded_app(hub))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            with pytest.raises(RuntimeError, match=r"publish_nowait was called in another thread"):
                await client.post("/nowait")
            with pytest.raises(RuntimeError, match=r"it is `await hub\.publish"):
                await client.post("/loop")
        assert hub.publish_nowait("a", "on the loop")


async def test_a_coroutine_of_another_event_loop_is_told_what_to_do() -> None:
    async with Hub(QUIET) as hub:

        async def elsewhere() -> str:
            with pytest.raises(RuntimeError, match="another thread"):
                await hub.publish("a", "x")
            return await asyncio.wrap_future(hub.publish_threadsafe("a", "x"))

        assert await asyncio.to_thread(asyncio.run, elsewhere())


def test_a_thread_that_waits_is_told_when_the_hub_closes() -> None:
    outcome: list[Any] = []
    hub = Hub(QUIET)
    with pytest.raises(PoolClosed):
        hub.publish_sync("a", "too early")

    def publish() -> None:
        try:
            while True:
                hub.publish_sync("a", "x")
        except PoolClosed as error:
            outcome.append(error)

    async def main() -> None:
        async with hub:
            thread.start()
            await until(lambda: hub.stats().events_published > 10)

    thread = threading.Thread(target=publish, daemon=True)
    asyncio.run(main())
    thread.join(10)
    assert len(outcome) == 1


# Data.


class Unknown:
    pass


async def test_the_hook_of_a_hub_counts_on_every_way_to_publish() -> None:
    hub = Hub(QUIET, json_encoder=lambda unknown: type(unknown).__name__)
    async with hub:
        data = {"a": [Unknown(), Item(itemName="x")]}
        await hub.publish("a", data)
        hub.publish_nowait("a", data)
        await hub.publish_many([hub.event("a", data)])
        await asyncio.to_thread(hub.publish_sync, "a", data)
        frames = {entry.frame.split(b"data: ")[1] for entry in hub.parts.engine.log.window.read(0, max_entries=10)}
        assert frames == {b'{"a":["Unknown",{"itemName":"x"}]}\n\n'}
    with pytest.raises(InvalidEvent, match="json_encoder"):
        Hub(QUIET).event("a", data)
    async with hub:  # once more
        await asyncio.to_thread(hub.publish_sync, "a", data)
        assert hub.stats().events_published == 1


async def test_an_endless_generator_ends_with_max_event_size() -> None:
    def forever() -> Any:
        while True:
            yield 1

    async with Hub(HubConfig(pool=PoolConfig(size=2), max_event_size=1000, detach=False)) as hub:
        with pytest.raises(EventTooLarge, match="1000 bytes"):
            await hub.publish("a", forever())
        with pytest.raises(InvalidEvent, match="is no event"):
            await hub.publish_many([{"data": "x"}])  # type: ignore[list-item]
