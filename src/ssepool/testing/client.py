"""Stream: a client of one event stream of an application, which says what it expects."""

from __future__ import annotations

import asyncio
import contextlib
import json as encoding
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from ssepool.client.reader import RECONNECTION_SECONDS, Reader
from ssepool.testing.answer import Answer, End, Request, Way
from ssepool.testing.asgi import AsgiWay
from ssepool.testing.clock import is_virtual
from ssepool.testing.lifespan import Application, running
from ssepool.testing.received import ANY, OWN, Comment, Item, Received, before, wish
from ssepool.testing.serving import serve
from ssepool.testing.socket import SocketWay

WITHIN_SECONDS = 5.0
"""Seconds that an expectation waits, unless a test says otherwise."""

TURNS = 100
"""Turns of the event loop that an application has from its answer's head to the first event, or to where it waits."""

Through = Literal["asgi", "socket"]
"""The way of a request: plain ASGI, or a socket of uvicorn's, which a hub takes over."""


class Stream:
    """A client of one event stream; made by `stream`. Like a browser's `EventSource` it outlives its connections:
    `drop` loses one, and `resume` makes another, which begins where the one before ended.

    Events of the hub itself, whose types begin with `ssepool.`, are passed over unless one is asked for by its type.
    Each expectation is about the next event. It waits `within` seconds, virtual ones under a virtual clock, and fails
    with an `AssertionError` that says what was expected, what came, and what had come before. What the application
    raises is raised here.
    """

    def __init__(self, make: Callable[[Request, Answer], Way], request: Request, within: float) -> None:
        self.came: list[Item] = []
        """Everything that was read so far, over all connections: events, those of the hub too, and comments."""
        self._make = make
        self._request = request
        self._within = within
        self._reconnection_time = RECONNECTION_SECONDS
        self._connect()

    def _connect(self, last_event_id: str = "") -> None:
        asked = self._request
        fields = {name.lower().encode(): value for name, value in Reader(last_event_id=last_event_id).headers().items()}
        fields |= {b"host": b"localhost", **dict(asked.headers)}
        if last_event_id:
            fields[b"last-event-id"] = last_event_id.encode().strip(b" \t")
        self._answer = Answer(last_event_id)
        request = Request(asked.method, asked.path, asked.query, list(fields.items()), asked.body)
        self._way = self._make(request, self._answer)

    # What is known.

    @property
    def status(self) -> int | None:
        """The answer's status; None as long as there is none."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's fields, by their names in lower case."""
        return self._answer.headers

    @property
    def event_id(self) -> str:
        """The last id that came, read or not: where `resume` goes on."""
        return self._answer.last_event_id

    @property
    def reconnection_time(self) -> float:
        """Seconds after which a browser would come back, as the stream said with `retry:`."""
        return self._reconnection_time if self._answer.retry is None else self._answer.retry / 1000

    @property
    def end(self) -> End | None:
        """How the stream ended: `complete`, or `cut` in the middle; None as long as it goes on."""
        return self._answer.end

    @property
    def close_reason(self) -> str | None:
        """Why the hub ended the stream, as far as that has been read; None if it has not said."""
        last = self._last_own("ssepool.close", "ssepool.open")
        return None if last is None else last.json.get("reason")

    async def connection_id(self) -> str:
        """The hub's name for this connection."""
        await self.opened()
        answer, last = self._answer, None
        with self._deadline("ssepool.open", self._within) as late:
            async with late:
                while last is None:
                    last = self._last_own("ssepool.open", more=answer.items)
                    if last is None and answer.end is not None:
                        break
                    if last is None:
                        await answer.more()
        if last is not None:
            return str(last.json["connection"])
        raise AssertionError(f"{self._request.path}: no ssepool.open has come; {before(self.came)}")

    # What is expected.

    async def opened(self, *, within: float | None = None) -> None:
        """Wait for the answer's head: for a stream that was made with `wait=False`."""
        answer, seconds = self._answer, self._within if within is None else within
        with self._deadline(f"an answer of {self._request.path}", seconds) as late:
            async with late:
                while answer.status is None and answer.end is None:
                    await answer.more()
        if answer.status is None:
            self.raise_error()
            raise AssertionError(f"{self._request.path}: the connection ended without an answer")
        await self._first()

    async def expect_no_answer(self, seconds: float = 0.1) -> None:
        """For so many seconds there is no answer: a request that was made with `wait=False` still waits."""
        with contextlib.suppress(_NothingCame):
            await self.opened(within=seconds)
            raise AssertionError(f"expected no answer of {self._request.path} yet, but it answered {self.status}")

    async def next(self, *, within: float | None = None) -> Received:
        """The next event."""
        return await self.expect(within=within)

    async def expect(
        self, type: str | None = None, data: Any = ANY, *, id: str | None = None, within: float | None = None
    ) -> Received:
        """The next event, which has this type, these data and this id, as far as they are given.

        `data` is the text, or what it decodes to as JSON; `ANY` stands for a part that does not matter.
        """
        wanted = wish(type, data, id)
        own = type if type is not None and type.startswith(OWN) else None
        item = await self._take(wanted, lambda item: not isinstance(item, Comment) and _counts(item, own), within)
        assert isinstance(item, Received)
        if (type is not None and item.type != type) or not item.has(data) or (id is not None and item.id != id):
            raise AssertionError(f"expected {wanted}, but what came is\n    {item}\n{before(self.came[:-1])}")
        return item

    async def expect_comment(self, text: str = ANY, *, within: float | None = None) -> str:
        """The next thing that comes is a comment, with this text if one is given. Returns its text."""
        wanted = "a comment" if text is ANY else f"the comment {text!r}"
        item = await self._take(wanted, _counts, within)
        if not isinstance(item, Comment) or item.text != text:
            raise AssertionError(f"expected {wanted}, but what came is\n    {item}\n{before(self.came[:-1])}")
        return item.text

    async def expect_heartbeat(self, *, within: float | None = None) -> None:
        """The next thing that comes is a comment, whatever it says."""
        await self.expect_comment(within=within)

    async def expect_nothing(self, seconds: float = 0.1) -> None:
        """For so many seconds no event comes, and the stream does not end. Comments may come."""
        with contextlib.suppress(_NothingCame):
            item = await self._take("nothing", lambda item: not isinstance(item, Comment) and _counts(item), seconds)
            raise AssertionError(f"expected nothing, but what came is\n    {item}\n{before(self.came[:-1])}")

    async def expect_end(self, reason: str | None = None, *, within: float | None = None) -> End:
        """The stream ends, without another event; for this reason of the hub's, if one is given. Returns how."""
        wanted = "the end of the stream" + (f" with the reason {reason!r}" if reason is not None else "")
        item: Item | None = None
        with contextlib.suppress(_Ended):
            item = await self._take(wanted, lambda item: not isinstance(item, Comment) and _counts(item), within)
        if item is not None:
            raise AssertionError(f"expected {wanted}, but what came is\n    {item}\n{before(self.came[:-1])}")
        if reason is not None and self.close_reason != reason:
            raise AssertionError(f"expected {wanted}, but its reason is {self.close_reason!r}; {before(self.came)}")
        assert self.end is not None
        return self.end

    async def text(self, *, within: float | None = None) -> str:
        """The whole body of an answer that is no event stream."""
        await self.opened()
        answer, seconds = self._answer, self._within if within is None else within
        if answer.is_stream:
            raise AssertionError(f"{self._request.path} answered with an event stream; read its events")
        with self._deadline(f"the end of the answer of {self._request.path}", seconds) as late:
            async with late:
                while answer.end is None:
                    await answer.more()
        self.raise_error()
        return answer.body.decode(errors="replace")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.next()
        except _Ended:
            raise StopAsyncIteration from None

    # What may happen to it.

    def pause(self) -> None:
        """Read nothing more, so that the application meets a full socket."""
        self._way.pause()

    def go_on(self) -> None:
        """Read again."""
        self._way.go_on()

    async def drop(self) -> None:
        """Lose the connection, as with the network. What had come before may still be read."""
        await self._way.drop()

    async def resume(self, *, after: float | None = None) -> None:
        """Come back as a browser does, with the last id: after `after` seconds, or after the time that the stream named
        under a virtual clock, and at once in real time.

        Raises `AssertionError` where a browser does not come back: after an answer that was no stream.
        """
        if not self._answer.is_stream:
            raise AssertionError(f"{self._request.path} answered {self.status}: a browser does not come back")
        if self.end is None:
            await self.drop()
        await self._way.close()
        if after is None:
            after = self.reconnection_time if is_virtual() else 0.0
        self._reconnection_time, unread = self.reconnection_time, self._answer.items
        await asyncio.sleep(after)
        self._connect(self.event_id)
        self._answer.items.extend(unread)
        await self._way.start()
        await self.opened()

    async def close(self) -> None:
        """Leave."""
        await self._way.close()

    async def start(self) -> None:
        """Send the request."""
        await self._way.start()

    def raise_error(self) -> None:
        """Raise what the application raised, if a test has not been told yet."""
        error, self._answer.error = self._answer.error, None
        if error is not None:
            raise error

    def _last_own(self, *types: str, more: Iterable[Item] = ()) -> Received | None:
        """The last event of these types that was read, or is among `more`."""
        found = (item for item in reversed([*self.came, *more]) if isinstance(item, Received) and item.type in types)
        return next(found, None)

    # How it waits.

    async def _first(self) -> None:
        """Let the application go on from its head to where it waits: what is published then, a test may expect."""
        for _ in range(TURNS):
            if self._answer.is_empty:
                await asyncio.sleep(0)

    async def _take(self, wanted: str, counts: Callable[[Item], bool], within: float | None) -> Item:
        await self.opened()
        answer, seconds = self._answer, self._within if within is None else within
        if not answer.is_stream:
            kind = answer.headers.get("content-type", "no content type")
            raise AssertionError(
                f"expected {wanted}, but {self._request.path} answered {answer.status} with {kind}: {await self.text()}"
            )
        with self._deadline(wanted, seconds) as late:
            async with late:
                while True:
                    while answer.items:
                        item = answer.take()
                        self.came.append(item)
                        if counts(item):
                            return item
                    if answer.end is not None:
                        self.raise_error()
                        said = f", reason {self.close_reason!r}" if self.close_reason else ""
                        raise _Ended(
                            f"expected {wanted}, but the stream has ended ({answer.end}{said}); {before(self.came)}"
                        )
                    await answer.more()

    @contextlib.contextmanager
    def _deadline(self, wanted: str, seconds: float) -> Any:
        late = asyncio.timeout(seconds)
        try:
            yield late
        except TimeoutError:
            if not late.expired():  # the application's own
                raise
            unit = "virtual s" if is_virtual() else "s"
            raise _NothingCame(
                f"expected {wanted}, but it has not come within {seconds:g} {unit}; {before(self.came)}"
            ) from None


