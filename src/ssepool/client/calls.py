"""The requests of a client to a hub, and how the answers are read, without any I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from ssepool.client.errors import ClientError, Refused
from ssepool.core.event import Event

T = TypeVar("T")

NDJSON = "application/x-ndjson"
"""The media type of a request that publishes: one JSON object on each line."""
MAX_BATCH_EVENTS = 500
"""Events that one request carries at most, if the client may choose."""
MAX_BATCH_BYTES = 256 * 1024
"""Bytes that one request carries at most, if the client may choose; one event alone may exceed them."""


def encode(event: Event) -> bytes:
    """The event as a line of NDJSON, without the fields that have their defaults."""
    fields: dict[str, Any] = {"topics": event.topics, "data": event.data}
    for name in ("type", "id", "retry", "key"):
        if (value := getattr(event, name)) is not None:
            fields[name] = value
    for name in ("private", "removed"):
        if getattr(event, name):
            fields[name] = True
    return msgspec.json.encode(fields) + b"\n"


def body(events: Iterable[Event]) -> bytes:
    """The body of one request that publishes the events in order, all of them or none."""
    return b"".join(map(encode, events))


def batches(
    events: Iterable[Event], most_events: int = MAX_BATCH_EVENTS, most_bytes: int = MAX_BATCH_BYTES
) -> Iterator[list[Event]]:
    """The events in order, cut into as few lists as the bounds allow, one for each request.

    An event that alone has more than `most_bytes` bytes, as NDJSON, makes a list of its own.
    """
    batch: list[Event] = []
    size = 0
    for event in events:
        length = len(encode(event))
        if batch and (len(batch) == most_events or size + length > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += length
    if batch:
        yield batch


def query(topics: Sequence[str], patterns: Sequence[str]) -> list[tuple[str, str]]:
    """The parameters of a subscription's URL; a single topic or pattern may be a string."""
    topics = [topics] if isinstance(topics, str) else topics
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return [("topic", topic) for topic in topics] + [("pattern", pattern) for pattern in patterns]


def ids(status: int, answer: bytes, url: str) -> list[str]:
    """The ids of the events, from the answer to a request that published them. Raises `ClientError`."""
    return _read(status, 201, answer, url, _Published).ids


def stats(status: int, answer: bytes, url: str) -> dict[str, Any]:
    """The hub's statistics, from the answer of GET /pool. Raises `ClientError`."""
    return _read(status, 200, answer, url, dict[str, Any])


def topics(status: int, answer: bytes, url: str) -> dict[str, Any]:
    """A page of topics, from the answer of GET /topics. Raises `ClientError`."""
    return _read(status, 200, answer, url, dict[str, Any])


def draining(status: int, answer: bytes, url: str) -> None:
    """Read the answer of POST /pool/drain. Raises `ClientError`."""
    _read(status, 202, answer, url, dict[str, Any])


def kick_target(connection: str, seconds: float) -> tuple[str, dict[str, str]]:
    """Path and query of the request that kicks one client."""
    return f"/connections/{quote(connection, safe='')}", {"seconds": f"{seconds:g}"}


def kick_query(seconds: float, **wanted: str | None) -> dict[str, str]:
    """The query of the request that kicks all of a user, a topic or an address. Raises `ValueError` for none."""
    found = {name: value for name, value in wanted.items() if value is not None}
    if not found:
        raise ValueError("kick_all takes a user, a topic or an ip: it does not kick everybody")
    return {**found, "seconds": f"{seconds:g}"}


def revocation(**wanted: str | float | None) -> dict[str, str | float]:
    """The body of the request that takes grants back. Raises `ValueError` without a subject and a token's id."""
    found = {name: value for name, value in wanted.items() if value is not None}
    if not found.keys() & {"subject", "token_id"}:
        raise ValueError("revoke takes a subject or a token_id: it does not take back every grant")
    return found


def revoked(status: int, answer: bytes, url: str) -> None:
    """Read the answer of POST /revocations. Raises `ClientError`."""
    _read(status, 201, answer, url, dict[str, Any])


def kicked(status: int, answer: bytes, url: str) -> None:
    """Read the answer of DELETE /connections/{id}. Raises `ClientError`."""
    if status != 204:
        raise refusal(status, answer, url)


def all_kicked(status: int, answer: bytes, url: str) -> tuple[int, list[str]]:
    """How many were kicked, and the nodes that did not answer, from DELETE /connections. Raises `ClientError`."""
    found = _read(status, 200, answer, url, _Kicked)
    return found.kicked, found.missing


def refusal(status: int, answer: bytes, url: str) -> Refused:
    """The error for an answer: with the hub's message and code, or with the status alone if no hub answered."""
    try:
        error = msgspec.json.decode(answer, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        return Refused(f"{url} answered {status} {phrase}".rstrip(), status=status)
    return Refused(error.message, status=status, code=error.code)


class _Published(msgspec.Struct):
    ids: list[str]


class _Kicked(msgspec.Struct):
    kicked: int
    missing: list[str]


class _ErrorDetails(msgspec.Struct):
    code: str
    message: str


class _Error(msgspec.Struct):
    error: _ErrorDetails


def _read(status: int, wanted: int, answer: bytes, url: str, kind: type[T]) -> T:
    if status != wanted:
        raise refusal(status, answer, url)
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientError(f"the answer of {url} is not that of a hub: {error}") from None
