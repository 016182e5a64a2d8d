"""POST /events: publish one event or a batch, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ssepool.core.event import Event
from ssepool.core.topics import OWN_TOPICS, shown
from ssepool.errors import EventTooLarge, InvalidEvent, InvalidTopic, SSEPoolError
from ssepool.http.body import JSON, decode, media_type, read_body
from ssepool.http.errors import APIError, translate
from ssepool.http.query import read_query
from ssepool.http.reply import JSON_HEADERS, JSONReply
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import Reply

PATH = "/events"
TARGET = PATH.encode()

NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"

MOST_EVENTS = 10_000
"""Events of a batch: they enter the hub in one step, which holds the event loop for so long."""
SLICE = 500
"""Events that are checked in one go; other work of the event loop gets its turn in between."""
MOST_FIELDS = 1000
"""Fields of a form."""

PLAIN_KINDS = {kind.encode() + rest: kind for kind in (JSON, NDJSON) for rest in (b"", b"; charset=utf-8")}
"""As nearly all publishers write the media type; the route reads all other ways of writing it."""
NOT_PLAIN = frozenset({b"origin", b"content-type", b"content-encoding"})
"""Headers, one of them if it is there a second time, that the route and what is around it have to see to."""

YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"0", "false", "no", "off", ""})


class Incoming(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as publishers write it. Types are checked here, values where an `Event` is made of it."""

    data: Any
    topic: str | None = None
    topics: tuple[str, ...] | None = None
    type: str | None = None
    id: str | None = None
    retry: int | None = None
    private: bool = False


FIELDS = ("topic", "topics", "data", "type", "id", "retry", "private")
FORM_FIELDS = ("topic", "data", "type", "id", "retry", "private")
BATCH: msgspec.json.Decoder[Incoming | list[Incoming]] = msgspec.json.Decoder(Incoming | list[Incoming])
LINE = msgspec.json.Decoder(Incoming)


def routes(engine: Engine) -> list[BaseRoute]:
    """The route of this file."""

    async def publish(request: Request) -> Response:
        read_query(request)
        kind = media_type(request, JSON, NDJSON, FORM)
        batch = _batch(kind, await read_body(request, engine.config.max_body))
        events: list[Event] = []
        for start in range(0, len(batch), SLICE):
            if start:
                await asyncio.sleep(0)
            events += _events(batch, start)
        try:
            return JSONReply({"ids": await engine.publish_many(events)}, 201)
        except EventTooLarge as error:
            sizes = [len(event.encode()) for event in events]
            raise APIError(413, "event_too_large", f"events[{sizes.index(max(sizes))}]: {error}") from None

    return [Route(PATH, publish, methods=["POST"])]


