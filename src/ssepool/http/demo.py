"""The demo: a page that lives on one stream of the hub, and the long jobs that it can start."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

from ssepool.config import KiB
from ssepool.core.topics import shown
from ssepool.errors import SSEPoolError
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.errors import APIError
from ssepool.http.query import read_query
from ssepool.http.reply import JSONReply

if TYPE_CHECKING:
    from ssepool.runtime.hub import Hub

logger = logging.getLogger("ssepool.http")

WEB = Path(__file__).parent.parent / "web"
FILES = {
    "/demo": ("demo.html", "text/html; charset=utf-8"),
    "/demo/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
    "/ssepool.js": ("ssepool.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    # The page loads nothing from elsewhere and has no script or style of its own in it, so that text from
    # strangers could do no harm even if it ended up as markup.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

STEPS = 60
PAUSE = 0.2
"""Seconds between two steps of a job."""
MOST_JOBS = 20
MOST_BODY = KiB
TAB = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /demo/jobs: the tab whose topic, `demo/jobs/<tab>`, gets the progress."""

    tab: str


START = msgspec.json.Decoder(Start)


def routes(hub: Hub) -> list[BaseRoute]:
    """The routes of the demo: its page and files, the browser client, and `POST /demo/jobs`."""
    files = StaticFiles(directory=WEB)
    jobs = Jobs(hub)

    def file(path: str, name: str, content_type: str) -> Route:
        async def get(request: Request) -> Response:
            response = await files.get_response(name, request.scope)
            response.headers.update(HEADERS)
            if response.status_code == 200:
                # A platform's table of types may call .js something that browsers refuse to run as a module.
                response.headers["Content-Type"] = content_type
            return response

        return Route(path, get, methods=["GET"])

    async def start(request: Request) -> Response:
        read_query(request)
        media_type(request, JSON)
        body = await read_body(request, MOST_BODY)
        order = decode(START, body, root="job", code="invalid_job", fields=Start.__struct_fields__)
        if not TAB.fullmatch(order.tab):
            message = f"job.tab is {shown(order.tab)}; it takes 1 to 64 characters of A-Z a-z 0-9 _ and -"
            raise APIError(400, "invalid_job", message)
        job, is_new = jobs.start(order.tab)
        return JSONReply({"job": job}, 202 if is_new else 200)

    return [*(file(path, *what) for path, what in FILES.items()), Route("/demo/jobs", start, methods=["POST"])]


class Jobs:
    """Long jobs that do nothing but report: at most one a tab and `MOST_JOBS` in all."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def start(self, tab: str) -> tuple[str, bool]:
        """Start a job for a tab: its id and True, or, where one runs already, the id of that and False.

        Raises `APIError` (503) while `MOST_JOBS` jobs run.
        """
        if tab in self._running:
            return self._running[tab][0], False
        if len(self._running) >= MOST_JOBS:
            message = f"{MOST_JOBS} jobs are running, which is the most; each takes {STEPS * PAUSE:g} s"
            raise APIError(503, "too_many_jobs", message, {"Retry-After": "5"})
        job = secrets.token_urlsafe(6)
        task = asyncio.create_task(self._run(tab, job), name=f"demo job {job}")
        self._running[tab] = job, task
        task.add_done_callback(lambda _: self._running.pop(tab))
        return job, True

    async def _run(self, tab: str, job: str) -> None:
        try:
            for step in range(STEPS + 1):
                if step:
                    await asyncio.sleep(PAUSE)
                progress = {"job": job, "percent": round(100 * step / STEPS), "step": step, "done": step == STEPS}
                await self._hub.publish(f"demo/jobs/{tab}", progress, type="progress")
        except SSEPoolError as error:
            logger.info("demo job %s ended early: %s", job, error)
