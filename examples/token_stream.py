"""An answer that comes token by token, and that the client may leave and come back to. Run:

uvicorn examples.token_stream:app --http ssepool.uvicorn:Protocol
curl -N 'localhost:8000/answers/17?question=Why'                                # leave it with Ctrl-C
curl -N 'localhost:8000/answers/17?question=Why' -H "Last-Event-ID: ID"         # the rest, after the id seen last

In a page, `new EventSource("/answers/17?question=Why")` does all this by itself, and stops at the end.
"""

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssepool import Event, Hub

hub = Hub()
PACE = 0.1  # seconds for a token


async def tokens(question: str) -> AsyncIterator[Event]:
    """Stands for a language model: runs once for each answer, whoever comes and goes meanwhile."""
    for word in f"You ask: {question}? Because it is so, and was never otherwise.".split():
        yield Event(word + " ", type="token", private=True)  # private: for those whom `answer` lets in
        await asyncio.sleep(PACE)


async def answer(request: Request) -> Response:
    question = request.query_params.get("question", "What")
    return hub.stream(request, tokens(question), topic=f"answers/{request.path_params['id']}")


app = Starlette(routes=[Route("/answers/{id}", answer)], lifespan=hub.lifespan)