def publish_nowait(engine: Engine, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Reply | None:
    """Publish what a plain request to `PATH` holds, or do nothing and return None: then the route has to be asked,
    which waits where that is needed, and says what is wrong."""
    kind = ""
    for name, value in headers:
        if name == b"content-type" and not kind:
            kind = PLAIN_KINDS.get(value, "")
        elif name in NOT_PLAIN:
            return None
    if not kind or len(body) > engine.config.max_body:
        return None
    try:
        batch = _batch(kind, body)
        ids = engine.try_publish(_events(batch, 0)) if len(batch) <= SLICE else None
    except (SSEPoolError, APIError):
        return None
    return None if ids is None else (201, JSON_HEADERS, msgspec.json.encode({"ids": ids}))


def _batch(kind: str, body: bytes) -> Sequence[Incoming]:
    """The events of a body; a tuple if it is one that does not stand in an array. Raises `APIError`."""
    if kind == FORM:
        return (_from_form(body),)
    batch = _from_json(body) if kind == JSON else _from_lines(body)
    if isinstance(batch, Incoming):
        return (batch,)
    if not batch:
        raise APIError(400, "invalid_event", "the batch is empty; it takes at least one event")
    if len(batch) > MOST_EVENTS:
        message = f"the batch has {len(batch)} events; it takes {MOST_EVENTS} at most"
        raise APIError(413, "batch_too_large", message)
    return batch


def _events(batch: Sequence[Incoming], start: int) -> list[Event]:
    """`SLICE` events of a batch; raises `APIError` that names the first bad one."""
    events: list[Event] = []
    try:
        for new in batch[start : start + SLICE]:
            events.append(_make(new))
    except (SSEPoolError, APIError):
        # Made once more, for an error that says which it was: names are not worth their time in a batch without one.
        place = start + len(events)
        _event(batch[place], f"events[{place}]" if isinstance(batch, list) else "event")
        raise
    return events


def _event(new: Incoming, name: str) -> Event:
    """Make an event; what is wrong with it is said of `name`."""
    try:
        return _make(new)
    except (InvalidEvent, InvalidTopic) as error:
        refused = translate(error)
    except APIError as error:
        refused = error
    # All messages of an event's fields begin with the field.
    raise APIError(refused.status_code, refused.code, f"{name}.{refused.detail}")


def _make(new: Incoming) -> Event:
    topics = new.topics
    if topics is None:
        if new.topic is None:
            raise APIError(400, "invalid_event", "topic is missing; it takes topic (a string) or topics (an array)")
        topics = (new.topic,)
    elif new.topic is not None:
        raise APIError(400, "invalid_event", "topics is there beside topic; it takes one of them")
    elif not topics:
        raise APIError(400, "invalid_event", "topics is empty; it takes at least one topic")
    for topic in topics:
        if topic.startswith(OWN_TOPICS):
            message = f"topic {shown(topic)} is the hub's own; it takes topics that do not begin with {OWN_TOPICS!r}"
            raise APIError(403, "forbidden_topic", message)
    data = new.data
    if data.__class__ is not str:
        try:
            data = msgspec.json.encode(data).decode()
        except RecursionError:
            raise APIError(400, "invalid_event", "data is nested too deep") from None
    return Event(data, topics, new.type, new.id, new.retry, new.private)


def _from_json(body: bytes) -> Incoming | list[Incoming]:
    return decode(BATCH, body, root="event", code="invalid_event", fields=FIELDS)


def _from_lines(body: bytes) -> list[Incoming]:
    try:
        batch = LINE.decode_lines(body)
        if len(batch) == body.count(b"\n") + (not body.endswith(b"\n")):
            return batch
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # what is wrong, and in which event, shows below
    # Blank lines, several events in a line, an event over several lines, or an error.
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    return [
        decode(LINE, line, root=f"events[{index}]", code="invalid_event", fields=FIELDS)
        for index, line in enumerate(lines)
    ]


def _from_form(body: bytes) -> Incoming:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise APIError(400, "invalid_form", f"the body is not a form in UTF-8: {error}") from None
    values: dict[str, str] = {}
    topics = tuple(value for name, value in pairs if name == "topic")
    for name, value in pairs:
        if name not in FORM_FIELDS:
            message = f"event has the unknown field {shown(name)}; it takes {', '.join(FORM_FIELDS)}"
            if name.lstrip().startswith(("{", "[")):
                message += f" (for JSON, send Content-Type: {JSON})"
            raise APIError(400, "unknown_field", message)
        if name in values and name != "topic":
            raise APIError(400, "invalid_event", f"event.{name} is given more than once")
        values[name] = value
    if "data" not in values:
        raise APIError(400, "invalid_event", "event.data is missing")
    private, retry = values.get("private", "").lower(), values.get("retry", "")
    if private not in YES | NO:
        raise APIError(400, "invalid_event", f"event.private is {shown(values['private'])}; it takes true or false")
    if retry and not (retry.isascii() and retry.isdecimal() and len(retry) <= 18):
        raise APIError(400, "invalid_event", f"event.retry is {shown(retry)}; it takes milliseconds, a whole number")
    return Incoming(
        data=values["data"],
        topics=topics or None,
        # A page's form sends its empty fields too.
        type=values.get("type") or None,
        id=values.get("id") or None,
        retry=int(retry) if retry else None,
        private=private in YES,
    )
