"""The jobs as tasks of Celery: `celery -A examples.jobs.with_celery worker`."""

import asyncio
import os
import time

from celery import Celery

from ssepool import Publisher

REDIS = os.environ.get("REDIS", "redis://localhost:6379")
STEPS, PACE = 40, float(os.environ.get("PACE", "0.1"))  # seconds for a step
app = Celery("jobs", broker=REDIS)
publisher = Publisher(REDIS)  # each process that Celery forks connects with its first event


@app.task
def work(topic: str, job: str) -> None:
    for done in range(STEPS + 1):
        # With an id of its own, an event of a task that is done a second time is not published twice.
        publisher.publish(topic, {"job": job, "done": done, "of": STEPS}, type="progress", id=f"{job}.{done}")
        time.sleep(PACE)


async def start(topic: str, job: str) -> None:
    await asyncio.to_thread(work.delay, topic, job)
