"""Client and AsyncClient: the I/O around `Reader` and `calls`, with httpx2."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from ssepool.client import calls
from ssepool.client.errors import ClientError, Unreachable
from ssepool.client.reader import Reader
from ssepool.core.bans import KICK_SECONDS
from ssepool.core.data import DataEncoder, JSONEncoder
from ssepool.core.decoder import Message
from ssepool.core.event import Event, EventFields, TombstoneFields
from ssepool.core.pool import DRAIN_SECONDS

if TYPE_CHECKING:
    import httpx2

URL = "http://127.0.0.1:8000"
"""Where `ssepool serve` listens by default."""
UNIX = "unix:"
"""What the URL of a hub on a Unix socket begins with; its path follows."""
SOCKET_URL = "http://localhost"
"""What a hub on a Unix socket is asked as."""
TIMEOUT_SECONDS = 10.0
"""How long an answer may take, except that of a subscription."""
READ_TIMEOUT_SECONDS = 60.0
"""Time without a byte after which a stream counts as dead: four heartbeats of a hub with default settings."""
HEAD_TIMEOUT_SECONDS = 600.0
"""How long a subscription waits for its head, which a hub holds back while its pool is full."""
MAX_ANSWER_BYTES = 64 * 1024
"""Bytes of a refusal that are read at most."""

Token = str | Callable[[], str]
"""A token, or a function that returns one which still counts."""
OnOpen = Callable[[], object]
"""A function that is called when a stream has begun."""
OnLost = Callable[[Unreachable | None, float], object]
"""A function that is called when a stream has ended, with the error, if any, and the seconds until the next attempt."""


def _limit_silence(response: httpx2.Response, seconds: float | None) -> None:
    """Bound the pauses in a stream's body. Its head may take as long as the hub's queue; the body has heartbeats."""
    response.request.extensions["timeout"]["read"] = seconds


def _opened(reader: Reader, response: httpx2.Response, answer: bytes) -> bool:
    kind = response.headers.get("content-type", "")
    return reader.opened(str(response.url), response.status_code, kind, answer)


def _bearer(token: Token) -> Callable[[httpx2.Request], httpx2.Request]:
    def sign(request: httpx2.Request) -> httpx2.Request:
        request.headers["Authorization"] = f"Bearer {token if isinstance(token, str) else token()}"
        return request

    return sign


class _Base:
    """What both clients share: the hub's URL, the header fields, and the errors for those of httpx2."""

    def __init__(
        self,
        base_url: str = URL,
        *,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """Raises `ClientError` if `base_url` is neither an HTTP URL nor `unix:PATH`, or httpx2 is not installed."""
        try:
            import httpx2
        except ImportError:
            raise ClientError("the client needs httpx2: pip install 'ssepool[client]'") from None
        self._httpx = httpx2
        self.url = base_url.rstrip("/")
        """The hub's URL, without a slash at its end."""
        self.timeout = timeout
        """Seconds that an answer may take, except that of a subscription."""
        self._headers = dict(headers or {})
        self._auth = None if token is None else _bearer(token)
        self._socket = base_url.removeprefix(UNIX) if base_url.startswith(UNIX) else None
        self._base = SOCKET_URL if self._socket else self.url
        try:
            url = httpx2.URL(self._base)
        except httpx2.InvalidURL:
            url = httpx2.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ClientError(f"{base_url!r} is not the URL of a hub; it takes one like {URL}")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn the errors of httpx2 into ours: `Unreachable` if another attempt may help."""
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
    """A hub over HTTP, for programs without an event loop. Close it with `close()`, or use it as a context manager."""

    def __init__(
        self,
        base_url: str = URL,
        *,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        timeout: float = TIMEOUT_SECONDS,
        json_encoder: JSONEncoder | None = None,
    ) -> None:
        """`headers` are sent with every request, and so is `token`, as `Authorization: Bearer`; a function is asked for
        it each time. `timeout` is how many seconds an answer may take. `json_encoder` is asked about objects in the
        data of events that are not known, and returns what stands for them.

        `base_url` is an HTTP URL, or `unix:` and the path of a Unix socket. Raises `ClientError` if it is neither, or
        if httpx2 is not installed.
        """
        super().__init__(base_url, headers=headers, token=token, timeout=timeout)
        self._encoder = DataEncoder(json_encoder)
        transport = self._httpx.HTTPTransport(uds=self._socket) if self._socket else None
        self._http = self._httpx.Client(
            base_url=self._base, headers=self._headers, auth=self._auth, timeout=timeout, transport=transport
        )

    def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to one topic or several, and return its id.

        The fields are those of `Event`: `type`, `id`, `retry` in milliseconds, `private`, `key` and `removed`.

        Raises `InvalidEvent` or `InvalidTopic` before anything is sent, else `ClientError`. After `Unreachable` the
        event may have been published nevertheless.
        """
        return self.publish_many([Event.of(topic, data, encoder=self._encoder, **fields)])[0]

    def remove(self, topic: str | Sequence[str], key: str, data: Any = None, **fields: Unpack[TombstoneFields]) -> str:
        """Publish that nothing is there under the key any more, as `Hub.remove`. Raises as `publish` does."""
        return self.publish_many([Event.tombstone(topic, key, data, encoder=self._encoder, **fields)])[0]

    def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Publish events in order, all of them or none, in one request, and return their ids. Raises `ClientError`."""
        body = calls.body(events)
        with self._reaching():
            response = self._http.post("/events", content=body, headers={"Content-Type": calls.NDJSON})
        return calls.ids(response.status_code, response.content, str(response.url))

    def stats(self) -> dict[str, Any]:
        """The hub's statistics, as GET /pool has them. Raises `ClientError`."""
        with self._reaching():
            response = self._http.get("/pool", follow_redirects=True)
        return calls.stats(response.status_code, response.content, str(response.url))

    def topics(self, **query: str | int) -> dict[str, Any]:
        """A page of topics, as GET /topics has it; `query` are its parameters. Raises `ClientError`."""
        with self._reaching():
            response = self._http.get("/topics", params=query, follow_redirects=True)
        return calls.topics(response.status_code, response.content, str(response.url))

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Have the hub admit no more clients, and close the streams of its clients evenly over `seconds`, 0 to 3600.

        This returns at once; `stats()` has the number of clients that are left. Raises `ClientError`: `Refused` with
        the code `pool_closed` if the hub is draining already.
        """
        with self._reaching():
            response = self._http.post("/pool/drain", json={"seconds": seconds})
        calls.draining(response.status_code, response.content, str(response.url))

    def kick(self, connection: str, seconds: float = KICK_SECONDS) -> None:
        """Send a client away, and keep it away for `seconds`, 0 to 3600. Raises `ClientError`."""
        path, query = calls.kick_target(connection, seconds)
        with self._reaching():
            response = self._http.delete(path, params=query)
        calls.kicked(response.status_code, response.content, str(response.url))

    def kick_all(
        self,
        *,
        user: str | None = None,
        topic: str | None = None,
        ip: str | None = None,
        seconds: float = KICK_SECONDS,
    ) -> tuple[int, list[str]]:
        """Send all clients of a user, a topic and an address away, on all nodes, and keep them away for `seconds`.

        Returns how many there were, and the nodes that did not answer. Raises `ClientError`, and `ValueError` without
        any of the three.
        """
        query = calls.kick_query(seconds, user=user, topic=topic, ip=ip)
        with self._reaching():
            response = self._http.delete("/connections", params=query)
        return calls.all_kicked(response.status_code, response.content, str(response.url))

    def revoke(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        issuer: str | None = None,
        issued_before: float | Literal["now"] | None = None,
    ) -> None:
        """Take grants back, on all nodes: those of which all that is said here is true. Their streams end.

        `issued_before` is in seconds since the epoch; `revoke(subject="u1", issued_before="now")` logs a user out.
        Raises `ClientError`, and `ValueError` without a subject and a token's id.
        """
        body = calls.revocation(subject=subject, token_id=token_id, issuer=issuer, issued_before=issued_before)
        with self._reaching():
            response = self._http.post("/revocations", json=body)
        calls.revoked(response.status_code, response.content, str(response.url))

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

        The client reconnects as `EventSource` does (WHATWG HTML, section 9.2.3): after the end of a stream and after
        network errors, those of the first attempt included, with the last event id, after the reconnection time.
        `last_event_id` is where to begin: "" for now, `earliest` for all events that are kept, `latest`
        or `last=N` for the newest of each topic. `read_timeout` is how
        many seconds may pass without a byte; `None` is any time.

        `on_open()` is called at the head of each stream, and `on_lost(error, seconds)` before each wait, where no error
        means that the hub ended the stream. An exception of theirs ends the subscription. Raises `ClientError` for any
        answer that is not a stream, and `EventTooLarge`.
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
        """Close the connections. Do not call this while a subscription is being read."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Base):
    """A hub over HTTP, for asyncio. Close it with `aclose()`, or use it as an async context manager."""

    def __init__(
        self,
        base_url: str = URL,
        *,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        timeout: float = TIMEOUT_SECONDS,
        json_encoder: JSONEncoder | None = None,
    ) -> None:
        """`headers` are sent with every request, and so is `token`, as `Authorization: Bearer`; a function is asked for
        it each time. `timeout` is how many seconds an answer may take. `json_encoder` is asked about objects in the
        data of events that are not known, and returns what stands for them.

        `base_url` is an HTTP URL, or `unix:` and the path of a Unix socket. Raises `ClientError` if it is neither, or
        if httpx2 is not installed.
        """
        super().__init__(base_url, headers=headers, token=token, timeout=timeout)
        self._encoder = DataEncoder(json_encoder)
        transport = self._httpx.AsyncHTTPTransport(uds=self._socket) if self._socket else None
        self._http = self._httpx.AsyncClient(
            base_url=self._base, headers=self._headers, auth=self._auth, timeout=timeout, transport=transport
        )

    async def publish(self, topic: str | Sequence[str], data: Any, **fields: Unpack[EventFields]) -> str:
        """Publish an event to one topic or several, and return its id.

        The fields and the errors are those of `Client.publish`: `type`, `id`, `retry` in milliseconds, `private`,
        `key` and `removed`.
        """
        return (await self.publish_many([Event.of(topic, data, encoder=self._encoder, **fields)]))[0]

    async def remove(
        self, topic: str | Sequence[str], key: str, data: Any = None, **fields: Unpack[TombstoneFields]
    ) -> str:
        """Publish that nothing is there under the key any more, as `Hub.remove`. Raises as `publish` does."""
        return (await self.publish_many([Event.tombstone(topic, key, data, encoder=self._encoder, **fields)]))[0]

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

    async def topics(self, **query: str | int) -> dict[str, Any]:
        """As `Client.topics`."""
        with self._reaching():
            response = await self._http.get("/topics", params=query, follow_redirects=True)
        return calls.topics(response.status_code, response.content, str(response.url))

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """As `Client.drain`."""
        with self._reaching():
            response = await self._http.post("/pool/drain", json={"seconds": seconds})
        calls.draining(response.status_code, response.content, str(response.url))

    async def kick(self, connection: str, seconds: float = KICK_SECONDS) -> None:
        """As `Client.kick`."""
        path, query = calls.kick_target(connection, seconds)
        with self._reaching():
            response = await self._http.delete(path, params=query)
        calls.kicked(response.status_code, response.content, str(response.url))

    async def kick_all(
        self,
        *,
        user: str | None = None,
        topic: str | None = None,
        ip: str | None = None,
        seconds: float = KICK_SECONDS,
    ) -> tuple[int, list[str]]:
        """As `Client.kick_all`."""
        query = calls.kick_query(seconds, user=user, topic=topic, ip=ip)
        with self._reaching():
            response = await self._http.delete("/connections", params=query)
        return calls.all_kicked(response.status_code, response.content, str(response.url))

    async def revoke(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        issuer: str | None = None,
        issued_before: float | Literal["now"] | None = None,
    ) -> None:
        """As `Client.revoke`."""
        body = calls.revocation(subject=subject, token_id=token_id, issuer=issuer, issued_before=issued_before)
        with self._reaching():
            response = await self._http.post("/revocations", json=body)
        calls.revoked(response.status_code, response.content, str(response.url))

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
        """As `Client.subscribe`. A caller that leaves early has to close the iterator: see `contextlib.aclosing`."""
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
        """Close the connections. Do not call this while a subscription is being read."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
