"""The link through plain ASGI: a task for each connection writes with `send`, another waits for the client to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ssepool.core.frames import DIALECT, Dialect
from ssepool.core.states import LinkState, PoolState, Reason
from ssepool.runtime.streams.link import ENDED, ENDING, NEW, Link, LinkContext, reason_of

Message = MutableMapping[str, Any]
"""A message of the ASGI specification."""
Receive = Callable[[], Awaitable[Message]]
"""ASGI's `receive`."""
Send = Callable[[Message], Awaitable[None]]
"""ASGI's `send`."""

HELD_MESSAGES = 4
"""Messages that a server takes before it writes the first of them (granian 2: its `send` waits for room then)."""


class AsgiLink(Link):
    """A link over ASGI's `receive` and `send`."""

    __slots__ = ("_abort", "_complete", "_cut", "_receiver", "_send", "_wake", "_writer", "is_partial")

    weight = 1

    def __init__(
        self,
        context: LinkContext,
        receive: Receive,
        send: Send,
        abort: Callable[[], None] | None,
        dialect: Dialect = DIALECT,
        *,
        cut: Callable[[], None] | None = None,
    ) -> None:
        """`abort` drops the connection with all that is still to be written, and `cut` closes it without the end of the
        response, where the server offers that."""
        super().__init__(context, dialect)
        self._send = send
        self._abort = abort
        self._cut = cut
        self._complete = False
        self.is_partial = False
        """Whether the response has been left as it is, without its end: the server sees only this."""
        self._writer: asyncio.Task[Any] | None = None
        """The task that is inside `send`, where it may have to be cancelled."""
        self._wake: asyncio.Future[None] | None = None
        self._receiver = asyncio.get_running_loop().create_task(self._watch(receive))

    def flush(self) -> None:
        if self.feed is not None:
            self.feed.behind[self] = None
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def hang_up(self, before: LinkState) -> None:
        self._receiver.cancel()
        if self._writer is not None:
            self._writer.cancel()
        if self._abort is not None and before is not NEW and not self._complete:
            # A server that only closes waits for the client to take what is buffered, also if it takes nothing.
            self._abort()
        self.flush()

    @property
    def is_last(self) -> bool:
        """Whether the hub is closing."""
        return self.context.pool.state is PoolState.CLOSED

    @property
    def is_told_of_the_end(self) -> bool:
        """Whether what the server says of a client that has left, or does to its request, may mean its own end: the
        client is still there then, and servers take what is sent to it. Some say it as soon as the signal has come,
        before the hub has said goodbye to everybody."""
        return self.is_last and self.slot is not None and self.started

    async def run(self) -> None:
        """Write until the stream ends. The response has been started."""
        while self.state is not ENDED:
            item = self.take()
            if item is not None:
                data = bytes(item[0])
                await self._write({"type": "http.response.body", "body": data, "more_body": True})
                if self.slot is not None:
                    self.slot.bytes += len(data)
                if self.replay is not None:  # a page at a time
                    self.context.delivery.again(self)
                    await self._woken()
            elif self.state is ENDING:
                if self.whole:
                    await self._write({"type": "http.response.body", "body": b"", "more_body": False})
                elif self._cut is not None:
                    await self._write(pause())
                    self._cut()
                else:
                    # Where the server offers no other way, a response that is not complete says the same: most servers
                    # close the connection, without the end of the body. Some drop what they have not written by then.
                    for _ in range(HELD_MESSAGES + 1):
                        await self._write(pause())
                    self.is_partial = True
                self._complete = True
                self.end(Reason.COMPLETED)
            else:
                await self._woken()

    async def _woken(self) -> None:
        """Return with the next flush."""
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    async def _write(self, message: Message) -> None:
        self._writer = asyncio.current_task()
        self.stall()
        try:
            await self._send(message)
        except OSError as error:
            self._writer = None
            self.end(reason_of(error.errno or 0))
        except asyncio.CancelledError:
            # `hang_up` gets the task out of a `send` that blocks; any other cancellation is the server's.
            if self.state is not ENDED or asyncio.current_task().uncancel() > 0:  # type: ignore[union-attr]
                raise
        finally:
            self._writer = None
            self.go_on()

    async def _watch(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        if self.is_told_of_the_end and "ssepool.errno" not in message:
            self.close(Reason.SHUTDOWN)
        else:
            self.end(reason_of(message.get("ssepool.errno", 0)))


def pause() -> Message:
    """A part of a body without bytes. Some middleware is one message behind: when it takes this, it has passed on what
    came before."""
    return {"type": "http.response.body", "body": b"", "more_body": True}
