"""Credentials: what a request presents of itself, before anybody judges it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ssepool.errors import BadCredentials

PLACES = frozenset({b"authorization", b"cookie"})
"""The header fields that may have a token."""


class Presented(msgspec.Struct, frozen=True, gc=False):
    """What a request presents."""

    token: str | None
    """The token; None if the field `Authorization` has something else."""
    by_cookie: bool
    """Whether a cookie has it, which browsers send along whatever page asks."""


def presented(headers: Iterable[tuple[bytes, bytes]], cookie_name: str) -> Presented | None:
    """The token of `Authorization: Bearer` (RFC 6750, 2.1), or of the cookie of this name; never of the query (RFC
    9700, 4.3.2). None if there is neither. The names of `headers` are in lower case.

    Raises `BadCredentials` for two of a kind, and for both at once: which of them would count, proxies and we may see
    differently.
    """
    field: bytes | None = None
    cookies: list[str] = []
    for name, value in headers:
        if name == b"authorization":
            if field is not None:
                raise BadCredentials("a request takes one Authorization field")
            field = value
        elif name == b"cookie":
            cookies += _values(value.decode("latin-1"), cookie_name)
    if field is None and not cookies:
        return None
    if len(cookies) > 1:
        raise BadCredentials("a request takes one cookie with a token")
    scheme, _, token = ("", "", "") if field is None else field.decode("latin-1").partition(" ")
    is_bearer = scheme.lower() == "bearer"
    if cookies:
        if is_bearer:
            raise BadCredentials("a request takes a token in Authorization or in a cookie, not in both")
        return Presented(cookies[0], True)
    return Presented(token.strip() if is_bearer else None, False)


def _values(field: str, wanted: str) -> list[str]:
    """The values of the cookies of this name in one field `Cookie` (RFC 6265, 4.2.1)."""
    if wanted not in field:
        return []
    pairs = (pair.partition("=") for pair in field.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == wanted]
