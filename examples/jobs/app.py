"""Bars of jobs that workers do, Starlette; with Celery or with arq. Each visitor sees their own. Run as README.md says,
and open http://localhost:8000."""

import os
import secrets
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ssepool import Hub, HubConfig

HERE = Path(__file__).parent
hub = Hub(HubConfig(broker=os.environ.get("REDIS", "redis://localhost:6379")))
start = import_module(f"examples.jobs.with_{os.environ.get('QUEUE', 'celery')}").start


def topic(request: Request) -> str:
    """Of whoever asks: their cookie's, which the topic does not tell to whoever reads its name in a log."""
    if not (visitor := request.cookies.get("visitor")):
        raise HTTPException(401)
    return f"jobs/{sha256(visitor.encode()).hexdigest()}"


async def page(request: Request) -> Response:
    response = FileResponse(HERE / "page.html")
    if "visitor" not in request.cookies:  # stands for a log-in
        response.set_cookie("visitor", secrets.token_urlsafe(), httponly=True, samesite="lax")
    return response


async def style(request: Request) -> Response:
    return FileResponse(HERE.parent / "style.css")


async def begin(request: Request) -> Response:
    await start(topic(request), job := secrets.token_urlsafe(8))
    return JSONResponse({"job": job}, 202)


async def events(request: Request) -> Response:
    return hub.response(request, topics=[topic(request)])


app = Starlette(
    routes=[
        Route("/", page),
        Route("/style.css", style),
        Route("/jobs", begin, methods=["POST"]),
        Route("/events", events),
    ],
    lifespan=hub.lifespan,
)
