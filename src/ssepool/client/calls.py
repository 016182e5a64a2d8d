"""What a client sends to a hub and how it reads the answers, without any I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from ssepool.client.errors import ClientError, Refused
from ssepool.core.event import Event

T = TypeVar("T")

NDJSON = "application/x-ndjson"
MAX_BATCH_EVENTS = 500
"""Events that one request carries at most, where the client may choose."""
MAX_BATCH_BYTES = 256 * 1024
"""Bytes that one request carries at most, where the client may choose; one event alone may exceed them."""


def encode(event: Event) -> bytes:
    """An event as a line of NDJSON."""
    fields: dict[str, Any] = {"topics": event.topics, "data": event.data}
    for name in ("type", "id", "retry"):
        if (value := getattr(event, name)) is not None:
            fields[name] = value
    if event.private:
        fields["private"] = True
    return msgspec.json.encode(fields) + b"\n"


def body(events: Iterable[Event]) -> bytes:
    """The body of one request that publishes the events in order, all of them or none."""
    return b"".join(map(encode, events))


def batches(
    events: Iterable[Event], most_events: int = MAX_BATCH_EVENTS, most_bytes: int = MAX_BATCH_BYTES
) -> Iterator[list[Event]]:
    """The events in order, cut into as few requests as these bounds allow."""
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
    """The query of a subscription; one topic or pattern may be given as a string."""
    topics = [topics] if isinstance(topics, str) else topics
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return [("topic", topic) for topic in topics] + [("pattern", pattern) for pattern in patterns]


def ids(status: int, answer: bytes, url: str) -> list[str]:
    """The ids from the answer to a publication; raises `ClientError`."""
    return _read(status, 201, answer, url, _Published).ids


def stats(status: int, answer: bytes, url: str) -> dict[str, Any]:
    """The hub's statistics; raises `ClientError`."""
    return _read(status, 200, answer, url, dict[str, Any])


def draining(status: int, answer: bytes, url: str) -> None:
    """Read the answer to the order to drain; raises `ClientError`."""
    _read(status, 202, answer, url, dict[str, Any])


def refusal(status: int, answer: bytes, url: str) -> Refused:
    """The hub's error out of an answer, or what little an answer from somebody else says."""
    try:
        error = msgspec.json.decode(answer, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        return Refused(f"{url} answered {status} {phrase}".rstrip(), status=status)
    return Refused(error.message, status=status, code=error.code)


class _Published(msgspec.Struct):
    ids: list[str]


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
