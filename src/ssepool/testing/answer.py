"""Answer: one response as it comes in, whatever the way, and who waits for more of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from ssepool.core.decoder import Decoder
from ssepool.testing.received import Comment, Item, Received

MAX_UNREAD = 10_000
"""Events that a test may leave unread until its stream takes no more, as a socket whose buffers are full."""

End = Literal["complete", "cut"]
"""How a response ended: as its protocol has it, or before that."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, the same on each way."""

    method: str
    """GET or another."""
    path: str
    """The path, still encoded."""
    query: str
    """What stands behind the question mark, encoded."""
    headers: list[tuple[bytes, bytes]]
    """The fields, with names in lower case."""
    body: bytes
    """What is sent along."""


class Way(Protocol):
    """How a request gets to its application: through plain ASGI, or over a socket."""

    async def start(self) -> None:
        """Send the request."""

    def pause(self) -> None:
        """Take nothing more."""

    def go_on(self) -> None:
        """Take what comes again."""

    async def drop(self) -> None:
        """Lose the connection."""

    async def close(self) -> None:
        """Leave, as a client does that has enough, and see that nothing is left."""


class Answer:
    """One response as it comes in. `Stream` reads it, a `Way` fills it."""

    def __init__(self, last_event_id: str = "") -> None:
        """`last_event_id` is what the stream begins with."""
        self.status: int | None = None
        """The status; None as long as there is no answer."""
        self.headers: dict[str, str] = {}
        """The fields, by their names in lower case."""
        self.body = b""
        """The body of an answer that is no event stream."""
        self.items: deque[Item] = deque()
        """What came and has not been read."""
        self.end: End | None = None
        """How it ended; None as long as it goes on."""
        self.error: BaseException | None = None
        """What the application raised, until a test has been told."""
        self.on_read: Callable[[], None] = _ignore
        """Is told that something is read."""
        self._decoder = Decoder(last_event_id=last_event_id, on_comment=self._comment)
        self._changed = asyncio.Event()
        self._fed = False

    @property
    def is_stream(self) -> bool:
        """Whether it is an event stream."""
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self.status == 200 and media_type == "text/event-stream"

    @property
    def is_empty(self) -> bool:
        """Whether there is a head and nothing else yet."""
        return self.status is not None and self.end is None and not self._fed

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream named last, in milliseconds."""
        return self._decoder.retry

    @property
    def last_event_id(self) -> str:
        """The id that the stream named last."""
        return self._decoder.last_event_id

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head has come."""
        self.status = status
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        self._changed.set()

    def feed(self, chunk: bytes) -> None:
        """A part of the body has come."""
        self._fed = self._fed or bool(chunk)
        if not self.is_stream:
            self.body += chunk
        else:
            for line in chunk.splitlines(keepends=True):  # so that comments and events keep their order
                for message in self._decoder.feed(line):
                    self.items.append(Received(message.type, message.data, message.id))
        self._changed.set()

    def finish(self, end: End, error: BaseException | None = None) -> None:
        """Nothing more comes. Only the first call says how it ended."""
        if self.end is None:
            self.end, self.error = end, error
        self._changed.set()

    def take(self) -> Item:
        """The next of what came; there has to be something."""
        self.on_read()
        return self.items.popleft()

    async def more(self) -> None:
        """Return when something has come."""
        self._changed.clear()
        await self._changed.wait()

    def _comment(self, text: str) -> None:
        self.items.append(Comment(text.removeprefix(" ")))


def _ignore() -> None: ...
