"""Notices for each user and for everybody, behind Litestar's own sessions, on a page with Datastar. Run, and open
http://localhost:8000 (the user ann has the password red, and ben has blue):

uvicorn examples.notices.app:app --http ssepool.uvicorn:Protocol

What the page does, without it:

curl -c jar localhost:8000/login --json '{"user": "ann", "password": "red"}'
curl -b jar -N localhost:8000/notices
curl -b jar localhost:8000/notices/ann --json '{"text": "Your parcel is here"}'
"""

import html
from pathlib import Path

from datastar_py import ServerSentEventGenerator
from litestar import Litestar, MediaType, Request, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.types import ASGIApp

from ssepool import Event, Hub

HERE = Path(__file__).parent
hub, passwords = Hub(), {"ann": "red", "ben": "blue"}


@get("/", media_type=MediaType.HTML, sync_to_thread=False)
def page(request: Request) -> str:
    name = "page.html" if "user" in request.session else "login.html"
    return (HERE / name).read_text("utf-8").replace("USER", request.session.get("user", ""))


@get("/style.css", media_type=MediaType.CSS, sync_to_thread=False)
def style() -> str:
    return (HERE.parent / "style.css").read_text("utf-8")


@post("/login")
async def login(request: Request, data: dict[str, str]) -> None:
    if passwords.get(data.get("user", "")) != data.get("password", ""):
        raise NotAuthorizedException("wrong user or password")
    request.set_session({"user": data["user"]})


def is_user(connection: ASGIConnection, _: BaseRouteHandler) -> None:
    if "user" not in connection.session:
        raise NotAuthorizedException("log in first")


@get("/notices", guards=[is_user])
async def listen(request: Request) -> ASGIApp:
    user = request.session["user"]
    return hub.response(request, topics=["everybody", f"users/{user}"], user=user)


@post(["/notices", "/notices/{to:str}"], guards=[is_user])
async def notify(request: Request, data: dict[str, str], to: str | None = None) -> dict[str, str]:
    notice = html.escape(f"{request.session['user']}: {data['text']}")
    patch = ServerSentEventGenerator.patch_elements(f'<p id="notice" class="box">{notice}</p>')
    [id] = await hub.publish_many([Event.from_frame(patch, f"users/{to}" if to else "everybody")])
    return {"id": id}


app = Litestar(
    [page, style, login, listen, notify],
    lifespan=[hub.lifespan],
    middleware=[ServerSideSessionConfig().middleware],
)