class _Ended(AssertionError):
    """The stream ended where something was expected."""


class _NothingCame(AssertionError):
    """The time was up."""


def _counts(item: Item, own: str | None = None) -> bool:
    return isinstance(item, Comment) or not item.is_own or item.type == own


@contextlib.asynccontextmanager
async def stream(
    app: Application,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
    json: Any = None,
    body: bytes = b"",
    last_event_id: str = "",
    way: Through = "asgi",
    wait: bool = True,
    within: float = WITHIN_SECONDS,
    raise_errors: bool = True,
) -> AsyncIterator[Stream]:
    """Open an event stream of an ASGI application, or make any other request to it.

    `url` is a path with its query. `method` is GET, or POST with `json` or a `body`. The lifespan of the application is
    run around the stream, unless `running` or another stream has begun it. Returns with the answer's head, or at once
    with `wait=False`: for a request that a full pool has wait. `within` is for each expectation, in seconds. What the
    application raises is raised in the test, unless `raise_errors` is false: for its 500. `way="socket"` sends the
    request over a socket to uvicorn with ssepool's protocol, for the path on which a hub takes sockets over.
    """
    fields = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
    if json is not None:
        body = encoding.dumps(json).encode()
        fields.setdefault(b"content-type", b"application/json")
    if body:
        fields[b"content-length"] = str(len(body)).encode()
    parts = urlsplit(url)
    request = Request(method or ("POST" if body else "GET"), parts.path or "/", parts.query, list(fields.items()), body)
    async with _way_to(app, way) as make:
        found = Stream(make, request, within)
        if last_event_id:
            found._connect(last_event_id)
        try:
            await found.start()
            if wait:
                await found.opened()
            yield found
        finally:
            await found.close()
        if raise_errors:
            found.raise_error()


@contextlib.asynccontextmanager
async def _way_to(app: Application, way: Through) -> AsyncIterator[Callable[[Request, Answer], Way]]:
    if way == "asgi":
        async with running(app) as life:
            yield lambda request, answer: AsgiWay(life, request, answer)
    elif way == "socket":
        async with serve(app) as served:
            yield lambda request, answer: SocketWay(served, request, answer)
    else:
        raise ValueError(f"way = {way!r} is not allowed; it takes 'asgi' or 'socket'")
