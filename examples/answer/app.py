"""An answer that comes token by token, can be stopped, and is still there after a reload, Starlette. Run, and open
http://localhost:8000:

uvicorn examples.answer.app:app --http ssepool.uvicorn:Protocol

What the page does, without it:

curl -c jar -o page.html localhost:8000
curl -b jar localhost:8000/answers -d Why                             # tells the address of the answer
curl -b jar -N localhost:8000/answers/ID                              # leave it with Ctrl-C
curl -b jar -N localhost:8000/answers/ID -H "Last-Event-ID: LAST"     # the rest, after the id seen last
curl -b jar -X POST localhost:8000/answers/ID/stop
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ssepool import Event, Hub

HERE = Path(__file__).parent
PACE = float(os.environ.get("PACE", "0.1"))  # seconds for a token
hub = Hub()


@dataclass
class Answer:
    visitor: str
    question: str
    is_stopped: bool = False
    step: asyncio.Future[str | None] | None = None  # the token that the model works on

    async def tokens(self) -> AsyncIterator[Event]:
        """Runs once, whoever comes and goes meanwhile."""
        async with aclosing(model(self.question)) as words:
            while not self.is_stopped:
                self.step = asyncio.ensure_future(anext(words, None))
                try:
                    word = await self.step
                except asyncio.CancelledError:
                    if self.is_stopped:
                        break
                    raise  # the server ends
                if word is None:
                    break
                yield Event(word, type="token")
        yield Event("stopped" if self.is_stopped else "complete", type="end")

    def stop(self) -> None:
        """End it in the middle of a token, too."""
        self.is_stopped = True
        if self.step:
            self.step.cancel()


async def model(question: str) -> AsyncIterator[str]:
    """Stands for a language model."""
    try:
        for word in f"You ask: {question}? Because it is so, and was never otherwise.".split():
            await asyncio.sleep(PACE)
            yield word + " "
    finally:
        print("the model works no more", flush=True)


answers: dict[str, Answer] = {}  # stands for a table


def own(request: Request) -> Answer:
    """The answer that is asked for, if it is that of whoever asks."""
    answer = answers.get(request.path_params["id"])
    if answer is None or answer.visitor != request.cookies.get("visitor"):
        raise HTTPException(404)
    return answer


async def page(request: Request) -> Response:
    response = FileResponse(HERE / "page.html")
    if "visitor" not in request.cookies:  # stands for a log-in
        response.set_cookie("visitor", secrets.token_urlsafe(), httponly=True, samesite="lax")
    return response


async def style(request: Request) -> Response:
    return FileResponse(HERE.parent / "style.css")


async def ask(request: Request) -> Response:
    if not (visitor := request.cookies.get("visitor")):
        raise HTTPException(401)
    answers[id := secrets.token_urlsafe()] = Answer(visitor, (await request.body()).decode(errors="replace")[:200])
    return JSONResponse({"answer": f"/answers/{id}"}, 201)


async def watch(request: Request) -> Response:
    answer = own(request)
    return hub.stream(request, answer.tokens(), topic=f"answers/{request.path_params['id']}")


async def stop(request: Request) -> Response:
    own(request).stop()
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/style.css", style),
        Route("/answers", ask, methods=["POST"]),
        Route("/answers/{id}", watch),
        Route("/answers/{id}/stop", stop, methods=["POST"]),
    ],
    lifespan=hub.lifespan,
)
