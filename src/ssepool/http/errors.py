"""Errors over HTTP: every refusal is answered as `{"error": {"code": ..., "message": ...}}`.

Status and code of each error of the package stand in `core/refusal.py`.
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

from ssepool.core.refusal import DEFECT, refusal_body, status_and_code
from ssepool.core.topics import shown
from ssepool.errors import RequestError, SSEPoolError
from ssepool.http.reply import JSONReply


class APIError(HTTPException):
    """A refused request. It is an `HTTPException`, so that any Starlette application answers it with its status."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """`status` is the HTTP status, `code` the word for programs, `message` the text for people."""
        super().__init__(status, message, dict(headers) if headers else None)
        self.code = code
        """The word for programs."""


def error_reply(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONReply:
    """The answer to a refused request."""
    return JSONReply(refusal_body(code, message), status, headers)


def translate(error: SSEPoolError) -> APIError:
    """The refusal for an error of the package. The message of an error that is in no table stays inside the hub."""
    status, code = status_and_code(error)
    message = "the hub could not do what was asked" if (status, code) == DEFECT else str(error)
    headers = error.headers if isinstance(error, RequestError) else None
    return APIError(status, code, message, headers)


def reply_to(error: SSEPoolError) -> JSONReply:
    """The answer to a request that met an error of the package."""
    refusal = translate(error)
    return error_reply(refusal.status_code, refusal.code, refusal.detail, refusal.headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, APIError):
        return error_reply(error.status_code, error.code, error.detail, error.headers)
    if error.status_code == 404:
        return error_reply(404, "not_found", f"there is nothing at {shown(request.url.path)}", error.headers)
    if error.status_code == 405:
        return _on_wrong_method(request)
    return error_reply(error.status_code, HTTPStatus(error.status_code).name.lower(), error.detail, error.headers)


def _on_wrong_method(request: Request) -> Response:
    """Answer 405, or 204 to OPTIONS, with the methods of the path in `Allow` (RFC 9110, 15.5.6)."""
    # The exception knows the methods of one route, but a path may have several routes.
    methods: set[str] = {"OPTIONS"}
    more: dict[str, str] = {}
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
            more |= getattr(route, "headers", {})
    headers = {"Allow": (allowed := ", ".join(sorted(methods))), **more}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    message = f"{shown(request.url.path)} does not take {shown(request.method)}; it takes {allowed}"
    return error_reply(405, "method_not_allowed", message, headers)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SSEPoolError)
    return reply_to(error)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    # No client is left to read this, and servers drop it. It keeps servers from logging a departure as a fault.
    return Response(status_code=400)


async def _on_defect(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again behind this answer, so that the server logs it.
    status, code = DEFECT
    return error_reply(status, code, "the hub failed at this request; its log says why")


handlers: dict[Any, ExceptionHandler] = {
    HTTPException: _on_http_exception,
    SSEPoolError: _on_error,
    ClientDisconnect: _on_disconnect,
    Exception: _on_defect,
}
"""The exception handlers of an application with the hub's routes: `Starlette(exception_handlers=handlers)`."""
