"""The way through plain ASGI: the application is called as a server calls it, and no socket is made."""

from __future__ import annotations

import asyncio
from errno import ETIMEDOUT
from typing import Any
from urllib.parse import unquote

from ssepool.testing.answer import MAX_UNREAD, Answer, Request
from ssepool.testing.lifespan import Life, Message

TURNS = 100
"""Turns of the event loop that an application has to see that its client has left, before it is cancelled."""

CANCEL_SECONDS = 5.0
"""Seconds that an application may take to end once it is cancelled."""

CLIENT = ("127.0.0.1", 50_000)
"""The address that requests come from."""


class AsgiWay:
    """One request over plain ASGI, as uvicorn would make it of what came over a socket."""

    def __init__(self, life: Life, request: Request, answer: Answer) -> None:
        self._life = life
        self._request = request
        self._answer = answer
        self._gone: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked = False
        self._paused = False
        self._woken = asyncio.Event()
        answer.on_read = self._woken.set
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Call the application."""
        self._task = asyncio.create_task(self._run())

    def pause(self) -> None:
        """Have `send` block, as it does when the socket's buffers are full."""
        self._paused = True

    def go_on(self) -> None:
        """Have `send` go on."""
        self._paused = False
        self._woken.set()

    async def drop(self) -> None:
        """Tell the application that the network has given its client up."""
        await self._leave({"type": "http.disconnect", "ssepool.errno": ETIMEDOUT})

    async def close(self) -> None:
        """Tell the application that its client has left, and cancel what does not see it."""
        await self._leave({"type": "http.disconnect"})
        task = self._task
        if task is None or task.done():
            return
        task.cancel()
        _, waits = await asyncio.wait([task], timeout=CANCEL_SECONDS)
        if waits:
            raise AssertionError(
                f"{self._request.path}: the application goes on {CANCEL_SECONDS} s after its client left and it was "
                "cancelled"
            )

    async def _leave(self, message: Message) -> None:
        if not self._gone.done():
            self._gone.set_result(message)
        self._answer.finish("cut")
        self._woken.set()
        for _ in range(TURNS):
            if self._task is None or self._task.done():
                return
            await asyncio.sleep(0)

    async def _run(self) -> None:
        request, answer = self._request, self._answer
        try:
            await self._life(self._scope(request), self._receive, self._send)
        except asyncio.CancelledError:
            answer.finish("cut")
        except Exception as error:
            answer.finish("cut", error)
            if answer.error is None:  # its client had left already; it is told all the same
                answer.error = error
        else:
            if answer.status is None and not self._gone.done():
                answer.finish("cut", AssertionError(f"{request.path}: the application returned without an answer"))
            answer.finish("cut")

    def _scope(self, request: Request) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(request.path),
            "raw_path": request.path.encode(),
            "query_string": request.query.encode(),
            "root_path": "",
            "headers": request.headers,
            "client": CLIENT,
            "server": ("localhost", 80),
            "extensions": {},
        }

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        return await asyncio.shield(self._gone)

    async def _send(self, message: Message) -> None:
        answer = self._answer
        await asyncio.sleep(0)  # an application that only sends must not hold the event loop
        while not self._gone.done() and (self._paused or len(answer.items) >= MAX_UNREAD):
            self._woken.clear()
            await self._woken.wait()
        if self._gone.done():
            return  # as servers do
        if message["type"] == "http.response.start":
            answer.begin(message["status"], [(bytes(name), bytes(value)) for name, value in message["headers"]])
        elif message["type"] == "http.response.body":
            answer.feed(message.get("body", b""))
            if not message.get("more_body", False):
                answer.finish("complete")
                if not self._gone.done():
                    self._gone.set_result({"type": "http.disconnect"})
