"""Query strings: bounded, and without parameters that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ssepool.core.topics import shown
from ssepool.http.errors import APIError, refusal

MAX_QUERY_BYTES = 8 * 1024
"""Bytes of a query string at most."""


class QueryLimit:
    """ASGI middleware: answers 414 to a query string of more than `MAX_QUERY_BYTES` bytes and passes on all else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = len(scope.get("query_string", b""))
        if scope["type"] != "http" or size <= MAX_QUERY_BYTES:
            return await self.app(scope, receive, send)
        message = f"the query string has {size} bytes; it takes {MAX_QUERY_BYTES} at most"
        await refusal(414, "query_too_long", message)(scope, receive, send)


def read_query(request: Request, *allowed: str, repeatable: Iterable[str] = ()) -> dict[str, str]:
    """The parameters of a request by name, of which `repeatable` ones hold their first value here.

    Raises `APIError` (400) for a parameter that is in neither list, or is given twice and must not be.
    """
    names = (*allowed, *repeatable)
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise APIError(400, "unknown_parameter", f"unknown query parameter {shown(name)}; {known}")
        if name in values and name not in repeatable:
            raise APIError(400, "invalid_parameter", f"the query parameter {name!r} is given more than once")
        values.setdefault(name, value)
    return values


def number(name: str, text: str, *, least: int, most: int) -> int:
    """A whole number from a parameter; raises `APIError` (400) for anything else or out of range."""
    if re.fullmatch(r"[0-9]{1,18}", text) and least <= int(text) <= most:
        return int(text)
    message = f"{name}={shown(text)} is not allowed; it takes a whole number from {least} to {most}"
    raise APIError(400, "invalid_parameter", message)


def seconds(name: str, text: str, *, most: int) -> float:
    """Seconds, also with a fraction, from a parameter; raises `APIError` (400) for anything else or out of range."""
    if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text) and float(text) <= most:
        return float(text)
    raise APIError(400, "invalid_parameter", f"{name}={shown(text)} is not allowed; it takes seconds from 0 to {most}")
