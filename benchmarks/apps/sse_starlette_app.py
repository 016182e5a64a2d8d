"""sse-starlette as its users write it: a queue for each subscriber, in a set for each topic."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: defaultdict[str, set[asyncio.Queue[ServerSentEvent]]] = defaultdict(set)
published = 0


async def subscribe(request: Request) -> EventSourceResponse:
    topic = request.query_params["topic"]

    async def events() -> AsyncIterator[ServerSentEvent]:
        queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
        queues[topic].add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues[topic].discard(queue)

    return EventSourceResponse(events())


async def publish(request: Request) -> Response:
    global published
    published += 1
    body = await request.json()
    event = ServerSentEvent(data=body["data"], id=str(published))
    for queue in queues[body["topic"]]:
        queue.put_nowait(event)
    return Response(status_code=202)


app = Starlette(routes=[Route("/events", subscribe), Route("/events", publish, methods=["POST"])])
