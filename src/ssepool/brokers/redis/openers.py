"""Openers: who has a history open, and how they know of each other."""

from __future__ import annotations

import asyncio
import random

from ssepool.brokers.redis.server import Server
from ssepool.errors import BrokerError

ASK_SECONDS = 1.0
"""Seconds in which another broker that has the history open says so. Whose machine is gone, or who hangs, does not."""

RETRY_SECONDS = 0.2
"""Seconds until a connection that broke is made again."""

QUESTION, ANSWER = b"?", b"!"
"""What is said on the channel: "has anybody the history open?" and "I have"."""


class Openers:
    """Listens on a channel for as long as a broker is open, and answers there whoever opens the same history.

    The server knows at once when the connection of a process that was killed is closed. Only while it still counts
    somebody has there to be a question.
    """

    def __init__(self, server: Server, channel: str) -> None:
        self.channel = channel
        """The channel on which all listen who have the history open."""
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._is_open = False
        self._silent = 0
        """Listeners, ourselves too, who have not said yet that they only ask."""
        self._found: asyncio.Future[bool] | None = None

    async def enter(self) -> None:
        """Listen from now on, without an answer to anybody before `opened`. Raises `BrokerError`."""
        await self.leave()
        entered = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._listen(entered))
        await entered

    async def anybody(self, others: int) -> bool:
        """Whether one of so many others who listen has the history open. Raises `BrokerError`.

        Those who are opening it at the same time ask too: when all have asked, nobody is left who would answer.
        """
        self._silent = others + 1
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._found = found
        await self._say(QUESTION)
        try:
            async with asyncio.timeout(min(ASK_SECONDS, self._server.timeout / 2)):
                return await found
        except TimeoutError:
            return False

    async def opened(self, others: int) -> None:
        """Answer questions from now on, also those of others who are opening it at the same time. Raises
        `BrokerError`."""
        self._is_open = True
        if others > 0:
            await self._say(ANSWER)

    async def leave(self) -> None:
        """Listen no more."""
        task, self._task, self._is_open = self._task, None, False
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _listen(self, entered: asyncio.Future[None]) -> None:
        while True:
            try:
                async with self._server.subscribed(self.channel) as messages:
                    if not entered.done():
                        entered.set_result(None)
                    async for message in messages:
                        await self._hear(message)
            except BrokerError as error:
                if not entered.done():
                    entered.set_exception(error)
                    return
            await asyncio.sleep(RETRY_SECONDS * (0.5 + random.random()))

    async def _hear(self, message: bytes) -> None:
        if message == QUESTION and self._is_open:
            await self._say(ANSWER)
            return
        self._silent -= message == QUESTION
        if self._found and not self._found.done() and (message == ANSWER or self._silent <= 0):
            self._found.set_result(message == ANSWER)

    async def _say(self, message: bytes) -> None:
        await self._server.ask(self._server.client.publish(self.channel, message))
