"""Client and AsyncClient: the I/O around `Reader` and `calls`, over httpx2."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from ssepool.client import calls
from ssepool.client.errors import ClientError, Unreachable
from ssepool.client.reader import Reader
from ssepool.core.decoder import Message
from ssepool.core.event import Event, EventFields

if TYPE_CHECKING:
    import httpx2

URL = "http://127.0.0.1:8000"
"""Where `ssepool serve` listens if it is told nothing."""
TIMEOUT_SECONDS = 10.0
"""Seconds for an answer, except that of a subscription."""
READ_TIMEOUT_SECONDS = 60.0
"""Seconds without a byte after which a stream is taken for dead: four heartbeats of a hub with default settings."""
HEAD_TIMEOUT_SECONDS = 600.0
"""Seconds that a subscription may wait for its head, which a hub whose pool is full holds back."""
MAX_ANSWER_BYTES = 64 * 1024
"""Bytes of a refusal that are read."""

OnOpen = Callable[[], object]
OnLost = Callable[[Unreachable | None, float], object]


def _limit_silence(response: httpx2.Response, seconds: float | None) -> None:
    """Bound the pauses in a stream's body: its head may take as long as the hub's queue, but a body has heartbeats."""
    response.request.extensions["timeout"]["read"] = seconds


def _opened(reader: Reader, response: httpx2.Response, answer: bytes) -> bool:
    kind = response.headers.get("content-type", "")
    return reader.opened(str(response.url), response.status_code, kind, answer)


class _Base:
    """What both clients know: the hub's URL, the headers and how errors are told."""

    def __init__(
        self, base_url: str = URL, *, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """Raises `ClientError` if `base_url` is not an HTTP URL or httpx2 is not installed."""
        try:
            import httpx2
        except ImportError:
            raise ClientError("the client needs httpx2: pip install 'ssepool[client]'") from None
        self._httpx = httpx2
        self.url = base_url.rstrip("/")
        self.timeout = timeout
        self._headers = dict(headers or {})
        try:
            url = httpx2.URL(base_url)
        except httpx2.InvalidURL:
            url = httpx2.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ClientError(f"{base_url!r} is not the URL of a hub; it takes one like {URL}")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn httpx2's errors into ours: `Unreachable` where another attempt may help."""
        httpx2 = self._httpx
        try:
            yield
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise ClientError(f"{self.url} cannot be asked: {error}") from error
        except httpx2.ConnectError as error:
            raise Unreachable(f"no hub answers at {self.url}: {error}") from error
        except httpx2.TimeoutException as error:
            raise Unreachable(f"no answer from {self.url} in time ({type(error).__name__})") from error
        except httpx2.RequestError as error:
            raise Unreachable(f"the connection to {self.url} broke: {error or type(error).__name__}") from error

    def _subscription(self, reader: Reader, topics: Sequence[str], patterns: Sequence[str]) -> dict[str, Any]:
        return {
            "method": "GET",
            "url": "/events",
            "params": calls.query(topics, patterns),
            "headers": reader.headers(),
            "timeout": self._httpx.Timeout(self.timeout, read=HEAD_TIMEOUT_SECONDS),
            "follow_redirects": True,
        }


class Client(_Base):
    """A hub over HTTP, for programs without an event loop. Closed by `close()` or as a context manager."""

    def __init__(
        self, base_url: str = URL, *, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """`headers` go with every request; `timeout` is in seconds. Raises `ClientError` for a bad URL."""
        super().__init__(base_url, headers=headers, timeout=timeout)
        self._http = self._httpx.Client(base_url=self.url, headers=self._headers, timeout=timeout)

    def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to one topic or several, and return its id.

        The fields are those of `Event`: `type`, `id`, `retry` in milliseconds, and `private`.

        Raises `InvalidEvent` or `InvalidTopic` before anything is sent, else `ClientError`. After `Unreachable` the
        event may have been published nevertheless.
        """
        return self.publish_many([Event.of(topic, data, **fields)])[0]

    def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish events in order, all of them or none, in one request; return their ids. Raises `ClientError`."""
        body = calls.body(events)
        with self._reaching():
            response = self._http.post("/events", content=body, headers={"Content-Type": calls.NDJSON})
        return calls.ids(response.status_code, response.content, str(response.url))

    def stats(self) -> dict[str, Any]:
        """The hub's numbers, as GET /pool has them. Raises `ClientError`."""
        with self._reaching():
            response = self._http.get("/pool", follow_redirects=True)
        return calls.stats(response.status_code, response.content, str(response.url))

    def drain(self, seconds: float = 30.0) -> None:
        """Have the hub take no more clients and send those that it has away, evenly over `seconds`, 0 to 3600.

        It returns at once; `stats()` tells how many are left. Raises `ClientError`: `Refused` with the code
        `pool_closed` if the hub is draining already.
        """
        with self._reaching():
            response = self._http.post("/pool/drain", json={"seconds": seconds})
        calls.draining(response.status_code, response.content, str(response.url))

    def subscribe(
        self,
        topics: str | Sequence[str] = (),
        *,
        patterns: str | Sequence[str] = (),
        last_event_id: str = "",
        read_timeout: float | None = READ_TIMEOUT_SECONDS,
        on_open: OnOpen | None = None,
        on_lost: OnLost | None = None,
    ) -> Generator[Message, None, None]:
        """The messages of topics and patterns, the hub's own (`ssepool.*`) too, until the hub answers 204.

        It reconnects as `EventSource` does: after the end of the stream and after network errors, the first attempt
        included, with the last event id, after the reconnection time. `on_open()` is called at the head of each
        stream, `on_lost(error, seconds)` before each wait (`None`: the hub ended the stream); what they raise ends the
        subscription. `read_timeout` is how many seconds may pass without a byte. Raises `ClientError` for any other
        answer than a stream, and `EventTooLarge`.
        """
        reader = Reader(last_event_id=last_event_id)
        while True:
            lost: Unreachable | None = None
            try:
                with (
                    self._reaching(),
                    self._http.stream(**self._subscription(reader, topics, patterns)) as response,
                ):
                    _limit_silence(response, read_timeout)
                    answer = (
                        b"" if response.status_code in (200, 204) else next(response.iter_bytes(MAX_ANSWER_BYTES), b"")
                    )
                    if not _opened(reader, response, answer):
                        return
                    if on_open:
                        on_open()
                    for chunk in response.iter_bytes():
                        yield from reader.feed(chunk)
            except Unreachable as error:
                lost = error
            seconds = reader.lost()
            if on_lost:
                on_lost(lost, seconds)
            time.sleep(seconds)

    def close(self) -> None:
        """Close the connections. Not to be called while a subscription is being read."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Base):
    """A hub over HTTP, for asyncio. Closed by `aclose()` or as an async context manager."""

    def __init__(
        self, base_url: str = URL, *, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """`headers` go with every request; `timeout` is in seconds. Raises `ClientError` for a bad URL."""
        super().__init__(base_url, headers=headers, timeout=timeout)
        self._http = self._httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=timeout)

    async def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to one topic or several, and return its id.

        The fields and the errors are those of `Client.publish`: `type`, `id`, `retry` in milliseconds, and `private`.
        """
        return (await self.publish_many([Event.of(topic, data, **fields)]))[0]

    async def publish_many(self, events: Iterable[Event]) -> list[str]:
        """As `Client.publish_many`."""
        body = calls.body(events)
        with self._reaching():
            response = await self._http.post("/events", content=body, headers={"Content-Type": calls.NDJSON})
        return calls.ids(response.status_code, response.content, str(response.url))

    async def stats(self) -> dict[str, Any]:
        """As `Client.stats`."""
        with self._reaching():
            response = await self._http.get("/pool", follow_redirects=True)
        return calls.stats(response.status_code, response.content, str(response.url))

    async def drain(self, seconds: float = 30.0) -> None:
        """As `Client.drain`."""
        with self._reaching():
            response = await self._http.post("/pool/drain", json={"seconds": seconds})
        calls.draining(response.status_code, response.content, str(response.url))

    async def subscribe(
        self,
        topics: str | Sequence[str] = (),
        *,
        patterns: str | Sequence[str] = (),
        last_event_id: str = "",
        read_timeout: float | None = READ_TIMEOUT_SECONDS,
        on_open: OnOpen | None = None,
        on_lost: OnLost | None = None,
    ) -> AsyncGenerator[Message, None]:
        """As `Client.subscribe`. Who leaves early closes the iterator: `contextlib.aclosing`."""
        reader = Reader(last_event_id=last_event_id)
        while True:
            lost: Unreachable | None = None
            try:
                with self._reaching():
                    async with self._http.stream(**self._subscription(reader, topics, patterns)) as response:
                        _limit_silence(response, read_timeout)
                        answer = b""
                        if response.status_code not in (200, 204):
                            async with aclosing(response.aiter_bytes(MAX_ANSWER_BYTES)) as parts:
                                answer = await anext(parts, b"")
                        if not _opened(reader, response, answer):
                            return
                        if on_open:
                            on_open()
                        async with aclosing(response.aiter_bytes()) as chunks:
                            async for chunk in chunks:
                                for message in reader.feed(chunk):
                                    yield message
            except Unreachable as error:
                lost = error
            seconds = reader.lost()
            if on_lost:
                on_lost(lost, seconds)
            await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        """Close the connections. Not to be called while a subscription is being read."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
