"""Application: the user's own application, asked over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ssepool.errors import ConfigError
from ssepool.http.access.answer import MAX_ANSWER_BYTES

if TYPE_CHECKING:
    import httpx2

MAX_CONNECTIONS = 100
"""Connections to the application at most, and so questions that are under way."""

HeaderFields = list[tuple[bytes, bytes]]
"""Header fields as ASGI has them."""

OWN_FIELDS: HeaderFields = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
"""What every question has. Frameworks answer 401 rather than redirect to who accepts JSON."""


class Unanswered(Exception):
    """The application has given no answer: the message says why."""


class Reply(NamedTuple):
    """What the application answered."""

    status: int
    """The HTTP status."""
    body: bytes
    """The body of a 200; empty for all others."""


class Application:
    """Asks over connections that it keeps.

    It uses the transport of httpx2 without the client around that, which would follow redirects, obey variables of
    proxies, and send the cookie that was set for one user along with the question for the next.
    """

    def __init__(self, url: str) -> None:
        """`url` is that of the settings. Raises `ConfigError` if httpx2 is not installed."""
        try:
            import httpx2
        except ImportError:
            raise ConfigError("authorize_url needs httpx2: pip install 'ssepool[client]'") from None
        self.shown = url.partition("?")[0]
        """The URL for logs: without the query, which may hold a secret."""
        self._url = url
        self._httpx = httpx2
        self._transport: httpx2.AsyncHTTPTransport | None = None

    async def ask(self, headers: HeaderFields, query: str) -> Reply:
        """GET with these header fields, and a query behind that of the URL. Takes as long as it takes. Raises
        `Unanswered`."""
        httpx2 = self._httpx
        try:
            try:
                return await self._get(headers, query)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                # A server closes a connection that it has kept long enough, and the question meets that on its way.
                return await self._get(headers, query)
        except httpx2.HTTPError as error:
            raise Unanswered(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _get(self, headers: HeaderFields, query: str) -> Reply:
        url = f"{self._url}{'&' if '?' in self._url else '?'}{query}"
        request = self._httpx.Request("GET", url, headers=[*OWN_FIELDS, *headers])
        response = await self._opened().handle_async_request(request)
        try:
            if response.status_code != 200:
                return Reply(response.status_code, b"")
            body = b""
            # Raw: a compressed answer, which nobody asked for, may be of any size once it is decompressed.
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise Unanswered(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
            return Reply(200, body)
        finally:
            await response.aclose()

    def _opened(self) -> httpx2.AsyncHTTPTransport:
        if self._transport is None:
            httpx2 = self._httpx
            limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
            self._transport = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
        return self._transport
