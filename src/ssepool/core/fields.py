"""Fields: the header fields of a request by name, for whoever looks for a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = "ssepool.fields"
"""In the scope of a request, if it is there: what `fields_of` returns, made once for all who ask."""


def fields_of(scope: Mapping[str, Any]) -> Mapping[bytes, bytes]:
    """The header fields of a request by name, in lower case, from its ASGI scope; of several with one name the last."""
    fields: Mapping[bytes, bytes] | None = scope.get(FIELDS)
    return dict(scope["headers"]) if fields is None else fields


def only(name: bytes, headers: Sequence[tuple[bytes, bytes]], fields: Mapping[bytes, bytes]) -> bytes | None:
    """The value of a field that a request has once; None if it has none, or several. `fields` are its headers by
    name."""
    value = fields.get(name)
    if value is None or len(fields) == len(headers):  # then no field comes twice, as in nearly all requests
        return value
    return value if [other for other, _ in headers].count(name) == 1 else None
