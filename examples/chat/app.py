"""A chat with rooms, and who is in them, Starlette. Run, and open http://localhost:8000 in two browsers:

uvicorn examples.chat.app:app --http ssepool.uvicorn:Protocol

What the page does, without it:

curl -c jar -X POST localhost:8000/names/Ann
curl -b jar -N 'localhost:8000/sse/events?topic=rooms/lobby'
curl 'localhost:8000/sse/connections/ID/messages?token=TOKEN' --json '"Hello!"'   # both from ssepool.open
"""

import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from ssepool import Asking, Connection, Departed, Grant, Hub

HERE = Path(__file__).parent
names: dict[str, str] = {}  # by the cookie "session"; a name is one person's
rooms: defaultdict[str, dict[str, str]] = defaultdict(dict)  # who is in a topic: names by their connections' ids


async def page(request: Request) -> Response:
    return FileResponse(HERE / "page.html")


async def style(request: Request) -> Response:
    return FileResponse(HERE.parent / "style.css")


async def take(request: Request) -> Response:  # stands for a log-in
    name = request.path_params["name"].strip()[:40]
    if not name or name in names.values():
        return Response("somebody has this name", 409)
    names[session := secrets.token_urlsafe()] = name
    return Response(status_code=204, headers={"set-cookie": f"session={session}; HttpOnly; SameSite=Lax; Path=/"})


async def me(request: Request) -> Response:
    return JSONResponse(names.get(request.cookies.get("session", "")))


def who(asking: Asking) -> Grant | None:
    name = names.get(asking.cookies.get("session", ""))
    return Grant(subject=name, subscribe=[{"match": "rooms/:id", "match_type": "urlpattern"}]) if name else None


hub = Hub(authorize=who)


@hub.on_connect
async def came(connection: Connection) -> None:
    for topic in connection.topics:
        rooms[topic][connection.id] = str(connection.user)
        await tell(topic)


@hub.on_message
async def said(connection: Connection, text: Any) -> None:  # the name is the grant's: a client cannot choose it here
    await hub.publish(connection.topics, {"from": connection.user, "text": str(text)[:1000]}, type="said")


@hub.on_disconnect
async def left(client: Departed, reason: str) -> None:
    for topic in client.topics:
        rooms[topic].pop(client.id, None)
        await tell(topic)
        if not rooms[topic]:
            rooms.pop(topic, None)


def present(topic: str) -> list[str]:
    return sorted(set(rooms[topic].values()))


async def tell(topic: str) -> None:
    """Tell all of them and not who has come or left: so the last such event is always right."""
    await hub.publish(topic, present(topic), type="present")


app = Starlette(
    routes=[
        Route("/", page),
        Route("/style.css", style),
        Route("/me", me),
        Route("/names/{name}", take, methods=["POST"]),
        Mount("/sse", hub.app),
    ],
    lifespan=hub.lifespan,
)
