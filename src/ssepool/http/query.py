"""Query strings: bounded in size, and without unknown parameters but for those that are ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ssepool.core.topics import shown
from ssepool.http.errors import APIError, error_reply

MAX_QUERY_BYTES = 8 * 1024
"""Bytes of a query string at most."""


IGNORED = "ssepool.ignored"
"""In the scope of a request: the parameters that count for nothing."""


class Ignored:
    """Names of query parameters that count for nothing, because what stands between a page and the hub adds them; a
    name that ends in `*` stands for all that begin so. `name in ignored` tells whether one is among them."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` are those of `HubConfig.ignore_parameters`."""
        given = tuple(names)
        self._names = frozenset(given)
        self._beginnings = tuple(name[:-1] for name in given if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._names or name.startswith(self._beginnings)


class QueryLimit:
    """ASGI middleware: answers 414 (RFC 9110, 15.5.15) to a query string of more than `MAX_QUERY_BYTES` bytes, and
    tells `read_query` what is ignored."""

    def __init__(self, app: ASGIApp, ignored: Ignored | None = None) -> None:
        """`app` gets all other requests."""
        self.app = app
        """The application behind this middleware."""
        self._ignored = ignored or Ignored()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        size = len(scope.get("query_string", b""))
        if scope["type"] != "http" or size <= MAX_QUERY_BYTES:
            scope[IGNORED] = self._ignored
            return await self.app(scope, receive, send)
        message = f"the query string has {size} bytes; it takes {MAX_QUERY_BYTES} at most"
        await error_reply(414, "query_too_long", message)(scope, receive, send)


def pairs_of(text: str) -> list[tuple[str, str]]:
    """The names and values of a query string, in order, empty values too. Raises `ValueError` for escapes that are not
    UTF-8 (URL standard, application/x-www-form-urlencoded)."""
    # The standard library's `parse_qsl` takes twice as long, a tenth of what taking a subscription in costs.
    return [
        (_unescaped(name), _unescaped(value))
        for name, _, value in [pair.partition("=") for pair in text.split("&") if pair]
    ]


def _unescaped(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return unquote_to_bytes(text.replace("+", " ")).decode()


def read_query(request: Request, *allowed: str, repeatable: Iterable[str] = ()) -> dict[str, str]:
    """The query parameters of a request by name. A parameter of `repeatable` has its first value here.

    Raises `APIError` (400) for a parameter that is neither in `allowed` nor in `repeatable` nor ignored, and for one of
    `allowed` that is given twice.
    """
    names = (*allowed, *repeatable)
    values: dict[str, str] = {}
    ignored: Ignored | tuple[str, ...] = request.scope.get(IGNORED, ())
    for name, value in request.query_params.multi_items():
        if name not in names:
            if name in ignored:
                continue
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise APIError(400, "unknown_parameter", f"unknown query parameter {shown(name)}; {known}")
        if name in values and name not in repeatable:
            raise APIError(400, "invalid_parameter", f"the query parameter {name!r} is given more than once")
        values.setdefault(name, value)
    return values


def number(name: str, text: str, *, minimum: int, maximum: int) -> int:
    """The value of a parameter that takes a whole number from `minimum` to `maximum`.

    `name` is the parameter's name for the message. Raises `APIError` (400) for any other text.
    """
    if re.fullmatch(r"[0-9]{1,18}", text) and minimum <= int(text) <= maximum:
        return int(text)
    message = f"{name}={shown(text)} is not allowed; it takes a whole number from {minimum} to {maximum}"
    raise APIError(400, "invalid_parameter", message)


def seconds(name: str, text: str, *, maximum: int) -> float:
    """The value of a parameter that takes seconds from 0 to `maximum`, with or without a fraction.

    `name` is the parameter's name for the message. Raises `APIError` (400) for any other text.
    """
    if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text) and float(text) <= maximum:
        return float(text)
    raise APIError(
        400, "invalid_parameter", f"{name}={shown(text)} is not allowed; it takes seconds from 0 to {maximum}"
    )
