"""An answer that comes token by token, and that whoever asked may leave and come back to. Run:

uvicorn examples.token_stream:app --http ssepool.uvicorn:Protocol
curl localhost:8000/answers -d Why                                    # tells the address of the answer
curl -N localhost:8000/answers/ID                                     # leave it with Ctrl-C
curl -N localhost:8000/answers/ID -H "Last-Event-ID: LAST"            # the rest, after the id seen last

In a page, `new EventSource("/answers/ID")` does all this by itself, and stops at the end.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssepool import Event, Hub

hub = Hub()
PACE = 0.1  # seconds for a token
questions: dict[str, str] = {}  # by an id that nobody can guess: only who has asked knows the answer's address


async def tokens(question: str) -> AsyncIterator[Event]:
    """Stands for a language model: runs once for each answer, whoever comes and goes meanwhile."""
    for word in f"You ask: {question}? Because it is so, and was never otherwise.".split():
        yield Event(word + " ", type="token", private=True)
        await asyncio.sleep(PACE)


async def ask(request: Request) -> Response:
    questions[id := secrets.token_urlsafe()] = (await request.body()).decode()[:200]
    return JSONResponse({"answer": f"/answers/{id}"}, 201)


async def answer(request: Request) -> Response:
    if (id := request.path_params["id"]) not in questions:
        raise HTTPException(404)
    return hub.stream(request, tokens(questions[id]), topic=f"answers/{id}")


app = Starlette(
    routes=[Route("/answers", ask, methods=["POST"]), Route("/answers/{id}", answer)], lifespan=hub.lifespan
)
