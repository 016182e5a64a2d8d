"""The demo: a page that lives on one stream of the hub, and the long jobs that the page can start."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.config import KiB
from ssepool.core.event import Event
from ssepool.core.topics import shown
from ssepool.errors import SSEPoolError
from ssepool.http.access.door import Door
from ssepool.http.access.gate import Gate, grant_of
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.budget import Budget
from ssepool.http.errors import APIError
from ssepool.http.pages import file_route
from ssepool.http.query import read_query
from ssepool.http.reply import JSONReply
from ssepool.runtime.engine import Engine

logger = logging.getLogger("ssepool.http")
"""The log of what goes wrong behind an answer."""

JOB_STEPS = 60
"""Steps of a job; each publishes one event."""
STEP_SECONDS = 0.2
"""Seconds between two steps of a job."""
MAX_JOBS = 20
"""Jobs that run at the same time at most."""
MAX_BODY_BYTES = KiB
"""Bytes of the body of POST /demo/jobs at most."""
TAB_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The allowed names of tabs."""


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /demo/jobs."""

    tab: Annotated[
        str,
        Meta(
            description="The page's tab: the topic `demo/jobs/<tab>` gets the progress.",
            extra_json_schema={"pattern": f"^{TAB_NAME.pattern}$"},
        ),
    ]


START_DECODER = msgspec.json.Decoder(Start)
"""Reads the body of POST /demo/jobs."""


def routes(engine: Engine, budget: Budget, door: Door) -> list[BaseRoute]:
    """GET /demo, the page, the files that it loads, and POST /demo/jobs, whose bodies count in `budget`."""
    jobs = Jobs(engine)

    async def start(request: Request) -> Response:
        door.check_may_publish(await grant_of(door, request, "publish"))
        read_query(request)
        media_type(request, JSON)
        async with read_body(request, MAX_BODY_BYTES, budget) as body:
            order = decode(START_DECODER, body, root="job", code="invalid_job", fields=Start.__struct_fields__)
        if not TAB_NAME.fullmatch(order.tab):
            message = f"job.tab is {shown(order.tab)}; it takes 1 to 64 characters of A-Z a-z 0-9 _ and -"
            raise APIError(400, "invalid_job", message)
        job, is_new = jobs.start(order.tab)
        return JSONReply({"job": job}, 202 if is_new else 200)

    return [
        file_route("/demo", "demo.html"),
        file_route("/demo/demo.css", "demo.css"),
        file_route("/demo/demo.js", "demo.js"),
        Gate("/demo/jobs", start, methods=["POST"], needs="publish"),
    ]


class Jobs:
    """Long jobs that only report their progress: at most one for each tab, and at most `MAX_JOBS` in all."""

    def __init__(self, engine: Engine) -> None:
        """`engine` publishes the progress."""
        self._engine = engine
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def start(self, tab: str) -> tuple[str, bool]:
        """Start a job for a tab, and return its id and True. If the tab's job runs already: that job's id and False.

        Raises `APIError` (503) while `MAX_JOBS` jobs run.
        """
        if tab in self._running:
            return self._running[tab][0], False
        if len(self._running) >= MAX_JOBS:
            message = f"{MAX_JOBS} jobs are running, which is the most; each takes {JOB_STEPS * STEP_SECONDS:g} s"
            raise APIError(503, "too_many_jobs", message, {"Retry-After": "5"})
        job = secrets.token_urlsafe(6)
        task = asyncio.create_task(self._run(tab, job), name=f"demo job {job}")
        self._running[tab] = job, task
        task.add_done_callback(lambda _: self._running.pop(tab))
        return job, True

    async def _run(self, tab: str, job: str) -> None:
        try:
            for step in range(JOB_STEPS + 1):
                if step:
                    await asyncio.sleep(STEP_SECONDS)
                percent = round(100 * step / JOB_STEPS)
                progress = {"job": job, "percent": percent, "step": step, "done": step == JOB_STEPS}
                await self._engine.publish_many([Event.of(f"demo/jobs/{tab}", progress, type="progress")])
        except SSEPoolError as error:
            logger.debug("demo job %s ended early: %s", job, error)
