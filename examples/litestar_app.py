"""Notifications for each user and for everybody, behind Litestar's own sessions. Run:

uvicorn examples.litestar_app:app --http ssepool.uvicorn:Protocol
curl -c jar localhost:8000/login --json '{"user": "ann", "password": "red"}'
curl -b jar -N localhost:8000/notifications
curl -b jar localhost:8000/notifications/ann --json '{"text": "Your parcel is here"}'
"""

from typing import Any

from litestar import Litestar, Request, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.types import ASGIApp

from ssepool import Hub

hub, passwords = Hub(), {"ann": "red", "ben": "blue"}


@post("/login")
async def login(request: Request, data: dict[str, str]) -> None:
    if passwords.get(data.get("user", "")) != data.get("password", ""):
        raise NotAuthorizedException("wrong user or password")
    request.set_session({"user": data["user"]})


def is_user(connection: ASGIConnection, _: BaseRouteHandler) -> None:
    if "user" not in connection.session:
        raise NotAuthorizedException("log in first")


@get("/notifications", guards=[is_user])
async def listen(request: Request) -> ASGIApp:
    user = request.session["user"]
    return hub.response(request, topics=["everybody", f"users/{user}"], user=user)


@post(["/notifications", "/notifications/{to:str}"], guards=[is_user])
async def notify(data: dict[str, Any], to: str | None = None) -> dict[str, str]:
    return {"id": await hub.publish(f"users/{to}" if to else "everybody", data, type="notification")}


app = Litestar([login, listen, notify], lifespan=[hub.lifespan], middleware=[ServerSideSessionConfig().middleware])
