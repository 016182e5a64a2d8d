"""Rates over HTTP: how much one address may ask for, and what it is told beyond that (429; RFC 6585, section 4)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssepool.config import KiB
from ssepool.http.errors import error_reply, translate
from ssepool.http.wish import asks_for_stream
from ssepool.runtime.engine import Engine

NO_FAILURES = frozenset({408, 409, 429})
"""Statuses of refusals that say nothing against a client: slow, tried again, or refused for its rate already."""

SMALL_BODY_BYTES = 64 * KiB
"""A declared length up to which a refused body is left to the server to read and throw away."""


def check_rate(
    engine: Engine, request: Request, kind: str, count: int = 1, *, user: str | None = None, take: bool = True
) -> None:
    """Raise `APIError` (429) if this user, or else the client's address, may not do so much now, by the rate `kind`.
    Without `take` this only looks: to refuse before a body is read."""
    ip = request.client.host if request.client else None
    refusal = engine.rates.refusal(kind, ip, engine.now(), count, user=user, take=take)
    if refusal is not None:
        error = translate(refusal)
        if not take:
            error.headers = {**(error.headers or {}), **_goodbye(request.scope)}
        raise error


class FailureLimit:
    """Middleware that turns an address away for which too many requests were refused (`failure_rate`).

    Not from the stream, where a browser would give up for good (it is refused there by a rate of its own), nor from the
    questions for the hub's health, which may come from the same address.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        client = scope.get("client")
        if scope["type"] != "http" or not client:
            await self._app(scope, receive, send)
            return
        engine, ip = self._engine, client[0]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if 400 <= status < 500 and status not in NO_FAILURES:
                    engine.rates.allows("failure", ip, engine.now(), take=True)
            await send(message)

        refusal = None
        if not _is_exempt(scope):
            refusal = engine.rates.refusal("failure", ip, engine.now(), take=False)
        if refusal is None:
            await self._app(scope, receive, counted)
        else:
            error = translate(refusal)
            headers = {**(error.headers or {}), **_goodbye(scope)}
            await error_reply(error.status_code, error.code, error.detail, headers)(scope, receive, send)


def _is_exempt(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith("/health/") or (path == "/events" and asks_for_stream(scope["method"], scope["headers"]))


def _goodbye(scope: Scope) -> dict[str, str]:
    """A header field that ends the connection where a long body is on its way, which the server would read to throw it
    away. HTTP/2 has no such field (RFC 9113, 8.2.2)."""
    fields = dict(scope["headers"])
    length = fields.get(b"content-length", b"")
    small = b"transfer-encoding" not in fields and (
        not length or (length.isdigit() and len(length) < 10 and int(length) <= SMALL_BODY_BYTES)
    )
    return {} if small or not scope.get("http_version", "1.1").startswith("1") else {"Connection": "close"}
