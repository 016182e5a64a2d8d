"""Notifications for each user and for everybody, Litestar. Run:

uvicorn examples.litestar_app:app --http ssepool.uvicorn:Protocol
curl -N localhost:8000/notifications -H "X-User: ann"
curl localhost:8000/notifications/ann --json '{"text": "Your parcel is here"}'
curl localhost:8000/notifications --json '{"text": "We close at six"}'
"""

from typing import Annotated, Any

from litestar import Litestar, Request, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.params import Parameter
from litestar.types import ASGIApp

from ssepool import Hub

hub = Hub()


def is_user(connection: ASGIConnection, _: BaseRouteHandler) -> None:
    if not connection.headers.get("x-user"):
        raise NotAuthorizedException("say who you are: X-User")


@get("/notifications", guards=[is_user])
async def listen(request: Request, user: Annotated[str, Parameter(header="X-User")]) -> ASGIApp:
    return hub.response(request, topics=["everybody", f"users/{user}"], user=user)


@post(["/notifications", "/notifications/{to:str}"])
async def notify(data: dict[str, Any], to: str | None = None) -> dict[str, str]:
    return {"id": await hub.publish(f"users/{to}" if to else "everybody", data, type="notification", private=True)}


app = Litestar([listen, notify], lifespan=[hub.lifespan])
