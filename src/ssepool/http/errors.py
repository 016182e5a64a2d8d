"""Errors over HTTP: what each is answered with, always as `{"error": {"code": ..., "message": ...}}`.

`code` is a word for programs and does not change; `message` is for people and names the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ExceptionHandler

from ssepool.core.topics import shown
from ssepool.errors import (
    BrokerError,
    ConfigError,
    ConnectionReleased,
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    InvalidTopic,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    SSEPoolError,
)
from ssepool.http.reply import JSONReply

ANSWERS: dict[type[SSEPoolError], tuple[int, str]] = {
    ConfigError: (400, "invalid_setting"),
    InvalidEvent: (400, "invalid_event"),
    EventTooLarge: (413, "event_too_large"),
    DuplicateEvent: (409, "duplicate_event"),
    InvalidTopic: (400, "invalid_topic"),
    PoolFull: (503, "pool_full"),
    PoolTimeout: (503, "timed_out"),
    PoolClosed: (503, "pool_closed"),
    ConnectionReleased: (404, "not_found"),
    BrokerError: (503, "broker_error"),
}
"""Status and code of each error of the package; a class not listed is answered as its base class is."""


class APIError(HTTPException):
    """A request that is refused. An `HTTPException`, so that it says its status in any Starlette application."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers) if headers else None)
        self.code = code


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONReply:
    """The answer to a request that is refused."""
    # A lone surrogate, which no JSON can carry, must not turn a refusal into an error of our own.
    message = message.encode("utf-8", "backslashreplace").decode()
    return JSONReply({"error": {"code": code, "message": message}}, status, headers)


def translate(error: SSEPoolError) -> APIError:
    """An error of the package as the refusal that it is answered with."""
    for cls in type(error).__mro__:
        if cls in ANSWERS:
            status, code = ANSWERS[cls]
            return APIError(status, code, str(error))
    return APIError(500, "internal_error", "the hub could not do what was asked")


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, APIError):
        return refusal(error.status_code, error.code, error.detail, error.headers)
    if error.status_code == 404:
        return refusal(404, "not_found", f"there is nothing at {shown(request.url.path)}", error.headers)
    if error.status_code == 405:
        return _on_wrong_method(request)
    return refusal(error.status_code, HTTPStatus(error.status_code).name.lower(), error.detail, error.headers)


def _on_wrong_method(request: Request) -> Response:
    # The exception knows the methods of one route, but a path may have several.
    methods: set[str] = {"OPTIONS"}
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    allowed = ", ".join(sorted(methods))
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allowed})
    message = f"{shown(request.url.path)} does not take {shown(request.method)}; it takes {allowed}"
    return refusal(405, "method_not_allowed", message, {"Allow": allowed})


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SSEPoolError)
    return await _on_http_exception(request, translate(error))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    # Nobody is there to read it: servers drop it. It only keeps an ordinary departure from being logged as a fault.
    return Response(status_code=400)


async def _on_defect(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again behind this answer, so that the server logs it.
    return refusal(500, "internal_error", "the hub failed at this request; its log says why")


handlers: dict[Any, ExceptionHandler] = {
    HTTPException: _on_http_exception,
    SSEPoolError: _on_error,
    ClientDisconnect: _on_disconnect,
    Exception: _on_defect,
}
"""For `Starlette(exception_handlers=...)`."""
