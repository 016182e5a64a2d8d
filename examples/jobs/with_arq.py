"""The jobs as functions of arq: `arq examples.jobs.with_arq.WorkerSettings`."""

import asyncio
import os
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from ssepool import AsyncPublisher

REDIS = os.environ.get("REDIS", "redis://localhost:6379")
STEPS, PACE = 40, float(os.environ.get("PACE", "0.1"))  # seconds for a step


async def work(ctx: dict[str, Any], topic: str, job: str) -> None:
    for done in range(STEPS + 1):
        # With an id of its own, an event of a job that is done a second time is not published twice.
        event = {"job": job, "done": done, "of": STEPS}
        await ctx["publisher"].publish(topic, event, type="progress", id=f"{job}.{done}")
        await asyncio.sleep(PACE)


async def startup(ctx: dict[str, Any]) -> None:
    ctx["publisher"] = AsyncPublisher(REDIS)


async def shutdown(ctx: dict[str, Any]) -> None:
    await ctx["publisher"].close()


class WorkerSettings:
    functions = [work]  # noqa: RUF012
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = RedisSettings.from_dsn(REDIS)


async def start(topic: str, job: str) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    try:
        await pool.enqueue_job("work", topic, job, _job_id=job)
    finally:
        await pool.aclose()
