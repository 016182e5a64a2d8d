"""Fields: an application's own header fields on the answers to those who ask for a stream (RFC 9110, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ssepool.errors import RequestError

Fields = list[tuple[bytes, bytes]]
"""Header fields as ASGI has them: names in lower case."""

OF_THE_STREAM = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"connection"}
)
"""Names of fields that say what a body is and how it ends: those are not the application's."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\0\r\n]*")


def fields_of(headers: Mapping[str, str]) -> Fields:
    """Header fields that an application gives, as ASGI has them. A name may come several times, as in Starlette's
    `Headers`. Raises `ValueError` for what is no field, and for one of `OF_THE_STREAM`."""
    fields = []
    for name, value in headers.items():
        try:
            field = name.lower().encode("ascii"), value.encode("latin-1")
        except (AttributeError, UnicodeEncodeError):
            raise ValueError(f"header {name!r}: {value!r} is not allowed: it takes two strings, in Latin-1") from None
        if not _NAME.fullmatch(field[0]) or not _VALUE.fullmatch(field[1]):
            raise ValueError(f"header {name!r}: {value!r} is not allowed: it takes a token, and a value in one line")
        if field[0] in OF_THE_STREAM:
            raise ValueError(
                f"header {name!r} is not allowed: a stream has its own, and so has what stands in its place"
            )
        fields.append(field)
    return fields


def head_of(stream: Sequence[tuple[bytes, bytes]], reply: Fields, usual: Sequence[tuple[bytes, bytes]]) -> Fields:
    """The head of a reply that is no stream, with what the application has added to the `stream`'s. `usual` are the
    fields of any stream, which say nothing about the reply."""
    names = {name for name, _ in reply} | OF_THE_STREAM
    return [*reply, *[field for field in stream if field not in usual and field[0] not in names]]


@contextmanager
def answered_with(headers: Mapping[str, str] | None) -> Iterator[None]:
    """Have what is raised here carry these header fields, where a framework makes an answer of it."""
    try:
        yield
    except RequestError as error:
        error.headers = {**(error.headers or {}), **(headers or {})}
        raise
