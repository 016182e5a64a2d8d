"""An application around `Hub.stream` and `Hub.response` that tests drive from outside: `uvicorn stream_app:app`.

A source is a generator's stand-in that yields what it is fed with and counts what is done with it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from fastapi.sse import ServerSentEvent as FastAPIEvent
from sse_starlette import ServerSentEvent as StarletteEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from parts import public_app
from ssepool import Connection, ConnectionReleased, Departed, Event, Hub
from ssepool.config import load
from ssepool.core.frames import DialectFields

END, FAIL = "END", "FAIL"
FLOOD = "x" * 65_536
MANY = 20_000


class Unknown:
    """What nothing but the application's own function makes JSON of."""


hub = Hub(load(env=os.environ)[0], json_encoder=lambda unknown: {"unknown": type(unknown).__name__})


items: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
handles: dict[str, Connection] = {}
calls: list[list[Any]] = []
departed: dict[str, dict[str, Any]] = {}

KINDS: dict[str, Callable[[], Any]] = {
    "UNKNOWN": lambda: [Unknown(), {"inside": Unknown()}],
    "FASTAPI": lambda: FastAPIEvent(data={"n": 1}, event="fast", id="fast-1"),
    "STARLETTE": lambda: StarletteEvent(data="plain", event="star", id="star-1", comment="note"),
    "FRAME": lambda: Event.from_frame(": note\nevent: patch\nid: frame-1\ndata: a\ndata: b\n\n"),
}
"""Items that are no JSON, by the name with which a test asks for them."""


