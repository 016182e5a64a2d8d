"""A chat for those who have given a name, Starlette. Clients send over the hub's own endpoints. Run:

uvicorn examples.starlette_app:app --http ssepool.uvicorn:Protocol
curl -c jar localhost:8000/names/Ann -X POST
curl -b jar -N 'localhost:8000/sse/events?topic=rooms/1'
curl 'localhost:8000/sse/connections/ID/messages?token=TOKEN' --json '"Hello!"'   # both from ssepool.open
"""

import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from ssepool import Asking, Connection, Departed, Grant, Hub

names: dict[str, str] = {}  # by the cookie "session"


async def take(request: Request) -> Response:  # stands for a log-in
    names[session := secrets.token_urlsafe()] = request.path_params["name"][:40]
    return Response(status_code=204, headers={"set-cookie": f"session={session}; HttpOnly; SameSite=Lax"})


def who(asking: Asking) -> Grant | None:
    name = names.get(asking.cookies.get("session", ""))
    return Grant(subject=name, subscribe=[{"match": "rooms/:id", "match_type": "urlpattern"}]) if name else None


hub = Hub(authorize=who)
app = Starlette(routes=[Route("/names/{name}", take, methods=["POST"]), Mount("/sse", hub.app)], lifespan=hub.lifespan)


@hub.on_connect
async def came(connection: Connection) -> None:
    await hub.publish(connection.topics, f"{connection.user} is here", type="presence")


@hub.on_message
async def said(connection: Connection, text: Any) -> None:  # the name is the grant's: a client cannot choose it here
    await hub.publish(connection.topics, {"from": connection.user, "text": str(text)[:1000]}, type="said")


@hub.on_disconnect
async def left(connection: Departed, reason: str) -> None:  # a copy of what was known
    await hub.publish(connection.topics, f"{connection.user} has left", type="presence")
