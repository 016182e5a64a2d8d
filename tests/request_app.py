"""A FastAPI application whose requests have something to keep for their streams: `uvicorn request_app:app`.

It has two hubs, and prints nothing that looks like an error but what the tests ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ssepool import Connection, Hub
from ssepool.config import load
from ssepool.runtime import runs

runs.STOP_SECONDS = 0.5  # less than a closing hub gives its tasks, or the end may come before it is said
hub, other = (Hub(load(env=os.environ)[0]) for _ in range(2))

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

notes: defaultdict[str, list[Any]] = defaultdict(list)
"""What happened, in order, by the name that a test chose."""
steps: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)
"""What the generator of a name is to do next."""


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with hub.lifespan(app), other.lifespan(app):
        yield


app = FastAPI(lifespan=lifespan)


class KnowsUser:
    """Middleware that says who asks. (Within Starlette's BaseHTTPMiddleware no request sees its client leave.)"""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        USER.set(dict(scope.get("headers", ())).get(b"x-user", b"nobody").decode())
        await self.app(scope, receive, send)


app.add_middleware(KnowsUser)


async def session(name: str, fails: str = "") -> AsyncIterator[list[Any]]:
    """A database session, say."""
    if fails == "before":
        raise RuntimeError("the session cannot be opened")
    notes[name].append("session opened")
    try:
        yield notes[name]
    finally:
        notes[name].append("session closed")
    if fails == "after":
        raise RuntimeError("the session cannot be closed")


Session = Annotated[list[Any], Depends(session)]


async def obedient(request: Request, name: str, session: list[Any]) -> AsyncIterator[Any]:
    """Does what it is told."""
    session.append(f"begun for {USER.get()}")
    try:
        while True:
            step = await steps[name].get()
            if step == "end":
                return
            if step == "403":
                raise HTTPException(403, "not this one", {"x-why": "because"})
            if step == "fail":
                raise RuntimeError(f"the generator {name} failed")
            if step == "nonsense":
                yield object()
            if step == "is gone?":
                session.append(await request.is_disconnected())
            else:
                yield step
    finally:
        session.append("cleans up")
        await asyncio.sleep(0.05)
        session.append("ended")


async def stubborn(name: str, session: list[Any]) -> AsyncIterator[str]:
    while True:
        try:
            yield "here I am"
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            session.append("ignores cancellation")


async def deaf(name: str, session: list[Any]) -> AsyncIterator[str]:
    yield "here I am"
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            session.append("ignores cancellation")


async def never(name: str, session: list[Any]) -> AsyncIterator[str]:
    session.append("waits")
    await asyncio.Event().wait()
    yield "never"


async def fails_at_last(name: str, session: list[Any]) -> AsyncIterator[str]:
    try:
        yield "one"
        await asyncio.Event().wait()
    finally:
        raise RuntimeError(f"the generator {name} failed while it cleaned up")


async def goes_on(name: str, session: list[Any]) -> AsyncIterator[str]:
    while True:
        try:
            yield "one"
            await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            session.append("ignores all")


KINDS: dict[str, Callable[[str, list[Any]], AsyncIterator[str]]] = {
    **{"stubborn": stubborn, "deaf": deaf, "never": never, "fails at last": fails_at_last, "goes on": goes_on},
}


async def one() -> AsyncIterator[str]:
    yield "one"


used_up = one()


async def note(name: str, text: str) -> None:
    notes[name].append(f"{text} for {USER.get()}")
    if text == "fails":
        raise RuntimeError("the background task failed")


@app.get("/stream/{name}")
async def stream(
    request: Request,
    name: str,
    session: Session,
    tasks: BackgroundTasks,
    kind: str = "",
    topic: str = "",
    also: str = "",
) -> Response:
    tasks.add_task(note, name, also or "background")
    source = KINDS[kind](name, session) if kind in KINDS else obedient(request, name, session)
    if kind == "used up":  # a mistake: one generator for all
        source = used_up
    return hub.stream(request, source, topic=topic or None)


@app.get("/listen/{name}")
async def listen(request: Request, name: str, session: Session, tasks: BackgroundTasks, also: str = "") -> Response:
    tasks.add_task(note, name, also or "background")
    return hub.response(request, topics=[name])


@app.get("/both/{name}")
async def both(request: Request, name: str) -> Response:
    """What the other hub publishes, as a stream of the first; and the other way round."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            await other.publish(name, f"number {number}")
            yield str(number)

    return hub.stream(request, numbers())


@app.get("/other/{name}")
async def listen_to_other(request: Request, name: str) -> Response:
    return other.response(request, topics=[name])


@app.post("/steps/{name}")
async def do(name: str, request: Request) -> None:
    for step in await request.json():
        steps[name].put_nowait(step)


@app.get("/notes/{name}")
async def noted(name: str) -> list[Any]:
    return notes[name]


@app.get("/tasks")
async def tasks() -> list[str]:
    return [str(task.get_coro()) for task in asyncio.all_tasks()]


@app.get("/slots")
async def slots() -> Any:
    return JSONResponse([h.stats().pool.open + h.stats().pool.reserved for h in (hub, other)])


@hub.on_error
async def failed(connection: Connection | None, error: Exception) -> None:
    notes["errors"].append(f"{type(error).__name__}: {error}")
    if connection is not None and connection.is_open:
        await connection.send("sorry", type="apology")


app.mount("/hub", hub.dev_app)
app.mount("/other-hub", other.dev_app)