class Source:
    """What a test feeds it with; closing is counted even if nothing was ever asked of it, unlike a generator's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = counts[name]
        self.counts["made"] += 1
        self.begun = self.closed = False
        self.ticker: asyncio.Task[None] | None = None

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        if not self.begun:
            self.begun = True
            self.counts["begun"] += 1
            if self.name.startswith("busy"):
                self.ticker = asyncio.create_task(self._tick())
        if self.name.startswith("flood"):
            item = FLOOD
        elif self.name.startswith("busy"):
            item = "x" if self.counts["pulled"] < MANY else END
        else:
            item = await items[self.name].get()
        if item == END:
            raise StopAsyncIteration
        if item == FAIL:
            raise RuntimeError(f"the source {self.name} failed")
        if item == "RELEASED":  # what a generator meets that sends to another client, which has left
            raise ConnectionReleased(f"the source {self.name} met a released connection")
        if item == "CANCELLED":  # something that it waits for was cancelled
            raise asyncio.CancelledError
        self.counts["pulled"] += 1
        if isinstance(item, str) and item in KINDS:
            return KINDS[item]()
        return Event(**item) if isinstance(item, dict) else item

    async def _tick(self) -> None:
        """Count the turns of the event loop."""
        while True:
            self.counts["turns"] += 1
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            if self.ticker is not None:
                self.ticker.cancel()
            await asyncio.sleep(0.05)  # as cleaning up does that talks to others
            self.counts["closed"] += 1
            print(f"closed {self.name}", flush=True)


async def stream(request: Request) -> Response:
    source, topic = Source(request.path_params["name"]), request.query_params.get("topic")
    return hub.stream(request, source, topic=topic, headers=cors(request), **wire(request))


def cors(request: Request) -> dict[str, str]:
    """What lets a page of another site read the answer."""
    origin = request.headers.get("origin")
    return {} if origin is None else {"Access-Control-Allow-Origin": origin, "X-Own": "1"}


def wire(request: Request) -> DialectFields:
    """How the client wants it."""
    query = request.query_params
    found: dict[str, Any] = {name: query[name] for name in DialectFields.__annotations__ if name in query}
    if "own_events" in found:
        found["own_events"] = found["own_events"] == "true"
    return found  # type: ignore[return-value]


async def ask(request: Request) -> Response:
    """An answer as clients of models ask for one: `/ask/NAME` and whatever they add to it."""
    name, chat = request.path_params["name"], "chat" in request.query_params
    fields: DialectFields = {"own_events": False, **wire(request)}
    return hub.stream(request, Source(name), topic=f"answers/{name}" if chat else None, **fields)


async def feed(request: Request) -> Response:
    for item in await request.json():
        items[request.path_params["name"]].put_nowait(item)
    return JSONResponse({})


async def count(request: Request) -> Response:
    return JSONResponse(counts[request.path_params["name"]])


async def listen(request: Request) -> Response:
    query = request.query_params
    return hub.response(
        request,
        topics=[request.path_params["topic"]],
        user=query.get("as"),
        data={"page": 3},
        last_event_id=query.get("since"),
        headers=cors(request),
        **wire(request),
    )


async def send(request: Request) -> Response:
    """Publish and send by turns, as the body says: `[["publish", topic, data], ["send", data], ...]`."""
    connection = handles[request.path_params["connection"]]
    for what, *arguments in await request.json():
        if what == "publish":
            await hub.publish(*arguments)
        else:
            await connection.send(*arguments)
    return JSONResponse({})


async def kick(request: Request) -> Response:
    hub.kick(handles[request.path_params["connection"]], float(request.query_params.get("seconds", 0)))
    return JSONResponse({})


async def complete(request: Request) -> Response:
    """End all streams of a topic for good."""
    for connection in list(hub.connections):
        if request.path_params["topic"] in connection.topics:
            connection.close("completed")
    return JSONResponse({})


async def handle(request: Request) -> Response:
    """What each attribute of a handle gives: its value, or the name of the error."""
    connection = handles[request.path_params["connection"]]
    found: dict[str, Any] = {"id": connection.id, "is_open": connection.is_open}
    names = ("user", "ip", "data", "topics", "patterns", "opened_at", "events_sent", "bytes_sent", "events_skipped")
    for name in names:
        try:
            found[name] = getattr(connection, name)
        except ConnectionReleased as error:
            found[name] = type(error).__name__
    if not connection.is_open:
        try:
            await connection.send("to somebody else?")
        except ConnectionReleased as error:
            found["send"] = type(error).__name__
        try:
            connection.close()
        except ConnectionReleased as error:
            found["close"] = type(error).__name__
    return JSONResponse(found)


async def gone(request: Request) -> Response:
    """What the hook was told of a client that has left."""
    return JSONResponse(departed.get(request.path_params["connection"]))


async def called(request: Request) -> Response:
    return JSONResponse(calls)


@hub.on_connect
async def came(connection: Connection) -> None:
    handles[connection.id] = connection
    calls.append(["connect", connection.id, connection.user])
    if connection.user == "greeted":
        await connection.send("welcome", type="greeting", id="greeting-1")
    if connection.user == "unwanted":
        connection.close()


@hub.on_connect
def fails(connection: Connection) -> None:
    if connection.user == "unlucky":
        raise RuntimeError("this hook fails")


@hub.on_disconnect
def left(connection: Departed, reason: str) -> None:
    calls.append(["disconnect", connection.id, reason])
    departed[connection.id] = {"user": connection.user, "topics": connection.topics, "data": connection.data}


@hub.on_message
def received(connection: Connection, data: Any) -> None:
    calls.append(["message", connection.id, data])


app = Starlette(
    routes=[
        Route("/streams/{name}", stream, methods=["GET", "HEAD"]),
        Route("/streams/{name}", feed, methods=["POST"]),
        Route("/sources/{name}", count),
        Route("/listen/{topic}", listen),
        Route("/send/{connection}", send, methods=["POST"]),
        Route("/kick/{connection}", kick, methods=["POST"]),
        Route("/complete/{topic:path}", complete, methods=["POST"]),
        Route("/ask/{name}", ask, methods=["GET", "POST"]),
        Route("/ask/{name}/{rest:path}", ask, methods=["GET", "POST"]),
        Route("/handles/{connection}", handle),
        Route("/calls", called),
        Route("/departed/{connection}", gone),
        # Who only reads is a stranger: private events are for those that the application lets in.
        Mount("/", public_app(hub)),
    ],
    lifespan=hub.lifespan,
)
