"""A chat, Starlette: clients send over the hub's own endpoints, and the application decides what comes of it. Run:

uvicorn examples.starlette_app:app --http ssepool.uvicorn:Protocol
curl -N 'localhost:8000/sse/events?topic=rooms/1&data={"name":"Ann"}' -g
curl 'localhost:8000/sse/connections/ID/messages?token=TOKEN' --json '"Hello!"'   # both from ssepool.open
"""

from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from ssepool import Connection, Hub

hub = Hub()
app = Starlette(routes=[Mount("/sse", hub.dev_app)], lifespan=hub.lifespan)
present: dict[str, tuple[tuple[str, ...], str]] = {}


def name_of(connection: Connection) -> str:
    data = connection.data
    return str(data["name"])[:40] if isinstance(data, dict) and "name" in data else "somebody"


@hub.on_connect
async def came(connection: Connection) -> None:
    present[connection.id] = connection.topics, name_of(connection)
    await hub.publish(connection.topics, f"{name_of(connection)} is here", type="presence")


@hub.on_message
async def said(connection: Connection, text: Any) -> None:
    await hub.publish(connection.topics, {"from": name_of(connection), "text": str(text)[:1000]}, type="said")


@hub.on_disconnect
async def left(connection: Connection, reason: str) -> None:
    topics, name = present.pop(connection.id)  # of a connection that has gone, only the id is left
    await hub.publish(topics, f"{name} has left", type="presence")
